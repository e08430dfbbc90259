"""ImageFolder: a labelled data set from a tree of image files, root/<class>/**/img.ext, in torchvision's manner.

Whatever the file holds, an image comes out as RGB, 8 bits a channel:

- the EXIF orientation is applied, so that portraits stand upright;
- grey, palette and CMYK images are converted to RGB; 16-bit grey v becomes v / 257, rounded, so that 65535 becomes 255;
- transparent pixels are laid over white (a black ground would invent black frames, dropping alpha shows hidden colours);
- of several frames or pages the first is taken.

Listing a large tree is one pass over its folders that asks for no file's details. The names stay as bytes, 21 MB for ImageNet's
million instead of the 300 MB of as many tuples. They are also kept in the user's cache folder: the next run looks only at the
folders, whose times change whenever a file in them is added, renamed or removed.

What desktops, notebooks and network drives leave among images is no part of the data set: names that begin with a dot, such as
macOS's "._photo.jpg" and .ipynb_checkpoints, and the folders in `LEFT_BY_SYSTEMS`.

Source of the layout and of the error texts: torchvision.datasets.ImageFolder.
"""

import hashlib
import io
import json
import os
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minidl.data.errors import BadImageError
from minidl.data.image_warnings import named
from minidl.data.transforms import Resize
from minidl.data.vision import Transform, VisionDataset

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# Folders that programs make by themselves, in lower case. Names that begin with a dot are left out anyway.
LEFT_BY_SYSTEMS = {
    "__macosx": "macOS, in archives",
    "@eadir": "Synology: thumbnails",
    "#recycle": "Synology: what was deleted",
    "#snapshot": "Synology: earlier states of the folder",
    "@recycle": "QNAP: what was deleted",
    "$recycle.bin": "Windows: what was deleted",
    "system volume information": "Windows",
    "lost+found": "Linux: what a repair of the disk found",
}

_FIRST = 3  # of the names that were left out are kept; there may be as many as images
_CACHED_FROM = 50_000  # files; fewer are listed in under a tenth of a second
_SETTLED_NS = 2_000_000_000  # the coarsest time stamps in use, FAT's, are two seconds apart


def read_picture(path: str | os.PathLike[str]) -> Any:
    """The image in a file as a picture of Pillow's, mode RGB, by the rules at the top of this module. Raises as read_image."""
    return _read(path, None)


def read_image(path: str | os.PathLike[str], size: int | None = None) -> np.ndarray:
    """The image in a file as (H, W, 3) uint8 RGB, by the rules at the top of this module.

    With `size` it is (size, size, 3): what Resize(size) and CenterCrop(size) make of it, in less time, since no more than the
    centre is made. Where the image shrinks, a pixel may differ by one level (Resize.of_picture says why), else by none.

    BadImageError if the file is truncated, no image, or larger than Pillow's limit against decompression bombs
    (Image.MAX_IMAGE_PIXELS), before or after it was resized. An OSError of the file system passes through. ImageWarning, once
    for a file, if it could be read and Pillow warned of damage.
    """
    return np.asarray(_read(path, size))


def _read(path: str | os.PathLike[str], size: int | None) -> Any:
    data = Path(path).read_bytes()
    with named(str(path)):
        try:
            return _decode(data, size)
        except Exception as error:  # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error and more
            raise BadImageError(str(path), len(data), f"{type(error).__name__}: {error}") from error


def _decode(data: bytes, size: int | None) -> Any:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:  # its text has the address of our buffer
        raise ValueError("no format that Pillow knows") from None
    with image:
        _refuse_bomb(image.size, Image.MAX_IMAGE_PIXELS)
        ImageOps.exif_transpose(image, in_place=True)
        rgb = _rgb(image)
        return rgb if size is None else _fitted(rgb, size, Image.MAX_IMAGE_PIXELS)


