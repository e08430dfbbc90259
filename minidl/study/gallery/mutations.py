"""The mutation gallery: classic mistakes in a backward pass, each switched on by its name.

    with mutation("conv2d-kernel-flipped"):
        minidl.gradcheck(F.conv2d, [x, w])          GradcheckError, with a diagnosis

A mutation is a line of minidl's own code with a wrong one in its place. Inside the block the function that holds it runs with
the wrong line, whoever calls it, and tracebacks and `inspect.getsource` show that line. Fast twins hold no mistakes, so the
block runs the plain functions, as `plain_kernels()` does. At its end everything is as before, also after an error.

One mistake at a time, for the whole process: other threads make it too. Which check sees which mistake is in docs/mutations.md,
computed by mutation_checks.py.
"""

import difflib
import inspect
import linecache
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from minidl.kernels import plain_kernels
from minidl.ops import (
    adaptive_avg_pool2d,
    arithmetic,
    avg_pool2d,
    batch_norm,
    conv2d,
    conv2d_relu,
    cross_entropy,
    dropout,
    elu,
    leaky_relu,
    linear,
    local_response_norm,
    max_pool2d,
    reduce,
    relu,
    reshape,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from minidl.study.step.table import terminal_width, wrapped
from minidl.tensor import _accumulate, _add, _count_consumers


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    name        : "<op>-<what is wrong>"
    function    : the function of minidl that holds the line
    right, wrong: the line, and what stands in its place; `right` occurs once in the function
    mistake     : what is wrong, and how one comes to write it
    cases       : names of the cases of mutation_checks.py on which it is tried; each is also the middle of a small net to train
    source      : where it was made, if known: repository#number of an issue or a pull request on GitHub
    """

    name: str
    function: Any
    right: str
    wrong: str
    mistake: str
    cases: tuple[str, ...]
    source: str = ""

    @property
    def op(self) -> str:
        """The file of minidl that holds the line, without its ending: "conv2d", "tensor"."""
        return self.function.__module__.rpartition(".")[2]

    def wrong_source(self) -> str:
        """The function's source with the wrong line. RuntimeError if the right one does not occur once."""
        source = textwrap.dedent(inspect.getsource(self.function))
        head, quotes, body = source.rpartition('"""')  # a docstring may show the line too
        count = body.count(self.right)
        if count != 1:
            where = f"{self.function.__module__}.{self.function.__qualname__}"
            raise RuntimeError(f"mutation: {self.name} needs its line once in {where}, got {count} times: {self.right}")
        return head + quotes + body.replace(self.right, self.wrong)

    def text(self, width: int | None = None) -> str:
        """What it is, in lines of at most `width` characters; None: sentences and lines of code are not broken."""
        seen = f"\n  seen in {self.source}" if self.source else ""
        return wrapped(f"{self.name}\n  {self.mistake}\n  right: {self.right}\n  wrong: {self.wrong}{seen}", width)

    def __str__(self) -> str:
        return self.text(terminal_width())


_present: Mutation | None = None


@contextmanager
def mutation(name: str) -> Iterator[Mutation]:
    """Inside the block minidl makes the mistake of this name, and runs plain functions only.

    ValueError: no such name. RuntimeError: another mutation is on.
    """
    global _present
    chosen = find(name)
    if _present is not None:
        raise RuntimeError(f"mutation: one mistake at a time, got {name} while {_present.name} is on")
    function = chosen.function
    right, filename = function.__code__, f"<mutation {name}>"
    source = chosen.wrong_source()
    wrong = _compiled(source, filename, function)
    _present = chosen
    # this is where tracebacks and inspect look for the source of code that came from no file
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    try:
        with plain_kernels():
            function.__code__ = wrong
            yield chosen
    finally:
        function.__code__ = right
        linecache.cache.pop(filename, None)
        _present = None


def find(name: str) -> Mutation:
    """The mutation of this name; ValueError if there is none."""
    for each in GALLERY:
        if each.name == name:
            return each
    close = difflib.get_close_matches(name, [each.name for each in GALLERY], 1)
    hint = f"; the closest is {close[0]}" if close else ""
    raise ValueError(f"mutation: name must be one of the {len(GALLERY)} that listing() shows, got {name!r}{hint}")


def listing(width: int | None = None) -> str:
    """All mutations as text: name, what is wrong and why, the right line and the wrong one, where it was seen.

    width : of the lines, in characters; None: they are not broken
    """
    return "\n\n".join(each.text(width) for each in GALLERY)


def _compiled(source: str, filename: str, function: FunctionType) -> CodeType:
    """The code of a function of this source, to be run as that of `function`."""
    names: dict[str, Any] = {}
    exec(compile(source, filename, "exec", dont_inherit=True), dict(function.__globals__), names)
    return names[function.__name__].__code__.replace(co_qualname=function.__qualname__)


GALLERY = (
    # ------------------------------------------------------------------------------------------------------ the engine
    Mutation(
        "engine-grad-overwritten",
        _accumulate,
        "tensor._grad.data += grad",
        "tensor._grad.data = grad",
        "A second backward() replaces .grad rather than adding to it: several small batches no longer make a large one.",
        ("linear",),
    ),
    Mutation(
        "engine-grad-shared",
        _accumulate,
        "copied[...] = grad",
        "copied = grad",
        "A leaf keeps the array that it is handed. The sum's backward hands one array to both operands, and whatever is later "
        "added to one gradient in place is added to the other's.",
        ("add",),
        "DeZero, where `y = a + b` leaves `a.grad is b.grad`",
    ),
    Mutation(
        "engine-fan-out-overwritten",
        _add,
        "grads[target] += gx",
        "grads[target] = gx",
        "A tensor that is used twice gets the gradient of one use instead of the sum.",
        ("diamond", "linear"),
    ),
    Mutation(
        "engine-fan-out-in-place",
        _add,
        "if own:",
        "if True:",
        "The second gradient of a tensor is added into the array of the first, although somebody else holds that array too: "
        "one allocation saved.",
        ("two uses of two", "diamond"),
    ),
    Mutation(
        "engine-first-arrival",
        _count_consumers,
        "consumers[edge] += 1",
        "consumers[edge] = 1",
        "A node runs backward when its first gradient arrives rather than its last: the order is not topological, and what "
        "comes later is lost.",
        ("diamond", "linear"),
        "karpathy/micrograd#2 and sebgao/cTensor#5, where a node ran again at every arrival",
    ),
    # ---------------------------------------------------------------------------------------------------------- linear
    Mutation(
        "linear-bias-mean",
        linear.linear_backward,
        "gb = gy.sum(axis=0)",
        "gb = gy.mean(axis=0)",
        "The mean over the batch in place of the sum. The loss is a mean already, and its 1/N has come down with gy.",
        ("linear",),
        "kvfrans/notes#5",
    ),
    Mutation(
        "linear-bias-not-summed",
        linear.linear_backward,
        "gb = gy.sum(axis=0)",
        "gb = gy",
        "No sum over the batch: right as long as one tries it with one row.",
        ("linear",),
        "mlpack/mlpack#3679",
    ),
    Mutation(
        "linear-weight-transposed",
        linear.linear_backward,
        "gw = gy.T @ x",
        "gw = x.T @ gy",
        "The factors of the product in the wrong order. With as many outputs as inputs every shape fits.",
        ("linear", "linear, square"),
    ),
    # ---------------------------------------------------------------------------------------------------------- conv2d
    Mutation(
        "conv2d-bias-first-image",
        conv2d.conv2d_backward,
        "gb = gy.sum(axis=(0, 1, 2))",
        "gb = gy[0].sum(axis=(0, 1))",
        "The sum over pixels without the sum over images: a derivation for one image, made into code for a batch.",
        ("conv2d", "conv2d, 1 image"),
    ),
    Mutation(
        "conv2d-weight-mean",
        conv2d.conv2d_backward,
        "(gyg.T @ col)",
        "(gyg.T @ col / len(col))",
        "The mean over images and pixels in place of the sum over them.",
        ("conv2d",),
        "sebgao/cTensor#3",
    ),
    Mutation(
        "conv2d-weight-overwritten",
        conv2d.conv2d_backward,
        "gw[filters] += ",
        "gw[filters] = ",
        "The images are worked on a few at a time, and each few overwrite the gradient of those before.",
        ("conv2d", "conv2d, 1 image"),
    ),
    Mutation(
        "conv2d-kernel-flipped",
        conv2d.conv2d_backward,
        "gcol = (gyg @ w[filters].reshape(",
        "gcol = (gyg @ w[filters][:, ::-1, ::-1].reshape(",
        "Textbooks convolve gy with the flipped kernel. col2im scatters, which is that flip; a second one undoes it.",
        ("conv2d",),
    ),
    Mutation(
        "conv2d-col2im-overwritten",
        conv2d.col2im,
        "pixels += gcol[",
        "pixels[...] = gcol[",
        "Where patches overlap, a pixel gets the gradient of one of them instead of the sum over all.",
        ("conv2d",),
    ),
    Mutation(
        "conv2d-padding-off",
        conv2d.conv2d_backward,
        "gpadded[:, top : top + x.shape[1], left : left + x.shape[2]]",
        "gpadded[:, : x.shape[1], : x.shape[2]]",
        "The padding is cut off at the end only, so that the gradient is shifted. Its shape is right.",
        ("conv2d", "conv2d, 1 image"),
    ),
    Mutation(
        "conv2d-stride-ignored",
        conv2d.col2im,
        "tap(gx, u, v, (oh, ow), stride, dilation)",
        "tap(gx, u, v, (oh, ow), (1, 1), dilation)",
        "Patches are put back side by side, as if the stride were 1.",
        ("conv2d", "conv2d, 1 image"),
        "enggen/Deep-Learning-Coursera#7, Kulbear/deep-learning-coursera#34",
    ),
    Mutation(
        "conv2d-groups-interleaved",
        conv2d.conv2d_backward,
        "gyg = gy[images, :, :, filters]",
        "gyg = gy[images, :, :, filters.start * groups // out :: groups]",
        "Backward takes every groups-th filter for a group, where forward took a run of them.",
        ("conv2d", "conv2d, 1 image"),
    ),
    Mutation(
        "conv2d-relu-mask",
        conv2d_relu.conv2d_relu_backward,
        "conv2d_backward(relu_backward(gy, y), x",
        "conv2d_backward(gy, x",
        "Two ops become one, and the ReLU's backward is lost: what is off learns too.",
        ("conv2d_relu",),
    ),
    # ----------------------------------------------------------------------------------------------------------- pools
    Mutation(
        "max-pool2d-overlap-overwritten",
        max_pool2d.max_pool2d_backward,
        "pixels += xp.where(argmax == u * kernel[1] + v, gy, 0)",
        "xp.copyto(pixels, gy, where=argmax == u * kernel[1] + v)",
        "A pixel that wins two overlapping windows gets one gradient instead of the sum. Without overlap it never shows.",
        ("max_pool2d", "max_pool2d, 2 x 2"),
        "0809zheng/CS231n-assignment2019#19, where the tests' windows did not overlap",
    ),
    Mutation(
        "max-pool2d-ties-last",
        max_pool2d.max_pool2d_forward,
        "better = pixels > y",
        "better = pixels >= y",
        "Of tied pixels the last wins. It is a subgradient as good as the first's, but not PyTorch's.",
        ("max_pool2d, ties", "max_pool2d"),
    ),
    Mutation(
        "max-pool2d-kernel-height",
        max_pool2d.max_pool2d_backward,
        "argmax == u * kernel[1] + v",
        "argmax == u * kernel[0] + v",
        "The winner's number is taken apart with the window's height for its width: the same thing while windows are square.",
        ("max_pool2d", "max_pool2d, 2 x 2"),
    ),
    Mutation(
        "max-pool2d-zero-padding",
        max_pool2d.max_pool2d_forward,
        "padded = pad_images(x, pads, -xp.inf)",
        "padded = pad_images(x, pads, 0)",
        "The convolution's padding, used for a maximum: at the border negative pixels lose against it. Forward is wrong, and "
        "backward fits it.",
        ("max_pool2d", "max_pool2d, 2 x 2"),
        "DeZero's pooling",
    ),
    Mutation(
        "avg-pool2d-full-window",
        avg_pool2d.avg_pool2d_backward,
        "share = gy / counts",
        "share = gy / (kernel[0] * kernel[1])",
        "Backward divides by the whole window where forward divided by its part inside the image.",
        ("avg_pool2d",),
        "tracel-ai/burn#5604",
    ),
    Mutation(
        "adaptive-avg-pool2d-overlap-overwritten",
        adaptive_avg_pool2d.adaptive_avg_pool2d_backward,
        "gx[:, top:bottom] += rows",
        "gx[:, top:bottom] = rows",
        "Parts overlap where they don't divide the image evenly: a row in two of them gets the gradient of one.",
        ("adaptive_avg_pool2d", "adaptive_avg_pool2d, even"),
    ),
    # ---------------------------------------------------------------------------------------------------- normalisation
    Mutation(
        "batch-norm-constant-statistics",
        batch_norm.batch_norm_backward,
        "return slope * (gy - gb / m - z * (gw / m)), gw, gb",
        "return slope * gy, gw, gb",
        "Mean and variance are taken for constants, as they are in evaluation. In training both are functions of x.",
        ("batch_norm", "batch_norm, evaluation"),
    ),
    Mutation(
        "batch-norm-constant-variance",
        batch_norm.batch_norm_backward,
        "gy - gb / m - z * (gw / m)",
        "gy - gb / m",
        "The gradient through the mean is there, the one through the variance is missing.",
        ("batch_norm", "batch_norm, evaluation"),
    ),
    Mutation(
        "lrn-cross-term",
        local_response_norm.local_response_norm_backward,
        "return direct - (2 * alpha / size * beta) * x * across",
        "return direct",
        "The denominator is taken for a constant: the gradient through the neighbours is missing.",
        ("lrn", "lrn, 2012"),
    ),
    Mutation(
        "lrn-window-not-reversed",
        local_response_norm.local_response_norm_backward,
        "window_sum(direct * x / d, (size - 1) // 2, size // 2)",
        "window_sum(direct * x / d, size // 2, (size - 1) // 2)",
        "Backward needs the channels whose windows hold this one: the window reversed. For an odd size it is the same.",
        ("lrn, even", "lrn"),
    ),
    Mutation(
        "lrn-alpha-not-divided",
        local_response_norm.local_response_norm_backward,
        "2 * alpha / size * beta",
        "2 * alpha * beta",
        "Forward divides alpha by the size of the window, backward follows the paper's formula, which does not.",
        ("lrn", "lrn, 2012"),
    ),
    # --------------------------------------------------------------------------------------------------------- dropout
    Mutation(
        "dropout-mask",
        dropout.dropout_backward,
        "return gy * mask * gy.dtype.type(scale)",
        "return gy * gy.dtype.type(scale)",
        "The mask is forgotten: silent units learn too.",
        ("dropout",),
        "ddbourgin/numpy-ml#94",
    ),
    Mutation(
        "dropout-scale",
        dropout.dropout_backward,
        "return gy * mask * gy.dtype.type(scale)",
        "return gy * mask",
        "The factor 1/(1-p) is forgotten.",
        ("dropout",),
    ),
    Mutation(
        "dropout-new-mask",
        dropout.DropoutFunction.backward,
        "(mask,) = ctx.saved",
        "mask = random.default_generator.bernoulli(1 / ctx.scale, gy.shape)",
        "Backward draws a mask of its own rather than keep forward's.",
        ("dropout",),
    ),
    # ------------------------------------------------------------------------------------------ softmax, cross-entropy
    Mutation(
        "softmax-diagonal",
        softmax.softmax_backward,
        "return y * (gy - fastest(sum_along, y)(gy * y, axis, keepdims=True))",
        "return gy * y * (1 - y)",
        "The sigmoid's rule: only the diagonal of the Jacobian, as if each output depended on its own input alone.",
        ("softmax",),
        "deeplearning4j/libnd4j#440",
    ),
    Mutation(
        "softmax-zero",
        softmax.softmax_backward,
        "return y * (gy - fastest(sum_along, y)(gy * y, axis, keepdims=True))",
        "return 0 * y",
        "No gradient at all: the placeholder that was to be filled in later.",
        ("softmax",),
    ),
    Mutation(
        "log-softmax-of-output",
        softmax.log_softmax_backward,
        "array_module(y).exp(y) * fastest(",
        "y * fastest(",
        "The formula wants the softmax, and what was saved is its logarithm.",
        ("log_softmax",),
    ),
    Mutation(
        "cross-entropy-one-hot",
        cross_entropy.cross_entropy_backward,
        "t.sum(axis=1, keepdims=True) - t)",
        "t.sum(axis=1, keepdims=True))",
        "softmax(x) without the minus one at the label: every score is pushed down.",
        ("cross_entropy",),
    ),
    Mutation(
        "cross-entropy-ignored-rows",
        cross_entropy.cross_entropy_backward,
        "exp(logp) * t.sum(axis=1, keepdims=True) - t)",
        "exp(logp) - t)",
        "softmax(x) - onehot holds where the target sums to 1. A row with ignore_index sums to 0, and should give nothing.",
        ("cross_entropy", "cross_entropy, ignored"),
        "PaddlePaddle/Paddle#28622",
    ),
    # ----------------------------------------------------------------------------------------------------- activations
    Mutation(
        "relu-sign-of-gradient",
        relu.relu_backward,
        "where(y <= 0, 0, gy)",
        "where(gy <= 0, 0, gy)",
        "The gradient's own sign decides what passes, not the output's: the rule by which deconvolutional networks draw "
        "pictures (Zeiler and Fergus, 2014).",
        ("relu",),
    ),
    Mutation(
        "relu-in-place",
        relu.relu_forward,
        "maximum(x, 0)",
        "maximum(x, 0, out=x)",
        "The output overwrites the input to save memory, and with it what an earlier op saved for its backward.",
        ("relu", "relu of tanh"),
        "pytorch/vision#807, on where it does no harm",
    ),
    Mutation(
        "relu-gradient-in-place",
        relu.relu_backward,
        "return array_module(gy).where(y <= 0, 0, gy)",
        "gy[y <= 0] = 0; return gy",
        "The gradient is cut in the array that came in, which may be on its way to somebody else too.",
        ("relu", "relu of tanh"),
    ),
    Mutation(
        "leaky-relu-slope",
        leaky_relu.leaky_relu_backward,
        "where(x > 0, gy, gy * negative_slope)",
        "where(x > 0, gy, 0)",
        "ReLU's backward, copied: forward lets a little of what is negative through, backward nothing.",
        ("leaky_relu",),
    ),
    Mutation(
        "tanh-not-squared",
        tanh.tanh_backward,
        "1 - y * y",
        "1 - y",
        "1 - y^2 without the square.",
        ("tanh",),
    ),
    Mutation(
        "tanh-factor",
        tanh.tanh_backward,
        "return gy * (1 - y * y)",
        "return 1.001 * gy * (1 - y * y)",
        "A gradient that is 0.1 % too large: no mistake that people make, but a measure of how sharp a check is.",
        ("tanh",),
    ),
    Mutation(
        "sigmoid-of-output",
        sigmoid.sigmoid_backward,
        "return gy * y * (1 - y)",
        "return gy * sigmoid_forward(y) * (1 - sigmoid_forward(y))",
        "The derivative as a function of x, called with y, which is what was saved.",
        ("sigmoid",),
        "dwhitena/gophernet#6",
    ),
    Mutation(
        "elu-alpha",
        elu.elu_backward,
        "(alpha * xp.exp(xp.minimum(x, 0)))",
        "xp.exp(xp.minimum(x, 0))",
        "Forward's alpha is forgotten. With the default, 1, nothing shows.",
        ("elu", "elu, alpha 1"),
    ),
    Mutation(
        "softplus-beta",
        softplus.softplus_backward,
        "gy * sigmoid_forward(z)",
        "gy * sigmoid_forward(x)",
        "The sigmoid of x rather than of beta * x. With the default, 1, nothing shows.",
        ("softplus", "softplus, beta 1"),
    ),
    Mutation(
        "silu-constant-gate",
        silu.silu_backward,
        "gy * (s + x * s * (1 - s))",
        "gy * s",
        "Half of the product rule: the sigmoid that x is multiplied by is taken for a constant.",
        ("silu",),
    ),
    # ------------------------------------------------------------------------------------ arithmetic, reductions, moves
    Mutation(
        "add-broadcast-not-summed",
        arithmetic.AddFunction.backward,
        "gy = unbroadcast(gz, ctx.shapes[1])",
        "gy = gz",
        "An operand that was broadcast gets the gradient of every copy, not their sum.",
        ("add, broadcast", "add"),
        "tracel-ai/burn#181, deeplearning4j/nd4j#2424",
    ),
    Mutation(
        "sub-sign",
        arithmetic.SubFunction.backward,
        "unbroadcast(-gz, ctx.shapes[1])",
        "unbroadcast(gz, ctx.shapes[1])",
        "The addition's backward for a subtraction.",
        ("sub",),
    ),
    Mutation(
        "mul-own-factor",
        arithmetic.MulFunction.backward,
        "unbroadcast(gz * x, ctx.shapes[1])",
        "unbroadcast(gz * y, ctx.shapes[1])",
        "A factor's gradient has that factor in it, where the other one belongs. In h * h they are the same.",
        ("mul", "mul, by itself"),
    ),
    Mutation(
        "div-sign",
        arithmetic.DivFunction.backward,
        "unbroadcast(-gz * z / y, ctx.shapes[1])",
        "unbroadcast(gz * z / y, ctx.shapes[1])",
        "The derivative of 1/y without its minus.",
        ("div",),
    ),
    Mutation(
        "pow-exponent",
        arithmetic.PowFunction.backward,
        "gz * p * x**exponent",
        "gz * p * x**p",
        "p comes down, and the exponent is not made smaller by one.",
        ("pow",),
    ),
    Mutation(
        "matmul-not-transposed",
        arithmetic.MatmulFunction.backward,
        "product(gz, y2.swapaxes(-1, -2))",
        "product(gz, y2)",
        "The incoming gradient times y rather than y^T. With a square y every shape fits.",
        ("matmul", "matmul, square"),
    ),
    Mutation(
        "mean-count",
        reduce.MeanFunction.backward,
        "gy / gy.dtype.type(ctx.count)",
        "gy",
        "The sum's backward for a mean: the 1/N is missing.",
        ("mean",),
    ),
    Mutation(
        "amax-ties-whole",
        reduce.ExtremeFunction.backward,
        "share = gy.reshape(y.shape) / winners.sum(axis=ctx.axes, keepdims=True).astype(x.dtype)",
        "share = gy.reshape(y.shape)",
        "Each of several tied maxima gets the whole gradient: together they get more than there is.",
        ("amax, ties", "amax"),
        "microsoft/onnxruntime#7217, where weights diverged",
    ),
    Mutation(
        "permute-not-inverted",
        reshape.PermuteFunction.forward,
        "ctx.inverse = tuple(np.argsort(dims).tolist())",
        "ctx.inverse = dims",
        "Backward permutes once more instead of back. A swap of two axes is its own inverse, and equal sizes hide the rest.",
        ("permute", "permute, equal sizes", "permute, a swap"),
    ),
    Mutation(
        "getitem-duplicates",
        reshape.GetItemFunction.backward,
        "fastest(add_at, gx)(gx[ctx.basic], ctx.arrays, gy)",
        "gx[ctx.basic][ctx.arrays] += gy",
        "NumPy's += on an index writes a row that is taken twice only once.",
        ("getitem", "getitem, each once"),
        "pytorch/pytorch#1528, HIPS/autograd#136",
    ),
)
