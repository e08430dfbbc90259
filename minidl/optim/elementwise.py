"""How an update walks over its arrays: all at once, which a faster kernel may do in blocks."""

from collections.abc import Callable

from minidl.device import Array


def apply_elementwise(update: Callable[..., None], *arrays: Array | None) -> None:
    """update(*arrays): changes arrays of one shape in place, each element on its own. None stands for an array left out."""
    update(*arrays)
