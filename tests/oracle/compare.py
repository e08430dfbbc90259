"""One way to compare: the same call in minidl and in PyTorch, from the same arrays and the same upstream gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import Tensor

torch = pytest.importorskip("torch")

# A sum of n float64 terms is off by at most n * 1.1e-16 times the sum of their sizes. The longest sums here are conv1's weight
# gradient (2 * 55 * 55 = 6050 terms) and conv3's outputs (2304 terms); two libraries that add in different orders then differ
# by less than 2 * 6050 * 1.1e-16 * 6050 ** 0.5 = 1e-10 of the largest element. A gradient may go through two such sums.
VALUE = 1e-9
GRADIENT = 1e-8

LAYOUTS = ["c_order", "channels_last", "sliced"]


def arrange(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values in C order, in channels-last memory, or as every second column of a wider array of NaN."""
    if layout == "channels_last":
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "sliced":
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return np.ascontiguousarray(array)


def dtype_name(x: Any) -> str:
    """A tensor's or an array's dtype as NumPy and PyTorch both spell it: "float64"."""
    return str(x.dtype).removeprefix("torch.")


def host(x: Any) -> np.ndarray:
    """What minidl, NumPy or PyTorch computed, as a NumPy array."""
    if isinstance(x, torch.Tensor):
        return x.detach().numpy()
    return x.detach().numpy() if isinstance(x, Tensor) else x


def assert_same(name: str, mine: Any, their: Any, tolerance: float, floor: float = 0.0) -> None:
    """Equal shape and dtype, values within tolerance * max(largest element, floor); NaN and infinities at the same places."""
    assert mine.shape == tuple(their.shape), f"{name}: shape {mine.shape}, PyTorch has {tuple(their.shape)}"
    assert dtype_name(mine) == dtype_name(their), f"{name}: dtype {mine.dtype}, PyTorch has {their.dtype}"
    mine, their = host(mine), host(their)
    finite = np.abs(their[np.isfinite(their)])
    largest = max(float(finite.max(initial=0.0)), floor)
    np.testing.assert_allclose(mine, their, rtol=0, atol=tolerance * largest, err_msg=name)


def compare(
    ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: np.ndarray, value: float = VALUE, gradient: float = GRADIENT
) -> None:
    """Outputs, and the gradients of every float array from a random upstream gradient. Inputs must come out unchanged.

    Both get the arrays as tensors, minidl in the memory layout given, PyTorch in C order. Of several outputs the first one
    is differentiated.
    """
    mine_in = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    their_in = [torch.tensor(a.copy(order="C"), requires_grad=a.dtype.kind == "f") for a in arrays]
    before = [a.copy() for a in arrays]
    mine, their = ours(*mine_in), theirs(*their_in)
    if not isinstance(mine, tuple):
        mine, their = (mine,), (their,)
    for i, (m, t) in enumerate(zip(mine, their, strict=True)):
        assert_same(f"output {i}", m, t, value)
    if their[0].requires_grad:
        upstream = np.random.default_rng(99).standard_normal(mine[0].shape).astype(mine[0].dtype)
        mine[0].backward(upstream)
        their[0].backward(torch.tensor(upstream))
    for i, (m, t, array) in enumerate(zip(mine_in, their_in, before, strict=True)):
        np.testing.assert_array_equal(host(m), array, f"input {i} was changed")
        if t.grad is None:
            assert m.grad is None, f"input {i} has a gradient, PyTorch's has none"
            continue
        assert m.grad is not None, f"input {i} has no gradient, PyTorch's has one"
        assert_same(f"gradient {i}", m.grad, t.grad, gradient)


def compare_method(fn: Callable[..., Any], *arrays: np.ndarray) -> None:
    """compare() for code that reads the same in both: fn is called with minidl's tensors, then with PyTorch's."""
    compare(fn, fn, *arrays)
