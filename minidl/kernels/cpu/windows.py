"""Which pixels a pool's windows meet, one axis at a time."""

from collections.abc import Iterator
from typing import NamedTuple

from minidl.shapes import Pair


class Axis(NamedTuple):
    """How windows lie along the rows or the columns."""

    kernel: int
    stride: int
    padding: int
    dilation: int
    size: int

    @classmethod
    def pair(cls, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, image: Pair) -> tuple["Axis", "Axis"]:
        """Of rows, and of columns."""
        rows, columns = (cls(*sides) for sides in zip(kernel, stride, padding, dilation, image, strict=True))
        return rows, columns

    def groups(self, first: int, stop: int) -> Iterator[tuple[slice, list[tuple[int, slice]]]]:
        """Outputs first ... stop-1 in groups of equal windows: (outputs, (number of the kernel element, pixels that it meets)).

        Kernel elements outside the image are left out. All windows that lie inside are one group.
        """
        inside = self._meets(0)[0], self._meets(self.kernel - 1)[1]
        start = min(max(first, inside[0]), stop)
        end = min(max(start, inside[1]), stop)
        for begin, beyond in [
            *((i, i + 1) for i in range(first, start)),
            (start, end),
            *((i, i + 1) for i in range(end, stop)),
        ]:
            if begin < beyond:
                yield slice(begin, beyond), list(self._elements(begin, beyond))

    def misses(self, out: int) -> bool:
        """Is there one of so many windows none of whose kernel elements lies in the image?"""
        return any(not elements for _, elements in self.groups(0, out))

    def _meets(self, element: int) -> Pair:
        """First and last + 1 of the outputs whose kernel element lies in the image."""
        before = self.padding - element * self.dilation
        return -(-before // self.stride), (self.size - 1 + before) // self.stride + 1

    def _elements(self, first: int, stop: int) -> Iterator[tuple[int, slice]]:
        for element in range(self.kernel):
            begin, beyond = self._meets(element)
            if begin <= first and stop <= beyond:
                pixel = first * self.stride + element * self.dilation - self.padding
                yield element, slice(pixel, pixel + (stop - first - 1) * self.stride + 1, self.stride)
