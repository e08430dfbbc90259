"""Data sets of images under torchvision's names: what `from torchvision import datasets` gives to a program.

Samples are (picture of Pillow's, int) unless `transform` and `target_transform` say otherwise. The files lie where torchvision
puts them; nothing is downloaded, and an error says which files to put where.
"""

from minidl.data.cifar10 import CIFAR10
from minidl.data.image_folder import ImageFolder
from minidl.data.mnist import MNIST, FashionMNIST
from minidl.data.vision import VisionDataset

__all__ = ["CIFAR10", "MNIST", "FashionMNIST", "ImageFolder", "VisionDataset"]
