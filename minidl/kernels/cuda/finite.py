"""Whether numbers are finite, in one pass that nobody waits for; the meaning is in minidl/optim/finite.py."""

from minidl.device import Array, memory_order
from minidl.kernels.cuda.flat import flatten
from minidl.kernels.cuda.launch import launch

BATCH = 4  # elements for each thread, as in finite.cu


def note_not_finite(x: Array, found: Array) -> None:
    """As the plain function in minidl/optim/finite.py."""
    flat = flatten(x, memory_order(x))
    launch("finite", "mdl_note_not_finite", -(-flat.size // BATCH), flat, found, flat.size, real=x.dtype)
