"""Which images a run was trained on: their names and classes, kept so that a change of the data is seen when the run goes on.

A listing is JSON: for "training" and "held-out" images the shape that they are stored in, the classes, and each class's names
in their order. A checkpoint keeps its SHA-256, and the run folder the listing itself, compressed, as
listings/<SHA-256>.json.gz: 3.3 MB for 1,281,167 names of ImageNet's length, once for all checkpoints.

Only names are compared. A file whose content changes under its name is not noticed.
"""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from data import STORED_SIZE, listed
from run import write_whole

from minidl.data import BadFileError, image_names

LISTINGS = "listings"  # in the run folder
PARTS = ("training", "held-out")


def listing_of(datasets: tuple[Any, Any]) -> bytes:
    """The listing of a training set and a held-out set."""
    return json.dumps(dict(zip(PARTS, map(_about, datasets), strict=True))).encode()


def _about(dataset: Any) -> dict[str, Any]:
    names: list[list[str]] = [[] for _ in dataset.classes]
    for name, label in zip(image_names(dataset), dataset.targets, strict=True):
        names[label].append(name)
    shape = getattr(getattr(dataset, "dataset", dataset), "shape", (STORED_SIZE, STORED_SIZE, 3))
    return {"shape": list(shape), "classes": list(dataset.classes), "names": names}


def digest_of(listing: bytes) -> str:
    return hashlib.sha256(listing).hexdigest()


def save_listing(folder: Path, listing: bytes) -> str:
    """Keep it in the run folder; its SHA-256."""
    path = _path(folder, digest_of(listing))
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        write_whole(path, gzip.compress(listing, 1, mtime=0))
    return digest_of(listing)


def read_listing(folder: Path, digest: str) -> bytes:
    """What `save_listing` kept. FileNotFoundError: it is gone. BadFileError: it is something else now."""
    path = _path(folder, digest)
    content = path.read_bytes()
    try:
        listing = gzip.decompress(content)
        if digest_of(listing) != digest:
            raise ValueError(f"the SHA-256 must be {digest}, got {digest_of(listing)}")
    except Exception as error:  # gzip and zlib each have their own
        raise BadFileError(path, len(content), str(error)) from error
    return listing


def _path(folder: Path, digest: str) -> Path:
    return folder / LISTINGS / f"{digest}.json.gz"


# ------------------------------------------------------------------------------------------------------------- differences


def classes_changed(before: bytes, now: bytes) -> bool:
    """A network's outputs are its classes: with others it can't go on."""
    return json.loads(before)["training"]["classes"] != json.loads(now)["training"]["classes"]


def held_out_changed(before: bytes, now: bytes) -> bool:
    """Are scores from before and from now of different images?"""
    return json.loads(before)["held-out"] != json.loads(now)["held-out"]


def difference(before: bytes, now: bytes) -> str:
    """How many images and classes came and went, in words."""
    old, new = json.loads(before), json.loads(now)
    texts = [_came_and_went(f"{part} images", _images(old[part]), _images(new[part])) for part in PARTS]
    texts.append(_came_and_went("classes", *({name: name for name in each["training"]["classes"]} for each in (old, new))))
    shapes = [" x ".join(map(str, each["training"]["shape"][:2])) for each in (old, new)]
    if shapes[0] != shapes[1]:
        texts.append(f"images were {shapes[0]}, are {shapes[1]}")
    return ", ".join(filter(None, texts)) or "the same images are in another order"


def _images(about: dict[str, Any]) -> dict[tuple[str, str], str]:
    """(class, name) -> name, in their order."""
    return {(of, name): name for of, names in zip(about["classes"], about["names"], strict=True) for name in names}


def _came_and_went(what: str, old: dict[Any, str], new: dict[Any, str]) -> str:
    """ "2 training images came (a, b)", "1 went (c)"; nothing if none did."""
    came = [name for key, name in new.items() if key not in old]
    went = [name for key, name in old.items() if key not in new]
    moved = [f"{len(names)} {verb} ({listed(names, 3)})" for names, verb in ((came, "came"), (went, "went")) if names]
    return f"of the {what} {' and '.join(moved)}" if moved else ""
