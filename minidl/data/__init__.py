"""Data sets, transforms and the loader: everything from files, or from nothing but a seed, to batches."""

from minidl.data.cifar10 import CIFAR10
from minidl.data.errors import BadFileError, BadImageError
from minidl.data.image_folder import ImageFolder, read_image
from minidl.data.image_loader import ImageLoader, last_read
from minidl.data.image_warnings import ImageWarning
from minidl.data.input_step import InputStep
from minidl.data.mnist import MNIST, read_idx
from minidl.data.packed import PackedImages
from minidl.data.patterns import Patterns
from minidl.data.subset import Subset, hold_out, image_names
from minidl.data.transforms import (
    IMAGENET_COMPONENTS,
    IMAGENET_STDEVS,
    CenterCrop,
    ColorStatistics,
    Compose,
    Normalize,
    PCAColorNoise,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    SampleKey,
    SubtractMean,
    TenCrop,
    color_statistics,
)

__all__ = [
    "CIFAR10",
    "IMAGENET_COMPONENTS",
    "IMAGENET_STDEVS",
    "MNIST",
    "BadFileError",
    "BadImageError",
    "CenterCrop",
    "ColorStatistics",
    "Compose",
    "ImageFolder",
    "ImageLoader",
    "ImageWarning",
    "InputStep",
    "Normalize",
    "PCAColorNoise",
    "PackedImages",
    "Patterns",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Resize",
    "SampleKey",
    "Subset",
    "SubtractMean",
    "TenCrop",
    "color_statistics",
    "hold_out",
    "image_names",
    "last_read",
    "read_idx",
    "read_image",
]
