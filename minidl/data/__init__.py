"""Data sets, transforms and the loader: everything from files, or from nothing but a seed, to batches."""

from minidl.data.image_folder import BadImageError, ImageFolder, read_image
from minidl.data.loader import DataLoader
from minidl.data.patterns import Patterns
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
    "IMAGENET_COMPONENTS",
    "IMAGENET_STDEVS",
    "BadImageError",
    "CenterCrop",
    "ColorStatistics",
    "Compose",
    "DataLoader",
    "ImageFolder",
    "Normalize",
    "PCAColorNoise",
    "Patterns",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Resize",
    "SampleKey",
    "SubtractMean",
    "TenCrop",
    "color_statistics",
    "read_image",
]
