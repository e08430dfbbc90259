"""Is a backward right? Compare it with what the forward does when its inputs are nudged.

For outputs y(x) and fixed random weights g, the scalar L(x) = sum of g * y(x) has the gradient that backward(g) computes. Along
a direction v its slope is

    analytic   sum of (dL/dx) * v
    numeric    (L(x + eps v) - L(x - eps v)) / (2 eps)          error about eps^2 |L'''| / 6 + 2^-52 |L| / eps

What makes this check hard to fool:
  * g and v are random, with every component between 0.5 and 1.5 in size: no element is too faint to matter, and no op is
    checked along a direction in which its outputs sum to a constant (softmax with g = 1 has slope 0 everywhere).
  * Small inputs are checked element by element as well, larger ones along several directions.
  * A slope of 0 in every direction proves nothing, so it is an error, unless `allow_zero` says that it is meant.
  * At a kink, where the one-sided slopes L(x + eps v) - L(x) and L(x) - L(x - eps v) don't close in on each other as eps is
    halved, numeric slopes mean nothing: first eps shrinks, to step past a kink nearby, then the error says "not
    differentiable here".
  * Random numbers are frozen, so that dropout draws one mask throughout; outputs must repeat bit for bit.
  * Inputs and incoming gradients must come out unmodified.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import random
from minidl.device import Array
from minidl.grad_mode import no_grad
from minidl.tensor import Tensor

UNIT = 2.0**-52  # float64's spacing at 1
SHRINK = (1.0, 1 / 16, 1 / 256)  # eps is multiplied by these, one after the other, until no kink is in reach


class GradcheckError(RuntimeError):
    """A backward that disagrees with its forward, or a check that could prove nothing. The text is the diagnosis."""


class WrongGradientError(GradcheckError):
    """Backward disagrees with forward."""


class NotDifferentiableError(GradcheckError):
    """There is no slope to compare with: a kink or a tie."""


class NotFiniteError(GradcheckError):
    """An input, an output or a slope is not finite."""


@dataclass(frozen=True)
class Comparison:
    """The worst of the comparisons made for one input."""

    name: str
    numeric: float
    analytic: float
    relative_error: float
    comparisons: int


@dataclass(frozen=True)
class _Settings:
    eps: float
    rtol: float
    atol: float
    directions: int
    exhaustive: int
    allow_zero: bool


def gradcheck(
    fn: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-9,
    directions: int = 8,
    exhaustive: int = 100,
    allow_zero: bool = False,
    seed: int = 0,
    raise_exception: bool = True,
) -> bool:
    """True if fn's backward agrees with its forward at these inputs; GradcheckError with a diagnosis if not.

    fn         : takes the inputs, returns a tensor or several.
    inputs     : tensors and other arguments; those that require a gradient are checked and must be float64. They are copied.
    eps        : the nudge to each element.
    rtol, atol : |numeric - analytic| must be at most atol + rtol * the larger of the two + rounding noise.
    directions : how many random directions for each input.
    exhaustive : inputs of up to so many elements are also checked element by element.
    allow_zero : accept a gradient that is 0 everywhere.
    raise_exception : False returns False instead of raising GradcheckError.

    ValueError: no input requires a gradient, or one that does is not float64.
    """
    arguments = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    leaves = {}
    for i, x in enumerate(arguments):
        if isinstance(x, Tensor) and x.requires_grad:
            arguments[i] = Tensor(_copy(x), requires_grad=True, device=x.device)
            leaves[f"input {i}"] = arguments[i]
    try:
        gradcheck_leaves(
            lambda: fn(*arguments),
            leaves,
            eps=eps,
            rtol=rtol,
            atol=atol,
            directions=directions,
            exhaustive=exhaustive,
            allow_zero=allow_zero,
            seed=seed,
        )
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradcheck_leaves(
    fn: Callable[[], Any],
    leaves: dict[str, Tensor],
    *,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-9,
    directions: int = 8,
    exhaustive: int = 100,
    allow_zero: bool = False,
    seed: int = 0,
) -> list[Comparison]:
    """Check the gradients that fn() gives to named leaves, for example to a model's parameters; a row for each of them.

    The leaves are nudged in place and are as before afterwards, also in `.grad`. Settings and errors as for `gradcheck`.
    """
    if not leaves:
        raise ValueError("gradcheck: at least 1 input must require a gradient, got none")
    for name, leaf in leaves.items():
        if leaf.dtype != np.float64:
            raise ValueError(f"gradcheck: {name} must be float64, as rounding must stay below eps, got {leaf.dtype}")
    settings = _Settings(eps, rtol, atol, directions, exhaustive, allow_zero)
    grads_before = {name: leaf.grad for name, leaf in leaves.items()}
    with _frozen_random() as rewind:
        check = _Check(fn, leaves, settings, random.Generator(seed), rewind)
        try:
            return [check.compare(name, leaf) for name, leaf in leaves.items()]
        finally:
            for name, leaf in leaves.items():
                leaf.grad = grads_before[name]


@contextmanager
def _frozen_random() -> Iterator[Callable[[], None]]:
    state = random.default_generator.state()
    try:
        yield lambda: random.default_generator.set_state(state)
    finally:
        random.default_generator.set_state(state)


class _Check:
    """One function at one point: its outputs, the weights g, and the analytic gradients."""

    def __init__(
        self,
        fn: Callable[[], Any],
        leaves: dict[str, Tensor],
        settings: _Settings,
        rng: random.Generator,
        rewind: Callable[[], None],
    ) -> None:
        self.fn, self.settings, self.rng, self.rewind = fn, settings, rng, rewind
        before = {name: leaf.device.to_host(leaf.data) for name, leaf in leaves.items()}
        outputs = self._run()
        self.op = next((y._node.name for y in outputs if y._node is not None), getattr(fn, "__name__", "fn"))
        self.base = self._values()
        self._check_finite({**before, **{f"output {i}": y for i, y in enumerate(self.base)}})
        self.weights = [self._no_faint(y.shape) for y in self.base]
        self._check_untouched(leaves, before)
        self._check_repeats(outputs)
        self._backward(outputs, leaves)
        self._check_untouched(leaves, before)
        self.analytic = {name: self._host_grad(leaf) for name, leaf in leaves.items()}
        scale = sum(float(np.abs(g * y).sum()) for g, y in zip(self.weights, self.base, strict=True))
        self.noise = 8 * UNIT * scale  # of L, at a few roundings for each output

    def _run(self) -> list[Tensor]:
        self.rewind()
        outputs = self.fn()
        outputs = [outputs] if isinstance(outputs, Tensor) else [y for y in outputs if isinstance(y, Tensor)]
        return [y for y in outputs if y.dtype.kind == "f"]

    def _values(self) -> list[np.ndarray]:
        with no_grad():
            return [y.numpy() for y in self._run()]

    def _check_finite(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            wrong = ~np.isfinite(array)
            if wrong.any():
                raise NotFiniteError(f"{self.op}: {name} {array.shape} must be finite, got {wrong.sum()} elements that are not")

    def _check_untouched(self, leaves: dict[str, Tensor], before: dict[str, np.ndarray]) -> None:
        for name, leaf in leaves.items():
            if not _same(leaf.device.to_host(leaf.data), before[name]):
                raise GradcheckError(f"{self.op}: {name} was modified; an op must leave its inputs alone")

    def _check_repeats(self, outputs: list[Tensor]) -> None:
        for y, again in zip(outputs, self.base, strict=True):
            if not _same(y.detach().numpy(), again):
                raise GradcheckError(f"{self.op}: two runs on the same inputs differ; the function is not deterministic")

    def _backward(self, outputs: list[Tensor], leaves: dict[str, Tensor]) -> None:
        for leaf in leaves.values():
            leaf.grad = None
        for y, g in zip(outputs, self.weights, strict=True):
            if y.requires_grad:
                given = y.device.asarray(g.copy())
                y.backward(given, retain_graph=True)
                if not _same(y.device.to_host(given), g):
                    raise GradcheckError(f"{self.op}: backward modified the gradient it was given")

    @staticmethod
    def _host_grad(leaf: Tensor) -> np.ndarray:
        return np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()

    def _no_faint(self, shape: tuple[int, ...]) -> np.ndarray:
        """Random numbers with sizes in [0.5, 1.5) and random signs."""
        sizes = self.rng.uniform(shape, np.float64) + 0.5
        return np.where(self.rng.bernoulli(0.5, shape), sizes, -sizes)

    # ------------------------------------------------------------------------------------------------------- comparing

    def compare(self, name: str, leaf: Tensor) -> Comparison:
        """Every direction for one leaf; GradcheckError at the first that disagrees."""
        grad = self.analytic[name]
        vectors = [self._no_faint(leaf.shape) for _ in range(self.settings.directions)]
        if leaf.numel() <= self.settings.exhaustive:
            vectors += [_one_hot(leaf.shape, i) for i in range(leaf.numel())]
        rows = []
        for vector in vectors:
            numeric, tolerance = self.slope(name, leaf, vector)
            analytic = float((grad * vector).sum())
            if not abs(numeric - analytic) <= tolerance + self.settings.rtol * max(abs(numeric), abs(analytic)):
                if not np.isfinite(numeric):
                    raise NotFiniteError(f"{self.op}: the slope along {name} {leaf.shape} must be finite, got {numeric}")
                raise WrongGradientError(self._diagnosis(name, leaf, numeric, analytic))
            rows.append((numeric, analytic, tolerance))
        if not self.settings.allow_zero and all(abs(numeric) <= tolerance for numeric, _, tolerance in rows):
            raise GradcheckError(
                f"{self.op}: the slope along {name} {leaf.shape} is 0 in all {len(rows)} directions, which proves nothing; "
                "choose inputs where it is not, or pass allow_zero=True"
            )
        numeric, analytic, _ = max(rows, key=lambda row: _relative(row[0], row[1]), default=(0.0, 0.0, 0.0))
        return Comparison(name, numeric, analytic, _relative(numeric, analytic), len(rows))

    def slope(self, name: str, leaf: Tensor, vector: np.ndarray) -> tuple[float, float]:
        """The numeric slope of L along a vector, and how far rounding may have moved it. GradcheckError at a kink."""
        for shrink in SHRINK:
            eps = self.settings.eps * shrink
            ahead, behind = self.change(leaf, vector, eps), self.change(leaf, vector, -eps)
            near_ahead, near_behind = self.change(leaf, vector, eps / 2), self.change(leaf, vector, -eps / 2)
            numeric, near_numeric = (ahead - behind) / (2 * eps), (near_ahead - near_behind) / eps
            bend, near_bend = (ahead + behind) / eps, 2 * (near_ahead + near_behind) / eps
            tolerance = self.settings.atol + self.noise / eps
            slack = self.settings.rtol * abs(numeric)
            # where L is smooth the bend is eps * L'', so halving eps halves it
            # a kink at eps / 3 has the bend halved as well, but moves the slope
            bent = abs(bend - 2 * near_bend) > 8 * tolerance + slack
            if not bent and not abs(numeric - near_numeric) > 4 * tolerance + slack / 2:
                return numeric, tolerance
        raise NotDifferentiableError(
            f"{self.op}: not differentiable here: along {name} {leaf.shape} the slope is {ahead / eps:.6g} ahead and "
            f"{-behind / eps:.6g} behind; move the inputs away from the kink or tie"
        )

    def change(self, leaf: Tensor, vector: np.ndarray, step: float) -> float:
        """L(x + step * vector) - L(x)."""
        before = _copy(leaf)
        nudge = leaf.device.asarray(step * vector)
        with leaf.device.active():
            leaf.data += nudge
        try:
            moved = self._values()
        finally:
            with leaf.device.active():
                leaf.data[...] = before
        return sum(float((g * (y - y0)).sum()) for g, y, y0 in zip(self.weights, moved, self.base, strict=True))

    def _diagnosis(self, name: str, leaf: Tensor, numeric: float, analytic: float) -> str:
        """Which element is worst, among up to 200 of them."""
        grad, n = self.analytic[name], leaf.numel()
        chosen = range(n) if n <= 200 else self.rng.permutation(n)[:200].tolist()
        worst = (0.0, 0, numeric, analytic)
        for i in chosen:
            element, _ = self.slope(name, leaf, _one_hot(leaf.shape, i))
            given = float(grad.reshape(-1)[i])
            worst = max(worst, (abs(element - given), i, element, given), key=lambda row: row[0])
        _, i, element, given = worst
        index = tuple(int(k) for k in np.unravel_index(i, leaf.shape)) if leaf.shape else ()
        return (
            f"{self.op}: backward disagrees with forward for {name} {leaf.shape}: along a random direction numeric "
            f"{numeric:.9g}, analytic {analytic:.9g} (ratio {_ratio(analytic, numeric)}); worst of {len(chosen)} elements "
            f"{index}: numeric {element:.9g}, analytic {given:.9g} (ratio {_ratio(given, element)})"
        )


def _copy(x: Tensor) -> Array:
    with x.device.active():
        return x.data.copy(order="K")


def _one_hot(shape: tuple[int, ...], i: int) -> np.ndarray:
    vector = np.zeros(shape)
    vector.reshape(-1)[i] = 1.0
    return vector


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def _relative(numeric: float, analytic: float) -> float:
    largest = max(abs(numeric), abs(analytic))
    return abs(numeric - analytic) / largest if largest else 0.0


def _ratio(a: float, b: float) -> str:
    return f"{a / b:.6g}" if b else "undefined"
