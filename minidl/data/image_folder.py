"""ImageFolder: a labelled data set from a tree of image files, root/<class>/**/img.ext, in torchvision's manner.

Whatever the file holds, an image comes out as (H, W, 3) uint8 RGB:

- the EXIF orientation is applied, so that portraits stand upright;
- grey, palette and CMYK images are converted to RGB; 16-bit grey v becomes v / 257, rounded, so that 65535 becomes 255;
- transparent pixels are laid over white (a black ground would invent black frames, dropping alpha shows hidden colours);
- of several frames or pages the first is taken.

Source of the layout and of the error texts: torchvision.datasets.ImageFolder.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class BadImageError(RuntimeError):
    """A file that does not hold a whole image. `path`, `size` in bytes and `reason` say which and why."""

    def __init__(self, path: str, size: int, reason: str) -> None:
        super().__init__(f"BadImageError: {path} ({size} bytes) is not a readable image: {reason}")
        self.path, self.size, self.reason = path, size, reason


class ImageFolder:
    """The images under root, one folder a class; `dataset[i]` is (image, label), image (H, W, 3) uint8 RGB, label an int.

    classes      : the folders' names, sorted; the label is the place in this list
    class_to_idx : name -> label
    samples      : (path, label) of every image, by class, then by path; `imgs` is the same list
    targets      : the labels alone

    Files are taken by extension (EXTENSIONS, any case), from sub-folders too; links to folders are followed. FileNotFoundError
    if root is missing, has no class folder, or a class folder has no image. Indexing raises IndexError outside
    [0, len), BadImageError for a file that cannot be decoded, OSError where the disk cannot deliver it.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = Path(root)
        self.classes = _class_folders(self.root)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        found = {name: _image_files(self.root / name) for name in self.classes}
        empty = [name for name in self.classes if not found[name]]
        if empty:
            raise FileNotFoundError(
                f"Found no valid file for the classes {', '.join(empty)} in {self.root}. "
                f"Supported extensions are: {', '.join(EXTENSIONS)}"
            )
        self.samples = [(path, label) for label, name in enumerate(self.classes) for path in found[name]]
        self.imgs = self.samples
        self.targets = [label for _, label in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < len(self.samples):
            raise IndexError(f"ImageFolder: index must be in [0, {len(self.samples)}), got {index}")
        path, label = self.samples[index]
        return read_image(path), label


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The image in a file as (H, W, 3) uint8 RGB, by the rules at the top of this module.

    BadImageError if the file is truncated, no image, or larger than Pillow's limit against decompression bombs
    (Image.MAX_IMAGE_PIXELS). An OSError of the file system passes through.
    """
    data = Path(path).read_bytes()
    try:
        return _decode(data)
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error and more
        raise BadImageError(str(path), len(data), f"{type(error).__name__}: {error}") from error


def _decode(data: bytes) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(data)) as image:
        _refuse_bomb(image.size, Image.MAX_IMAGE_PIXELS)
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_rgb(image))


def _refuse_bomb(size: tuple[int, int], limit: int | None) -> None:
    """Pillow only warns between one and two times its limit; threads cannot turn a warning into an error safely."""
    width, height = size
    if limit is not None and width * height > limit:
        raise ValueError(f"an image may have at most {limit} pixels, got {width} x {height} = {width * height}")


def _rgb(image: Any) -> Any:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("32-bit floating point pixels have no fixed range")
    if image.mode.startswith("I"):  # 16-bit grey: I;16 and its byte orders from PNG and TIFF, I from PGM
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _class_folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise FileNotFoundError(f"ImageFolder: root must be a folder that exists, got {root}")
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    if not classes:
        raise FileNotFoundError(f"Couldn't find any class folder in {root}.")
    return classes


def _image_files(folder: Path) -> list[str]:
    walk = sorted(os.walk(folder, followlinks=True))
    return [os.path.join(where, name) for where, _, names in walk for name in sorted(names) if _is_image(name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)
