"""How many test images of CIFAR-10 a net that was trained with Keras gets right in minidl.

    python benchmarks/keras_cifar10.py cnn_model.h5 DIR

cnn_model.h5 : of the package cifar-10-model 7.4.0 (cifar_10_model/trained_models/ in its wheel): six convolutions, each with a
               ReLU and a batch norm, three dense layers; saved by Keras 2.9, on pixels from 0 to 255.
DIR          : DIR/<class>/*, the test images
"""

import argparse

import common  # noqa: F401  finds minidl
import numpy as np

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn
from minidl.convert import from_keras
from minidl.data import ImageFolder

CHANNELS = (3, 64, 64, 128, 128, 64, 64)
BATCH = 250


def suffix(i: int) -> str:
    """Keras's numbers of layers of one kind: nothing, "_1", "_2", ..."""
    return f"_{i}" if i else ""


class Net(nn.Module):
    """The same layers under Keras's names."""

    def __init__(self) -> None:
        super().__init__()
        for i in range(6):
            setattr(self, f"conv2d{suffix(i)}", nn.Conv2d(CHANNELS[i], CHANNELS[i + 1], 3))
            setattr(self, f"batch_normalization{suffix(i)}", nn.BatchNorm2d(CHANNELS[i + 1], eps=1e-3))
        for i, (units, outputs) in enumerate([(64, 1024), (1024, 512), (512, 10)]):
            setattr(self, f"dense{suffix(i)}", nn.Linear(units, outputs))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(6):
            x = F.relu(getattr(self, f"conv2d{suffix(i)}")(x))
            x = getattr(self, f"batch_normalization{suffix(i)}")(x)
            x = F.max_pool2d(x, 2) if i in (1, 3) else x
        x = F.flatten(x, 1)
        return self.dense_2(F.relu(self.dense_1(F.relu(self.dense(x)))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("net", help="the .h5 file")
    parser.add_argument("images", help="the folder of classes")
    args = parser.parse_args()
    weights = from_keras(args.net)
    net = Net().eval()
    given = net.load_state_dict(weights, strict=False)
    assert not given.unexpected_keys and all(name.endswith("num_batches_tracked") for name in given.missing_keys)
    images = ImageFolder(args.images)
    right = 0
    with minidl.no_grad():
        for first in range(0, len(images), BATCH):
            pixels, labels = zip(*(images[i] for i in range(first, min(first + BATCH, len(images)))), strict=True)
            x = np.stack(pixels).astype(np.float32).transpose(0, 3, 1, 2)
            right += int((net(Tensor(x)).numpy().argmax(axis=1) == labels).sum())
    print(f"{right} of {len(images)} right, {right / len(images):.2%}")


if __name__ == "__main__":
    main()
