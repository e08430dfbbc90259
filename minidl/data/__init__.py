"""Data sets, transforms and the loader: everything from files, or from nothing but a seed, to batches."""

from minidl.data.cifar10 import CIFAR10
from minidl.data.collate import default_collate, default_convert
from minidl.data.dataset import ConcatDataset, Dataset, TensorDataset
from minidl.data.errors import BadFileError, BadImageError
from minidl.data.image_folder import ImageFolder, read_image
from minidl.data.image_loader import ImageLoader, last_read
from minidl.data.image_warnings import ImageWarning
from minidl.data.input_step import InputStep
from minidl.data.loader import DataLoader, WorkerInfo, get_worker_info
from minidl.data.mnist import MNIST, read_idx
from minidl.data.packed import PackedImages
from minidl.data.patterns import Patterns
from minidl.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from minidl.data.subset import Subset, hold_out, image_names, random_split
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
    "BatchSampler",
    "CenterCrop",
    "ColorStatistics",
    "Compose",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
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
    "RandomSampler",
    "Resize",
    "SampleKey",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "SubtractMean",
    "TenCrop",
    "TensorDataset",
    "WeightedRandomSampler",
    "WorkerInfo",
    "color_statistics",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "hold_out",
    "image_names",
    "last_read",
    "random_split",
    "read_idx",
    "read_image",
]
