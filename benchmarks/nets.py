"""The networks that are benchmarked, built from `torch.nn` or from `minidl.nn`: the names and arguments are the same."""

from types import ModuleType
from typing import Any

import numpy as np


def alexnet(nn: ModuleType, norm: bool = True) -> Any:
    """The paper's network on one device: groups=2 where a tower sees its own channels only. `norm=False` leaves LRN out."""

    def relu_and_norm() -> list[Any]:
        return [nn.ReLU(inplace=True), *([nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)] if norm else [])]

    return nn.Sequential(
        *(nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, stride=4), *relu_and_norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), *relu_and_norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2), nn.Flatten()),
        *(nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        nn.Linear(4096, 1000),
    )


def small_convnet(nn: ModuleType) -> Any:
    """One of each of AlexNet's layers, for images (N, 3, 16, 16) and 10 classes."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(inplace=True), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2), nn.Flatten()),
        *(nn.Linear(16 * 7 * 7, 64), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(64, 10)),
    )


def small_mlp(nn: ModuleType) -> Any:
    """Two layers, for rows (N, 64) and 10 classes."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(inplace=True), nn.Linear(32, 10))


def random_images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """AlexNet's: images with channels-last memory, on the 0-255 scale minus the mean, and labels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 224, 224, 3), np.float32).transpose(0, 3, 1, 2) * 50
    return images, rng.integers(0, 1000, batch)


# ---------------------------------------------------------------------------------------------------------- where people learn


def cifar_80sec(nn: ModuleType) -> Any:
    """cuda-convnet's "80sec" net for images (N, 3, 32, 32) and 10 classes; its pools' last windows hang over the edge."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(inplace=True)),
        *(nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True)),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10)),
    )


def mnist(nn: ModuleType) -> Any:
    """The net of PyTorch's MNIST example, for images (N, 1, 28, 28) and 10 classes."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(inplace=True), nn.Conv2d(32, 64, 3), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten()),
        *(nn.Linear(9216, 128), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(128, 10)),
    )


def six_convs(nn: ModuleType) -> Any:
    """Six convolutions 3 x 3 of 64 to 256 channels, for images (N, 3, 32, 32) and 10 classes."""
    layers: list[Any] = []
    channels = 3
    for filters in (64, 128, 256):
        for _ in range(2):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 4 * 4, 10))


def mlp(nn: ModuleType) -> Any:
    """Three layers, for rows (N, 784) and 10 classes."""
    return nn.Sequential(
        *(nn.Linear(784, 256), nn.ReLU(inplace=True), nn.Linear(256, 128), nn.ReLU(inplace=True), nn.Linear(128, 10)),
    )
