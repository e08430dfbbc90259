"""Data sets, transforms and the loader: everything from files, or from nothing but a seed, to batches."""

from minidl.data import datasets, transforms
from minidl.data.cifar10 import CIFAR10
from minidl.data.collate import default_collate, default_convert
from minidl.data.color_sums import ColorStatistics, color_statistics
from minidl.data.dataset import ConcatDataset, Dataset, TensorDataset
from minidl.data.errors import BadFileError, BadImageError
from minidl.data.image_folder import ImageFolder, read_image, read_picture
from minidl.data.image_loader import ImageLoader, last_read
from minidl.data.image_warnings import ImageWarning
from minidl.data.input_step import InputStep
from minidl.data.loader import DataLoader, WorkerInfo, get_worker_info
from minidl.data.mnist import MNIST, FashionMNIST, read_idx
from minidl.data.packed import PackedImages
from minidl.data.patterns import Patterns
from minidl.data.sampler import (
    BatchSampler,
    DistributedSampler,
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
    ColorJitter,
    Compose,
    ConvertImageDtype,
    InterpolationMode,
    Lambda,
    Normalize,
    PCAColorNoise,
    PILToTensor,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    SampleKey,
    SubtractMean,
    TenCrop,
    ToDtype,
    ToImage,
    ToTensor,
)
from minidl.data.vision import VisionDataset

__all__ = [
    "CIFAR10",
    "IMAGENET_COMPONENTS",
    "IMAGENET_STDEVS",
    "MNIST",
    "BadFileError",
    "BadImageError",
    "BatchSampler",
    "CenterCrop",
    "ColorJitter",
    "ColorStatistics",
    "Compose",
    "ConcatDataset",
    "ConvertImageDtype",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "FashionMNIST",
    "ImageFolder",
    "ImageLoader",
    "ImageWarning",
    "InputStep",
    "InterpolationMode",
    "Lambda",
    "Normalize",
    "PCAColorNoise",
    "PILToTensor",
    "PackedImages",
    "Patterns",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
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
    "ToDtype",
    "ToImage",
    "ToTensor",
    "VisionDataset",
    "WeightedRandomSampler",
    "WorkerInfo",
    "color_statistics",
    "datasets",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "hold_out",
    "image_names",
    "last_read",
    "random_split",
    "read_idx",
    "read_image",
    "read_picture",
    "transforms",
]