def _refuse_bomb(size: tuple[int, int], limit: int | None) -> None:
    """Pillow only warns between one and two times its limit; threads cannot turn a warning into an error safely."""
    width, height = size
    if limit is not None and width * height > limit:
        raise ValueError(f"an image may have at most {limit} pixels, got {width} x {height} = {width * height}")


def _fitted(picture: Any, size: int, limit: int | None) -> Any:
    """The centre of the resized picture. A strip one pixel high would take gigabytes on the way."""
    resize = Resize(size)
    height, width = resize.new_size(picture.height, picture.width)
    if limit is not None and height * width > limit:
        raise ValueError(
            f"a resized image may have at most {limit} pixels, {picture.height} x {picture.width} at size {size} has "
            f"{height * width}"
        )
    left, top = (width - size) // 2, (height - size) // 2
    return resize.of_picture(picture, (left, top, left + size, top + size))


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
    return image if image.mode == "RGB" else image.convert("RGB")


class ImageFolder(VisionDataset):
    """The images under root, one folder a class; `dataset[i]` is (image, label): a picture of Pillow's, mode RGB, and an int.

    transform, target_transform : functions of the image and of the label
    loader        : path -> image; `read_image` gives arrays
    is_valid_file : path -> whether the file belongs to the data set, instead of the extensions
    allow_empty   : a class folder without an image is a class of no images rather than an error
    cache         : where the listing of a large tree is kept: the user's cache folder ($XDG_CACHE_HOME or ~/.cache, in minidl),
                    another folder, or nowhere with False. With is_valid_file nothing is kept.

    classes      : the folders' names, sorted; the label is the place in this list
    class_to_idx : name -> label
    samples      : (path, label) of every image, by class, then by folder, then by name; `imgs` is the same sequence
    targets      : the labels alone, a list
    extensions   : what files are taken by, in any case; None with is_valid_file
    left_out     : hidden and system names that are no part of the data set: how many, and the first of them

    Files in sub-folders count too. Links to folders are followed, except to a folder that the link lies in. A subclass may
    choose the classes by its own `find_classes`.

    FileNotFoundError if root is missing, has no class folder, or a class folder has no image; NotADirectoryError if root is a
    file; OSError for a folder that cannot be read. Indexing raises IndexError outside [-len, len), BadImageError for a file
    that cannot be decoded, OSError where the disk cannot deliver it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        loader: Callable[[str], Any] = read_picture,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
        *,
        cache: bool | str | os.PathLike[str] = True,
    ) -> None:
        super().__init__(root, transform, target_transform)
        self.loader, self.extensions = loader, EXTENSIONS if is_valid_file is None else None
        self.classes, self.class_to_idx = self.find_classes(self.root)
        names = sorted(self.class_to_idx)
        if is_valid_file is None:
            listing = _listing(str(self.root), names, _cache_folder(cache))
        else:
            listing = _list(str(self.root), names, is_valid_file)
        if not allow_empty:
            self._refuse_empty(listing)
        system = (name for name in _folders_in(self.root) if _is_left_out(name) and name not in self.class_to_idx)
        self.left_out = LeftOut.of([f"{name}{os.sep}" for name in sorted(system)]).merged(listing.left_out)
        self.samples: Sequence[tuple[str, int]] = _Samples(str(self.root), listing, self.class_to_idx)
        self.imgs = self.samples
        self.targets = [label for folder in listing.folders for label in [self.class_to_idx[folder.of_class]] * folder.files]

    def find_classes(self, directory: str | os.PathLike[str]) -> tuple[list[str], dict[str, int]]:
        """The names of the folders in `directory`, sorted, and each name's label."""
        if os.path.isfile(directory):
            raise NotADirectoryError(f"ImageFolder: root must be a folder, got the file {os.fspath(directory)}")
        if not os.path.isdir(directory):
            raise FileNotFoundError(f"ImageFolder: root must be a folder that exists, got {os.fspath(directory)}")
        classes = sorted(name for name in _folders_in(directory) if not _is_left_out(name))
        if not classes:
            raise FileNotFoundError(f"Couldn't find any class folder in {os.fspath(directory)}.")
        return classes, {name: label for label, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.samples)

    def _load(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        return self.loader(path), label

    def _refuse_empty(self, listing: "_Listing") -> None:
        filled = {folder.of_class for folder in listing.folders if folder.files}
        if empty := sorted(self.class_to_idx.keys() - filled):
            by = f" Supported extensions are: {', '.join(self.extensions)}" if self.extensions else ""
            raise FileNotFoundError(f"Found no valid file for the classes {', '.join(empty)} in {self.root}.{by}")


# -------------------------------------------------------------------------------------------------------------- listing


class _Folder(NamedTuple):
    """A class's folder, or one below it: its path from the root, how many images it holds itself, and its state."""

    of_class: str
    path: str
    files: int
    state: list[int]


class LeftOut(NamedTuple):
    """Names that are no part of a data set: how many, and the first of them, by path; a folder's ends in a separator."""

    total: int
    first: list[str]

    @classmethod
    def of(cls, names: Sequence[str]) -> "LeftOut":
        return cls(len(names), list(names[:_FIRST]))

    def merged(self, other: "LeftOut") -> "LeftOut":
        return LeftOut(self.total + other.total, [*self.first, *other.first][:_FIRST])


class _Listing(NamedTuple):
    """The folders in the order of their samples, and all their images' names, each ended by a zero byte."""

    folders: list[_Folder]
    names: bytes
    left_out: LeftOut


def _list(root: str, classes: Iterable[str], is_valid_file: Callable[[str], bool] | None = None) -> _Listing:
    folders, names, left_out = [], [], LeftOut(0, [])
    for of_class in classes:
        for path, state, files, system in sorted(_walk(root, of_class)):
            if is_valid_file is None:
                files = [name for name in files if name.lower().endswith(EXTENSIONS)]
            files.sort()
            first, end = bisect_left(files, "."), bisect_left(files, "/")  # the next character: hidden names lie between
            hidden, files[first:end] = files[first:end], []
            if is_valid_file is not None:
                files = [name for name in files if is_valid_file(os.path.join(root, path, name))]
            folders.append(_Folder(of_class, path, len(files), state))
            names.append(os.fsencode("".join(f"{name}\0" for name in files)))
            if hidden or system:
                left_out = left_out.merged(LeftOut.of([os.path.join(path, name) for name in sorted([*system, *hidden])]))
    return _Listing(folders, b"".join(names), left_out)


def _walk(root: str, top: str) -> Iterator[tuple[str, list[int], list[str], list[str]]]:
    """(path from the root, state, names of the files in it, folders in it that are left out) of the folder `top` and of every
    folder below, in any order."""
    stat = os.stat(root)
    waiting = [(top, frozenset({(stat.st_dev, stat.st_ino)}))]
    while waiting:
        path, above = waiting.pop()
        stat = os.stat(os.path.join(root, path))  # before the listing: what changes meanwhile changes the state
        here = (stat.st_dev, stat.st_ino)
        if here in above:
            continue
        files, system = [], []
        with os.scandir(os.path.join(root, path)) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    files.append(entry.name)
                elif _is_left_out(entry.name):
                    system.append(f"{entry.name}{os.sep}")
                else:
                    waiting.append((os.path.join(path, entry.name), above | {here}))
        yield path, _state(stat), files, system


def _folders_in(directory: str | os.PathLike[str]) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if _is_folder(entry)]


