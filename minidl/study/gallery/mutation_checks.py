"""Which check sees which mistake of the mutation gallery: the table of docs/mutations.md, computed.

    print(markdown(table()))

A row is a mutation on a case: an op with settings and inputs. A column is a way in which people check a backward:

    gradcheck        minidl.gradcheck with its defaults
    ones             the check that one writes first: numeric slopes of the sum of all outputs, element by element, so that
                     every incoming gradient is 1; eps 1e-4, rtol 1e-4, atol 1e-5
    definition       outputs and gradients against the op's formula, written a second time, differentiated by the complex step
    twice            a second backward doubles every .grad; gradients share no memory; what came in is unmodified
    training         the loss of a small net, with the case's op in its middle, falls to less than half in 60 steps
    PyTorch          outputs and gradients against PyTorch's, for the same inputs and the same incoming gradient
    torch gradcheck  torch.autograd.gradcheck with its defaults, of the op inside a torch.autograd.Function

All in float64, on standard normal inputs or, for ties, small whole numbers. Only plain functions run.
"""

import importlib
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import minidl.nn.functional as minidl_functional
from minidl import optim, random
from minidl.grad_mode import no_grad
from minidl.gradcheck import GradcheckError, gradcheck
from minidl.kernels import plain_kernels
from minidl.study.gallery.mutations import GALLERY, Mutation, mutation
from minidl.tensor import Tensor


class MismatchError(RuntimeError):
    """A check has found numbers that should be equal and are not."""


# ---------------------------------------------------------------------------------------------------- what is checked


@dataclass(frozen=True)
class Case:
    """An op with settings and inputs.

    about      : what it is, for the document
    function   : (F, *tensors) -> tensor; F is minidl's or PyTorch's functional, so that it reads the same for both. The first
                 axis is the batch, of any size, in the first input and in the output, unless that is a scalar, a loss
    shapes     : of the inputs
    definition : the same from the formula: (*arrays) -> array, for real and complex numbers
    whole      : inputs are whole numbers from -2 to 2, so that there are ties
    torch      : what stands for `function` in PyTorch, where it can't be the same
    """

    about: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    definition: Callable[..., np.ndarray]
    whole: bool = False
    torch: Callable[..., Any] | None = None

    def arrays(self) -> list[np.ndarray]:
        """The inputs, float64; always the same."""
        rng = np.random.default_rng(0)
        return [rng.integers(-2, 3, s).astype(float) if self.whole else rng.normal(size=s) for s in self.shapes]

    def tensors(self) -> list[Tensor]:
        return [Tensor(x, requires_grad=True) for x in self.arrays()]

    def run(self, *tensors: Tensor) -> Tensor:
        """The output. Random numbers start anew, so that dropout always draws the same mask."""
        random.manual_seed(0)
        return self.function(minidl_functional, *tensors)


def windows(x: np.ndarray, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], outside: float) -> np.ndarray:
    """x (N, C, H, W) -> what each window sees, (N, C, OH, OW, KH, KW), `outside` where it hangs over the border."""
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=outside)
    oh, ow = (padded.shape[2] - kh) // sh + 1, (padded.shape[3] - kw) // sw + 1
    seen = np.empty((*x.shape[:2], oh, ow, kh, kw), x.dtype)
    for i, j in np.ndindex(oh, ow):
        seen[:, :, i, j] = padded[:, :, i * sh : i * sh + kh, j * sw : j * sw + kw]
    return seen


def conv2d(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: Sequence[int], padding: Sequence[int], groups: int
) -> np.ndarray:
    """y[n,o,i,j] = b[o] + sum over the group's channels and the window."""
    seen = windows(x, w.shape[2:], stride, padding, 0)
    y = np.empty((len(x), len(w), *seen.shape[2:4]), np.result_type(x, w, b))
    for o in range(len(w)):
        first = o * groups // len(w) * w.shape[1]
        y[:, o] = b[o] + (seen[:, first : first + w.shape[1]] * w[o][:, None, None]).sum(axis=(1, 4, 5))
    return y


