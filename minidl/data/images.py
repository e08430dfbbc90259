"""What a transform may be given as an image, and what is done alike to each kind.

    an array (H, W, C)       RGB on the scale 0 to 255, in ImageLoader's pipelines
    a picture of Pillow's    what the data sets give, in programs written for torchvision
    a Tensor (..., C, H, W)  after ToTensor or ToImage

minidl/data/transforms.py has the transforms. Pillow is imported where a picture is made: minidl itself does not need it.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np

from minidl.create import as_tensor
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Image = TypeVar("Image")  # np.ndarray, Tensor, or Pillow's


def is_picture(image: object) -> "TypeGuard[Picture]":
    """Whether this is a picture of Pillow's. Who has one has imported Pillow: to the end, which another thread may just do."""
    kind = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return kind is not None and isinstance(image, kind)


def as_array(picture: "Picture") -> np.ndarray:
    """A picture of Pillow's as (H, W, C). Mode 1 is bool, I and F are int32 and float32, 16-bit grey is int32, all others
    uint8."""
    array = np.asarray(picture)
    if picture.mode.startswith("I;16"):
        array = array.astype(np.int32)
    return array[:, :, None] if array.ndim == 2 else array


def array_of(image: Any) -> Any:
    """A picture of Pillow's as an array (H, W, C); anything else as it is."""
    return as_array(image) if is_picture(image) else image


def hwc(name: str, image: Any) -> np.ndarray:
    if is_picture(image):
        return as_array(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"{name}: takes a picture of Pillow's or an array (H, W, C), got {type(image).__name__}")
    if image.ndim not in (2, 3):
        raise ValueError(f"{name}: takes arrays (H, W, C) or (H, W), got {image.shape}")
    return image[:, :, None] if image.ndim == 2 else image


def chw(array: np.ndarray, dtype: Any) -> np.ndarray:
    """(H, W, C) -> (C, H, W), a copy: a Tensor that is changed in place leaves the image alone."""
    return np.array(array.transpose(2, 0, 1), dtype, order="C")


def check_rgb_bytes(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{name}: takes (H, W, 3) uint8 images, got {image.shape} {image.dtype}")


def sides_of(image: Any) -> tuple[int, int]:
    """(height, width)."""
    if is_picture(image):
        return image.height, image.width
    height, width = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return height, width


def by_pillow(name: str, image: Image, work: "Callable[[Picture], Picture]", antialias: bool | None = True) -> Image:
    """What `work` makes of the image as a picture, as what the image was."""
    if is_picture(image):
        return work(image)  # type: ignore[return-value]
    from PIL import Image as Pillow

    check_for_pillow(name, image, antialias)
    result: Any
    if isinstance(image, Tensor):
        array = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
        picture = Pillow.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        result = as_tensor(chw(as_array(work(picture)), np.uint8))
    else:
        result = np.asarray(work(Pillow.fromarray(image)))  # type: ignore[arg-type]
    return result


def check_for_pillow(name: str, image: Any, antialias: bool | None = True) -> None:
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] not in (1, 3) or image.dtype != np.uint8:
            got = f"{tuple(image.shape)} {image.dtype}"
            raise TypeError(f"{name}: takes Tensors (1 or 3, H, W) uint8, got {got}; it comes before what makes floats")
        if antialias is False:
            raise ValueError(f"{name}: Tensors are resized with antialias=True only, got False")
    elif isinstance(image, np.ndarray):
        check_rgb_bytes(name, image)
    elif not is_picture(image):
        raise TypeError(f"{name}: takes a picture of Pillow's, an array or a Tensor, got {type(image).__name__}")


def pad(image: Any, by: tuple[tuple[int, int], tuple[int, int]], fill: Any, mode: str) -> Any:
    """More rows (top, bottom) and columns (left, right)."""
    if is_picture(image):
        from PIL import Image as Pillow

        if image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
            raise TypeError(f"RandomCrop: pads pictures of mode 1, L, LA, RGB and RGBA, got {image.mode}")
        padded = pad(as_array(image), by, fill, mode)
        return Pillow.fromarray(padded[:, :, 0] if padded.shape[2] == 1 else padded)
    if isinstance(image, Tensor):
        channels_last = np.moveaxis(image.numpy(), -3, -1)
        sides = [(0, 0)] * (image.ndim - 3) + [*by]
        return as_tensor(np.ascontiguousarray(np.moveaxis(_pad_array(channels_last, sides, fill, mode), -1, -3)))
    return _pad_array(image, [*by], fill, mode)


def _pad_array(array: np.ndarray, by: list[tuple[int, int]], fill: Any, mode: str) -> np.ndarray:
    """(..., C), padded along the first axes."""
    by = [*by, *[(0, 0)] * (array.ndim - len(by))]
    if mode != "constant":
        return np.pad(array, by, mode)  # type: ignore[call-overload]
    padded: np.ndarray = np.empty([n + sum(sides) for n, sides in zip(array.shape, by, strict=True)], array.dtype)
    padded[...] = fill
    padded[tuple(slice(before, before + n) for n, (before, _) in zip(array.shape, by, strict=True))] = array
    return padded


def mirror(image: Any) -> Any:
    if is_picture(image):
        from PIL import Image as Pillow

        return image.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)
    if isinstance(image, Tensor):
        return image.flip(-1)
    return image.take(np.arange(image.shape[-2] - 1, -1, -1), axis=-2)  # a copy: passes over a reversed view are slow
