"""Softmax with cross-entropy, one launch each way; the mathematics is in minidl/ops/cross_entropy.py."""

from minidl.device import Array, array_module
from minidl.kernels.cuda.launch import launch

FEWEST, MOST = 32, 256  # threads of a block, as in cross_entropy.cu


def cross_entropy_forward(x: Array, t: Array) -> tuple[Array, Array]:
    """x, t (R, C) -> losses (R,) and log-probabilities (R, C)."""
    xp = array_module(x)
    losses, logp = xp.empty(len(x), x.dtype), xp.empty(x.shape, x.dtype)
    _launch("forward", xp.ascontiguousarray(x), xp.ascontiguousarray(t), losses, logp)
    return losses, logp


def cross_entropy_backward(gy: Array, logp: Array, t: Array) -> Array:
    """gy (R,), logp and t (R, C) -> gx (R, C)."""
    xp = array_module(logp)
    gx = xp.empty(logp.shape, logp.dtype)
    _launch("backward", *(xp.ascontiguousarray(a) for a in (gy, logp, t)), gx)
    return gx


def _launch(direction: str, *arrays: Array) -> None:
    """A block for each row, of about as many threads as there are classes."""
    rows, classes = arrays[-1].shape
    block = min(max(1 << (classes - 1).bit_length(), FEWEST), MOST)
    kernel, real = f"mdl_cross_entropy_{direction}", arrays[-1].dtype
    launch("cross_entropy", kernel, rows * block, *arrays, rows, classes, real=real, block=block, blocks=rows)