def _is_left_out(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in LEFT_BY_SYSTEMS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _state(stat: os.stat_result) -> list[int]:
    """Numbers of a folder that change with its entries. No program can set the second back, as unpacking does the first."""
    return [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


class _Samples(Sequence[tuple[str, int]]):
    """(path, label) of every image, made when asked for; equal to the list of these."""

    def __init__(self, root: str, listing: _Listing, class_to_idx: dict[str, int]) -> None:
        self._folders = [(os.path.join(root, folder.path), class_to_idx[folder.of_class]) for folder in listing.folders]
        self._firsts = [0, *accumulate(folder.files for folder in listing.folders)]  # each one's first sample, and the length
        self._names = listing.names
        self._ends = np.flatnonzero(np.frombuffer(listing.names, np.uint8) == 0)

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._sample(i) for i in range(*index.indices(len(self)))]
        return self._sample(range(len(self))[index])

    def _sample(self, index: int) -> tuple[str, int]:
        folder, label = self._folders[bisect_right(self._firsts, index) - 1]
        begin = self._ends[index - 1] + 1 if index else 0
        return os.path.join(folder, os.fsdecode(self._names[begin : self._ends[index]])), label

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """A folder at a time: many times faster than one by one."""
        for (folder, label), first, end in zip(self._folders, self._firsts, self._firsts[1:], strict=False):
            if first == end:
                continue
            prefix = os.path.join(folder, "")
            names = self._names[self._ends[first - 1] + 1 if first else 0 : self._ends[end - 1]]
            yield from ((prefix + name, label) for name in os.fsdecode(names).split("\0"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, _Samples)):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self)} samples>" if len(self) > 3 else repr(list(self))