def max_pool2d(x: np.ndarray, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> np.ndarray:
    """The first of the largest, in row-major order."""
    seen = windows(x, kernel, stride, padding, -np.inf)
    flat = seen.reshape(*seen.shape[:4], -1)
    return np.take_along_axis(flat, flat.real.argmax(axis=-1)[..., None], axis=-1)[..., 0]


def avg_pool2d(x: np.ndarray, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> np.ndarray:
    """The mean of the pixels inside the image."""
    seen, inside = windows(x, kernel, stride, padding, 0), windows(np.ones(x.shape), kernel, stride, padding, 0)
    return seen.sum(axis=(4, 5)) / inside.sum(axis=(4, 5))


def adaptive_avg_pool2d(x: np.ndarray, oh: int, ow: int) -> np.ndarray:
    """Part i of n of a side of length m goes from i * m / n, rounded down, to (i + 1) * m / n, rounded up."""
    (h, w), y = x.shape[2:], np.empty((*x.shape[:2], oh, ow), x.dtype)
    for i, j in np.ndindex(oh, ow):
        y[:, :, i, j] = x[:, :, i * h // oh : -(-(i + 1) * h // oh), j * w // ow : -(-(j + 1) * w // ow)].mean(axis=(2, 3))
    return y


def batch_norm(x: np.ndarray, mean: Any, var: Any, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return w * (x - mean) / np.sqrt(var + 1e-5) + b


def local_response_norm(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        first = c - size // 2
        window = x[:, max(first, 0) : first + size]
        y[:, c] = x[:, c] * (k + alpha / size * (window * window).sum(axis=1)) ** -beta
    return y


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def cross_entropy(x: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The mean over rows whose label is not -100."""
    counted = [(n, c) for n, c in enumerate(labels) if c != -100]
    return -sum(np.log(softmax(x)[n, c]) for n, c in counted) / len(counted)


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x.real > 0, x, 0)


def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x.real > 0, x, alpha * (np.exp(x) - 1))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def amax(x: np.ndarray) -> np.ndarray:
    """Along axis 1; of tied maxima the mean, so that they share the gradient."""
    largest = x.real == x.real.max(axis=1, keepdims=True)
    return (x * largest).sum(axis=1) / largest.sum(axis=1)


def _kept(shape: tuple[int, ...], p: float) -> np.ndarray:
    """The factors of dropout's first draw: 0 with probability p, else 1 / (1 - p)."""
    return random.Generator(0).bernoulli(1 - p, shape) / (1 - p)


def _labels(labels: list[int], x: Any) -> Any:
    """One for each row of scores, repeated where there are more; as PyTorch's or minidl's cross_entropy takes them."""
    repeated = np.resize(labels, x.shape[0])
    return repeated if isinstance(x, Tensor) else importlib.import_module("torch").tensor(repeated)


_LABELS, _IGNORED = [1, 0, 4, 2], [1, -100, 4, 2]
_P = 0.1  # dropout's
_IMAGE, _CHANNELS, _SCORES, _SQUARE = (2, 3, 5, 6), (2, 7, 2, 2), (4, 5), (3, 4)
_CONV = ((5, 4, 3, 4), (4, 2, 3, 2), (4,))
_CONV_1 = ((1, 2, 4, 5), (4, 2, 3, 2), (4,))
_LRN, _LRN_EVEN, _LRN_2012 = (5, 1.0, 0.75, 1.0), (4, 1.0, 0.75, 1.0), (5, 1e-4, 0.75, 2.0)

CASES = {
    "linear": Case(
        "4 rows of 3, 2 outputs, bias", lambda F, *a: F.linear(*a), ((4, 3), (2, 3), (2,)), lambda x, w, b: x @ w.T + b
    ),
    "linear, square": Case("4 rows of 3, 3 outputs", lambda F, *a: F.linear(*a), ((4, 3), (3, 3)), lambda x, w: x @ w.T),
    "conv2d": Case(
        "5 images of 4 x 3 x 4, 4 filters of 2 x 3 x 2, bias, stride (2, 1), padding (1, 0), 2 groups",
        lambda F, *a: F.conv2d(*a, (2, 1), (1, 0), 1, 2),
        _CONV,
        lambda x, w, b: conv2d(x, w, b, (2, 1), (1, 0), 2),
    ),
    "conv2d, 1 image": Case(
        "1 image of 2 x 4 x 5, 4 filters of 2 x 3 x 2, bias, stride 1, no padding",
        lambda F, *a: F.conv2d(*a),
        _CONV_1,
        lambda x, w, b: conv2d(x, w, b, (1, 1), (0, 0), 1),
    ),
    "conv2d_relu": Case(
        "the images and filters of conv2d, then ReLU",
        lambda F, *a: F.conv2d_relu(*a, (2, 1), (1, 0), 1, 2),
        _CONV,
        lambda x, w, b: relu(conv2d(x, w, b, (2, 1), (1, 0), 2)),
        torch=lambda F, *a: F.relu(F.conv2d(*a, (2, 1), (1, 0), 1, 2)),
    ),
    "max_pool2d": Case(
        "2 images of 3 x 5 x 6, windows 3 x 2, stride (2, 1), padding 1",
        lambda F, x: F.max_pool2d(x, (3, 2), (2, 1), 1),
        (_IMAGE,),
        lambda x: max_pool2d(x, (3, 2), (2, 1), (1, 1)),
    ),
    "max_pool2d, 2 x 2": Case(
        "the same images, windows 2 x 2 that don't overlap",
        lambda F, x: F.max_pool2d(x, 2),
        (_IMAGE,),
        lambda x: max_pool2d(x, (2, 2), (2, 2), (0, 0)),
    ),
    "max_pool2d, ties": Case(
        "the same windows on whole numbers from -2 to 2",
        lambda F, x: F.max_pool2d(x, 2),
        (_IMAGE,),
        lambda x: max_pool2d(x, (2, 2), (2, 2), (0, 0)),
        whole=True,
    ),
    "avg_pool2d": Case(
        "2 images of 3 x 5 x 6, windows 3 x 3, stride 2, padding 1, count_include_pad=False",
        lambda F, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        (_IMAGE,),
        lambda x: avg_pool2d(x, (3, 3), (2, 2), (1, 1)),
    ),
    "adaptive_avg_pool2d": Case(
        "2 images of 3 x 5 x 6 to 3 x 4",
        lambda F, x: F.adaptive_avg_pool2d(x, (3, 4)),
        (_IMAGE,),
        lambda x: adaptive_avg_pool2d(x, 3, 4),
    ),
    "adaptive_avg_pool2d, even": Case(
        "the same images to 5 x 3",
        lambda F, x: F.adaptive_avg_pool2d(x, (5, 3)),
        (_IMAGE,),
        lambda x: adaptive_avg_pool2d(x, 5, 3),
    ),
    "batch_norm": Case(
        "4 rows of 5 channels, weight and bias, in training",
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True),
        (_SCORES, (5,), (5,)),
        lambda x, w, b: batch_norm(x, x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0), w, b),
    ),
    "batch_norm, evaluation": Case(
        "the same with a mean of 0 and a variance of 1",
        lambda F, x, w, b: F.batch_norm(x, (0 * b).detach(), (0 * b + 1).detach(), w, b),
        (_SCORES, (5,), (5,)),
        lambda x, w, b: batch_norm(x, 0, 1, w, b),
    ),
    "lrn": Case(
        "7 channels, size 5, alpha 1, beta 0.75, k 1",
        lambda F, x: F.local_response_norm(x, *_LRN),
        (_CHANNELS,),
        lambda x: local_response_norm(x, *_LRN),
    ),
    "lrn, even": Case(
        "the same, size 4",
        lambda F, x: F.local_response_norm(x, *_LRN_EVEN),
        (_CHANNELS,),
        lambda x: local_response_norm(x, *_LRN_EVEN),
    ),
    "lrn, 2012": Case(
        "size 5, alpha 1e-4, beta 0.75, k 2, as in AlexNet",
        lambda F, x: F.local_response_norm(x, *_LRN_2012),
        (_CHANNELS,),
        lambda x: local_response_norm(x, *_LRN_2012),
    ),
    "dropout": Case(
        "4 rows of 5, p 0.1, always the same mask",
        lambda F, x: F.dropout(x, _P),
        (_SCORES,),
        lambda x: x * _kept(x.shape, _P),
        torch=lambda F, x: x * x.new_tensor(_kept(tuple(x.shape), _P)),
    ),
    "softmax": Case("4 rows of 5", lambda F, x: F.softmax(x, 1), (_SCORES,), softmax),
    "log_softmax": Case("4 rows of 5", lambda F, x: F.log_softmax(x, 1), (_SCORES,), lambda x: np.log(softmax(x))),
    "cross_entropy": Case(
        "4 rows of 5 scores, mean",
        lambda F, x: F.cross_entropy(x, _labels(_LABELS, x)),
        (_SCORES,),
        lambda x: cross_entropy(x, _LABELS),
    ),
    "cross_entropy, ignored": Case(
        "the same, one label of ignore_index",
        lambda F, x: F.cross_entropy(x, _labels(_IGNORED, x)),
        (_SCORES,),
        lambda x: cross_entropy(x, _IGNORED),
    ),
    "relu": Case("4 rows of 5", lambda F, x: F.relu(x), (_SCORES,), relu),
    "relu of tanh": Case("4 rows of 5", lambda F, x: F.relu(F.tanh(x)), (_SCORES,), lambda x: relu(np.tanh(x))),
    "leaky_relu": Case(
        "4 rows of 5, slope 0.2", lambda F, x: F.leaky_relu(x, 0.2), (_SCORES,), lambda x: np.where(x.real > 0, x, 0.2 * x)
    ),
    "elu": Case("4 rows of 5, alpha 0.5", lambda F, x: F.elu(x, 0.5), (_SCORES,), lambda x: elu(x, 0.5)),
    "elu, alpha 1": Case("4 rows of 5", lambda F, x: F.elu(x), (_SCORES,), lambda x: elu(x, 1)),
    "softplus": Case(
        "4 rows of 5, beta 2", lambda F, x: F.softplus(x, 2.0), (_SCORES,), lambda x: np.log(1 + np.exp(2 * x)) / 2
    ),
    "softplus, beta 1": Case("4 rows of 5", lambda F, x: F.softplus(x), (_SCORES,), lambda x: np.log(1 + np.exp(x))),
    "silu": Case("4 rows of 5", lambda F, x: F.silu(x), (_SCORES,), lambda x: x * sigmoid(x)),
    "tanh": Case("4 rows of 5", lambda F, x: F.tanh(x), (_SCORES,), np.tanh),
    "sigmoid": Case("4 rows of 5", lambda F, x: F.sigmoid(x), (_SCORES,), sigmoid),
    "add": Case("x + y, both 3 x 4", lambda F, x, y: x + y, (_SQUARE, _SQUARE), np.add),
    "add, broadcast": Case("x + y, y a row of 4", lambda F, x, y: x + y, (_SQUARE, (4,)), np.add),
    "sub": Case("x - y, both 3 x 4", lambda F, x, y: x - y, (_SQUARE, _SQUARE), np.subtract),
    "mul": Case("x * y, both 3 x 4", lambda F, x, y: x * y, (_SQUARE, _SQUARE), np.multiply),
    "mul, by itself": Case(
        "h * h with h = tanh(x), 3 x 4", lambda F, x: _squared(x.tanh()), (_SQUARE,), lambda x: _squared(np.tanh(x))
    ),
    "div": Case(
        "x / (y * y + 1), both 3 x 4", lambda F, x, y: x / (y * y + 1), (_SQUARE, _SQUARE), lambda x, y: x / (y * y + 1)
    ),
    "pow": Case("(x * x + 1) ** 0.5, 3 x 4", lambda F, x: (x * x + 1) ** 0.5, (_SQUARE,), lambda x: np.sqrt(x * x + 1)),
    "matmul": Case("3 x 4 by 4 x 2", lambda F, x, y: x @ y, (_SQUARE, (4, 2)), np.matmul),
    "matmul, square": Case("3 x 4 by 4 x 4", lambda F, x, y: x @ y, (_SQUARE, (4, 4)), np.matmul),
    "diamond": Case(
        "sigmoid(h) * h with h = tanh(x)",
        lambda F, x: _diamond(x.tanh(), F.sigmoid),
        (_SQUARE,),
        lambda x: _diamond(np.tanh(x), sigmoid),
    ),
    "two uses of two": Case(
        "h * k + (h + k) with h = tanh(x), k = tanh(y)",
        lambda F, x, y: _two_uses(x.tanh(), y.tanh()),
        (_SQUARE, _SQUARE),
        lambda x, y: _two_uses(np.tanh(x), np.tanh(y)),
    ),
    "mean": Case(
        "of 2 x 3 x 5 x 2 over axes 1 and 3", lambda F, x: x.mean((1, 3)), ((2, 3, 5, 2),), lambda x: x.mean(axis=(1, 3))
    ),
    "amax": Case("of 4 rows of 5, for each row", lambda F, x: x.amax(1), (_SCORES,), amax),
    "amax, ties": Case("the same on whole numbers from -2 to 2", lambda F, x: x.amax(1), (_SCORES,), amax, whole=True),
    "permute": Case(
        "(2, 3, 4, 5) by (0, 2, 3, 1)", lambda F, x: x.permute(0, 2, 3, 1), ((2, 3, 4, 5),), lambda x: x.transpose(0, 2, 3, 1)
    ),
    "permute, equal sizes": Case(
        "(2, 3, 3, 3) by (0, 2, 3, 1)", lambda F, x: x.permute(0, 2, 3, 1), ((2, 3, 3, 3),), lambda x: x.transpose(0, 2, 3, 1)
    ),
    "permute, a swap": Case(
        "(2, 3, 4) by (0, 2, 1)", lambda F, x: x.permute(0, 2, 1), ((2, 3, 4),), lambda x: x.transpose(0, 2, 1)
    ),
    "getitem": Case("columns 0, 2, 2, 1 of 3 x 4", lambda F, x: x[:, [0, 2, 2, 1]], (_SQUARE,), lambda x: x[:, [0, 2, 2, 1]]),
    "getitem, each once": Case("columns 0, 2, 1 of 3 x 4", lambda F, x: x[:, [0, 2, 1]], (_SQUARE,), lambda x: x[:, [0, 2, 1]]),
}


def _squared(h: Any) -> Any:
    return h * h


def _diamond(h: Any, sigmoid: Callable[[Any], Any]) -> Any:
    return sigmoid(h) * h


def _two_uses(h: Any, k: Any) -> Any:
    return h * k + (h + k)


# ------------------------------------------------------------------------------------------------------------ the checks


def check_gradcheck(case: Case) -> None:
    """minidl.gradcheck with its defaults."""
    gradcheck(case.run, case.tensors())


def check_ones(case: Case) -> None:
    """The first check that everybody writes."""
    tensors, eps = case.tensors(), 1e-4
    case.run(*tensors).sum().backward()
    for x in tensors:
        slopes = np.empty(x.shape)
        for i in np.ndindex(x.shape):
            slopes[i] = (_sum_at(case, tensors, x, i, eps) - _sum_at(case, tensors, x, i, -eps)) / (2 * eps)
        _same("gradient", _gradient(x), slopes, rtol=1e-4, atol=1e-5)


def _sum_at(case: Case, tensors: Sequence[Tensor], x: Tensor, i: tuple[int, ...], step: float) -> float:
    """The sum of the outputs with one element moved."""
    before = x.data[i]
    x.data[i] += step
    with no_grad():
        total = float(case.run(*tensors).data.sum())
    x.data[i] = before
    return total


def check_definition(case: Case) -> None:
    """Slopes of the definition are exact: for a tiny step i*h the imaginary part of f(x + i*h*v) is h times the slope along v,
    and nothing is subtracted.

    Source: Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review, 1998.
    """
    tensors, h = case.tensors(), 1e-30
    y = case.run(*tensors)
    gy = _upstream(y.shape)
    y.backward(gy)
    arrays, rng = case.arrays(), np.random.default_rng(2)
    _same("output", y.data, case.definition(*arrays))
    for i, x in enumerate(tensors):
        for _ in range(4):
            v = rng.normal(size=x.shape)
            moved = [a + 1j * h * v if j == i else a for j, a in enumerate(arrays)]
            _same("slope", (_gradient(x) * v).sum(), (gy * case.definition(*moved).imag).sum() / h)


def check_twice(case: Case) -> None:
    """What must hold for every op, whatever it computes."""
    tensors = case.tensors()
    y = case.run(*tensors)
    gy = _upstream(y.shape)
    y.backward(gy, retain_graph=True)
    for a, b in itertools.combinations([gy, *map(_gradient, tensors)], 2):
        if np.shares_memory(a, b):
            raise MismatchError("two gradients share memory")
    first = [_gradient(x).copy() for x in tensors]
    y.backward(gy, retain_graph=True)
    for x, before, grad in zip(tensors, case.arrays(), first, strict=True):
        _same("gradient after two backwards", _gradient(x), 2 * grad)
        _same("input after backward", x.data, before)
    _same("incoming gradient after backward", gy, _upstream(y.shape))


def check_pytorch(case: Case) -> None:
    """The same case in PyTorch. ImportError without it."""
    torch, functional = importlib.import_module("torch"), importlib.import_module("torch.nn.functional")
    mine, theirs = case.tensors(), [torch.tensor(x, requires_grad=True) for x in case.arrays()]
    y, z = case.run(*mine), (case.torch or case.function)(functional, *theirs)
    gy = _upstream(y.shape)
    y.backward(gy)
    z.backward(torch.tensor(gy))
    _same("output", y.data, z.detach().numpy())
    for x, t in zip(mine, theirs, strict=True):
        _same("gradient", _gradient(x), t.grad.numpy())


def check_torch_gradcheck(case: Case) -> None:
    """Every element by itself; eps 1e-6, atol 1e-5, rtol 1e-3. ImportError without PyTorch."""
    torch: Any = importlib.import_module("torch")

    class Op(torch.autograd.Function):  # type: ignore[misc]  # PyTorch is not asked for its types
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.tensors = [Tensor(x.detach().numpy(), requires_grad=True) for x in inputs]
            ctx.y = case.run(*ctx.tensors)
            return torch.from_numpy(ctx.y.data.copy())

        @staticmethod
        def backward(ctx: Any, gy: Any) -> Any:
            for x in ctx.tensors:
                x.grad = None
            ctx.y.backward(gy.numpy(), retain_graph=True)
            return tuple(torch.from_numpy(_gradient(x)) for x in ctx.tensors)

    inputs = [torch.tensor(x, requires_grad=True) for x in case.arrays()]
    if not torch.autograd.gradcheck(Op.apply, inputs, raise_exception=False):
        raise MismatchError("torch.autograd.gradcheck returned False")


def check_training(case: Case) -> None:
    """Does a small net around the case's op train?"""
    losses = train(case)
    if not np.mean(losses[-5:]) < losses[0] / 2:
        raise MismatchError(f"the loss went from {losses[0]:.3f} to {np.mean(losses[-5:]):.3f}")


def _gradient(x: Tensor) -> np.ndarray:
    """x.grad; zeros if none came."""
    return np.zeros(x.shape) if x.grad is None else x.grad.data


def _upstream(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


def _same(what: str, given: Any, wanted: Any, rtol: float = 0.0, atol: float | None = None) -> None:
    """MismatchError unless equal; the tolerance is rounding's, 1e-9 of the largest element, unless given."""
    atol = 1e-9 * float(np.abs(wanted).max(initial=0)) if atol is None else atol
    if not np.allclose(given, wanted, rtol=rtol, atol=atol):
        raise MismatchError(f"{what}: expected {wanted}, got {given}")


# ------------------------------------------------------------------------------------------------------------- training

IMAGES, STEPS = 16, 60


def stripes() -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 x 8 pixels with noisy stripes in four directions, (IMAGES, 64), and which one it is, (IMAGES,)."""
    rng, labels = np.random.default_rng(3), np.arange(IMAGES) % 4
    angles, phases = labels * np.pi / 4, rng.uniform(0, 2 * np.pi, IMAGES)
    rows, columns = np.mgrid[:8, :8]
    along = rows * np.cos(angles)[:, None, None] + columns * np.sin(angles)[:, None, None]
    waves = 2**0.5 * np.cos(1.6 * along + phases[:, None, None])
    return (waves + 0.3 * rng.normal(size=waves.shape)).reshape(IMAGES, 64), labels


def train(case: Case, steps: int = STEPS) -> list[float]:
    """The loss of a small net at every step of SGD on one batch. The case's op stands in its middle:

        images (N, 64) ─▶ linear ─▶ the op ─▶ linear ─▶ scores (N, 4) ─▶ cross-entropy

    Inputs of the first one's shape come from the images too, each by a linear of its own; any other one is a weight of the net.
    An op whose output is a scalar is the loss. All weights begin with variance 1 / inputs.
    """
    random.manual_seed(0)
    F, rng, (images, labels) = minidl_functional, np.random.default_rng(4), stripes()
    x, first = Tensor(images), case.shapes[0]

    def weight(*shape: int) -> Tensor:
        return Tensor(rng.normal(size=shape) / math.prod(shape[1:]) ** 0.5, requires_grad=True)

    below = [weight(math.prod(s[1:]), x.shape[1]) if s == first else weight(*s) for s in case.shapes]

    def middle() -> Tensor:
        inputs = [F.linear(x, w).reshape(IMAGES, *s[1:]) if s == first else w for s, w in zip(case.shapes, below, strict=True)]
        return case.function(F, *inputs)

    with no_grad():
        shape = middle().shape
    above = weight(4, math.prod(shape[1:])) if shape else None
    optimizer = optim.SGD(below if above is None else [*below, above], lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        y = middle()
        loss = y if above is None else F.cross_entropy(F.linear(y.reshape(IMAGES, -1), above), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.data))
    return losses


# ------------------------------------------------------------------------------------------------------------ the table

CHECKS: dict[str, Callable[[Case], None]] = {
    "gradcheck": check_gradcheck,
    "ones": check_ones,
    "definition": check_definition,
    "twice": check_twice,
    "training": check_training,
    "PyTorch": check_pytorch,
    "torch gradcheck": check_torch_gradcheck,
}
WITHOUT_TORCH = tuple(CHECKS)[:5]

FOUND, ERROR, MISSED, KINK = "found", "error", "—", "kink"


def verdict(check: str, case: str, mistake: Mutation) -> str:
    """What a check says of a case while minidl makes a mistake.

    FOUND  : numbers disagree, or an array was modified
    ERROR  : the engine, NumPy or PyTorch stopped the computation
    MISSED : the check passes
    KINK   : it fails for right code too, as numeric slopes do at ties, so it says nothing
    """
    if _verdict_on_right_code(check, case) != MISSED:
        return KINK
    with mutation(mistake.name):
        return _outcome(check, case)


@cache
def _verdict_on_right_code(check: str, case: str) -> str:
    with plain_kernels():
        return _outcome(check, case)


def _outcome(check: str, case: str) -> str:
    """FOUND, ERROR or MISSED, for the code as it is now."""
    state = random.default_generator.state()
    try:
        with np.errstate(all="ignore"):
            CHECKS[check](CASES[case])
    except (GradcheckError, MismatchError):
        return FOUND
    except ImportError:
        raise  # a check that could not be made
    except Exception:
        return ERROR
    finally:
        random.default_generator.set_state(state)
    return MISSED


def table(checks: Sequence[str] = tuple(CHECKS)) -> list[list[str]]:
    """A row for each mutation and case: the mutation's name, the case's, a verdict for each check.

    ImportError if a check needs PyTorch and it is missing; WITHOUT_TORCH are those that don't.
    """
    return [[each.name, case, *(verdict(check, case, each) for check in checks)] for each in GALLERY for case in each.cases]


def found_by(rows: Sequence[Sequence[str]], column: int) -> set[str]:
    """The names of the mutations that a column of the table finds, on one case at least."""
    return {row[0] for row in rows if row[column] in (FOUND, ERROR)}


# --------------------------------------------------------------------------------------------------------- the document


def markdown(rows: Sequence[Sequence[str]], checks: Sequence[str] = tuple(CHECKS)) -> str:
    """The table for a document, with a last row that counts the mutations each check finds."""
    counts = [f"{len(found_by(rows, column))} of {len(GALLERY)}" for column in range(2, 2 + len(checks))]
    lines = [["mutation", "case", *checks], [":--"] * (2 + len(checks))]
    lines += [["" if i and name == rows[i - 1][0] else f"[{name}](#{name})", *rest] for i, (name, *rest) in enumerate(rows)]
    lines += [["**found**", "", *counts]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def summary(rows: Sequence[Sequence[str]]) -> str:
    """For a document: what the whole table says, counted."""
    found = {check: found_by(rows, column) for column, check in enumerate(CHECKS, 2)}
    training = 2 + list(CHECKS).index("training")
    stopped = {row[0] for row in rows if row[training] == ERROR}
    hidden = {row[0] for row in rows if set(row[2:]) == {MISSED}}
    missed = [each.name for each in GALLERY if each.name not in found["gradcheck"] | found["twice"]]
    lines = [
        f"There are {len(GALLERY)} mistakes, {len(CASES)} cases, {len(CHECKS)} checks.",
        f"All mistakes that any check finds are found by {', or by '.join(' with '.join(names) for names in fewest(found))}; "
        "by fewer checks they are not.",
        f"What gradcheck with twice does not find: {', '.join(missed)}.",
        f"Training finds {len(found['training'])} mistakes, {len(stopped)} of them because an exception ends it.",
        f"Mistakes that can't show in the net around their first case, where all losses are the right ones to the last bit: "
        f"{', '.join(harmless(rows))}.",
        f"{len(hidden)} of the mistakes have a case on which no check finds them.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def fewest(found: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """The smallest sets of checks that together find all that any check finds; `found` maps a check to what it finds."""
    everything = set().union(*found.values())
    subsets = [names for size in range(len(found)) for names in itertools.combinations(found, 1 + size)]
    enough = [names for names in subsets if set().union(*(found[name] for name in names)) == everything]
    return [names for names in enough if len(names) == len(enough[0])]


def harmless(rows: Sequence[Sequence[str]]) -> list[str]:
    """The mutations that change no bit of the first losses in the net around their first case."""
    passes = {(row[0], row[1]) for row in rows if row[2 + list(CHECKS).index("training")] == MISSED}
    names = []
    for each in GALLERY:
        name = each.cases[0]
        if (each.name, name) in passes:
            with plain_kernels():
                right = train(CASES[name], 4)
            with mutation(each.name):
                if train(CASES[name], 4) == right:
                    names.append(each.name)
    return names


def cases() -> str:
    """The cases for a document."""
    return "\n".join(["| case | |", "| :-- | :-- |", *(f"| {name} | {case.about} |" for name, case in CASES.items())])


def descriptions() -> str:
    """The gallery for a document: what is wrong and why, where it was seen, and the line as a difference."""
    return "\n\n".join(_description(each) for each in GALLERY)


def _description(each: Mutation) -> str:
    seen = re.sub(r"([\w.-]+/[\w.-]+)#(\d+)", r"[\1#\2](https://github.com/\1/issues/\2)", each.source)
    where = f"`{each.function.__module__.replace('.', '/')}.py`, `{each.function.__qualname__}`"
    text = f"{each.mistake} In {where}.{f' Seen in {seen}.' if seen else ''}"
    wrapped = textwrap.fill(text, 128, break_long_words=False, break_on_hyphens=False)
    return f"#### {each.name}\n\n{wrapped}\n\n```diff\n- {each.right}\n+ {each.wrong}\n```"


def updated(page: str) -> str:
    """docs/mutations.md with its generated parts made anew. ImportError without PyTorch."""
    rows = table()
    parts = {"table": markdown(rows), "summary": summary(rows), "cases": cases(), "descriptions": descriptions()}
    for part, text in parts.items():
        page = with_part(page, part, text)
    return page


def with_part(page: str, part: str, text: str) -> str:
    """The page with `text` between <!-- part --> and <!-- end of part -->. ValueError if these are not there."""
    begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(
            f"with_part: the page must have {begin} and {end} once each, got {page.count(begin)} and {page.count(end)}"
        )
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
