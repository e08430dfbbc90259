"""How a convolution's windows lie on its images."""

from typing import NamedTuple

from minidl.shapes import Padding, Pair


class Geometry(NamedTuple):
    """How windows lie on the images. What padding there is at the bottom and right follows from the output's size."""

    stride: Pair
    corner: Pair  # padding at the top and left
    dilation: Pair
    groups: int

    @classmethod
    def of(cls, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> "Geometry":
        """From an op's settings."""
        return cls(stride, (padding[0][0], padding[1][0]), dilation, groups)