# ---------------------------------------------------------------------------------------------------------------- cache


def _listing(root: str, classes: list[str], cache: Path | None) -> _Listing:
    """From the cache if every folder is as it was, else from the disk and, if it is large, into the cache."""
    if cache is None:
        return _list(root, classes)
    file = _cache_file(cache, root)
    listing = _read_cache(file)
    if listing is not None and _is_current(listing, root, classes):
        return listing
    begin = time.time_ns()
    listing = _list(root, classes)
    if sum(folder.files for folder in listing.folders) >= _CACHED_FROM and _is_settled(listing, begin):
        _write_cache(file, listing)
    return listing


def _cache_folder(cache: bool | str | os.PathLike[str]) -> Path | None:
    if not cache:
        return None
    if cache is not True:
        return Path(cache).expanduser()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return folder / "minidl" if folder.is_absolute() else None  # relative: there is no home; and the XDG rule is to ignore it


def _cache_file(cache: Path, root: str) -> Path:
    key = "\0".join([os.path.abspath(root), *EXTENSIONS])
    return cache / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.listing-2"


def _is_current(listing: _Listing, root: str, classes: list[str]) -> bool:
    if list(dict.fromkeys(folder.of_class for folder in listing.folders)) != classes:
        return False
    try:
        return all(_state(os.stat(os.path.join(root, folder.path))) == folder.state for folder in listing.folders)
    except OSError:
        return False


def _is_settled(listing: _Listing, begin: int) -> bool:
    """Whether a folder that changes after `begin` (ns) gets another time stamp than it had, however coarse they are."""
    return all(max(folder.state[:2]) + _SETTLED_NS <= begin for folder in listing.folders)


def _read_cache(file: Path) -> _Listing | None:
    """None if there is none, or if it is damaged: its first line must be the SHA-256 of the rest."""
    try:
        digest, about, names = file.read_bytes().split(b"\n", 2)  # the names may hold further line ends
    except (OSError, ValueError):
        return None
    if _digest(about, names) != digest:
        return None
    folders, left_out = json.loads(about)
    return _Listing([_Folder(*folder) for folder in folders], names, LeftOut(*left_out))


def _write_cache(file: Path, listing: _Listing) -> None:
    """Whole or not at all. If it cannot be written, or a power cut takes half of it, the next run lists again."""
    about = json.dumps([listing.folders, listing.left_out]).encode()
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            new = Path(folder, file.name)
            new.write_bytes(b"\n".join([_digest(about, listing.names), about, listing.names]))
            os.replace(new, file)


def _digest(about: bytes, names: bytes) -> bytes:
    digest = hashlib.sha256(about)
    digest.update(names)
    return digest.hexdigest().encode()
