"""What data sets of images have in common: torchvision's arguments and samples."""

import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidl.data.dataset import Dataset

Transform = Callable[[Any], Any]


class VisionDataset(Dataset[tuple[Any, Any]]):
    """Base of data sets of images in files: `dataset[i]` is (transform(image), target_transform(label)).

    root             : the folder where the files lie; "~" is the user's home
    transform        : a function of the image, a picture of Pillow's; None leaves it as it is
    target_transform : a function of the label, an int; None leaves it as it is

    A subclass has __len__ and `_load(i)` -> (image, label), for i in [0, len). IndexError for an index outside [-len, len);
    negative ones count from the end.
    """

    def __init__(
        self, root: str | os.PathLike[str], transform: Transform | None = None, target_transform: Transform | None = None
    ) -> None:
        self.root = Path(root).expanduser()
        self.transform, self.target_transform = transform, target_transform

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__}: subclasses of VisionDataset must have __len__")

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        i, n = operator.index(index), len(self)
        if not -n <= i < n:
            raise IndexError(f"{type(self).__name__}: index must be in [{-n}, {n}), got {i}")
        image, label = self._load(i % n)
        if self.transform is not None:
            image = self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)

    def _load(self, index: int) -> tuple[Any, int]:
        raise NotImplementedError(f"{type(self).__name__}: subclasses of VisionDataset must have _load")
