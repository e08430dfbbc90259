"""How convolutions round in float32: by Winograd's tiles and by patches, against PyTorch.

    python benchmarks/bench_rounding.py [--batch 32 96] [--only conv2 ...]

AlexNet's convolutions, each of one tower, with random images and with images as a ReLU leaves them, negative numbers set to 0.
The reference is PyTorch in float64 on the same numbers. A cell is the root mean square of an error, divided by that of PyTorch
in float32 with channels-last memory, which is minidl's: below 1 is rounded less. With contiguous memory PyTorch runs other
kernels, which add in another order. The images of conv1 need no gradient. Needs torch.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from common import machine_line, print_table, use_threads

import minidl.nn.functional as F
from minidl import Tensor, get_num_threads, im2col_convolutions
from minidl.layout import channels_last

LAYERS = {  # images (C, H, W), filters (O, C, KH, KW), settings
    "conv1": ((3, 227, 227), (48, 3, 11, 11), {"stride": 4}),
    "conv2": ((48, 27, 27), (128, 48, 5, 5), {"padding": 2}),
    "conv3": ((256, 13, 13), (192, 256, 3, 3), {"padding": 1}),
    "conv4": ((192, 13, 13), (192, 192, 3, 3), {"padding": 1}),
    "conv5": ((192, 13, 13), (128, 192, 3, 3), {"padding": 1}),
}
WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {"tiles": nullcontext, "patches": im2col_convolutions}
PEER = "PyTorch, channels-last"
Arrays = dict[str, np.ndarray]  # y, gx, gw


def by_minidl(x: np.ndarray, w: np.ndarray, gy: np.ndarray, settings: dict[str, int]) -> Arrays:
    inputs, weights = (Tensor(a, requires_grad=True) for a in (x, w))
    y = F.conv2d(inputs, weights, **settings)
    y.backward(Tensor(gy))
    assert inputs.grad is not None and weights.grad is not None
    return {"y": y.detach().numpy(), "gx": inputs.grad.numpy(), "gw": weights.grad.numpy()}


def by_torch(x: np.ndarray, w: np.ndarray, gy: np.ndarray, settings: dict[str, int]) -> Arrays:
    """In the memory format of the arrays."""
    inputs, weights = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    y = torch.nn.functional.conv2d(inputs, weights, **settings)
    y.backward(torch.from_numpy(gy))
    assert inputs.grad is not None and weights.grad is not None
    return {"y": y.detach().numpy(), "gx": inputs.grad.numpy(), "gw": weights.grad.numpy()}


def errors(layer: str, batch: int, relu: bool) -> dict[str, dict[str, float]]:
    """By way, and by result: the error's root mean square."""
    shape, w_shape, settings = LAYERS[layer]
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(size, np.float32) for size in ((batch, *shape), w_shape))
    if relu:
        np.maximum(x, 0, out=x)
    padding, stride = settings.get("padding", 0), settings.get("stride", 1)
    out = [(size + 2 * padding - kernel) // stride + 1 for size, kernel in zip(shape[1:], w_shape[2:], strict=True)]
    gy = rng.standard_normal((batch, w_shape[0], *out), np.float32)
    exact = by_torch(x.astype(float), w.astype(float), gy.astype(float), settings)
    given = [channels_last(a) for a in (x, w, gy)]
    found = {PEER: by_torch(*given, settings), "PyTorch, contiguous": by_torch(x, w, gy, settings)}
    for way, chosen in WAYS.items():
        with chosen():
            found[way] = by_minidl(*given, settings)
    return {
        way: {name: float(np.sqrt(np.mean((array - exact[name]) ** 2))) for name, array in arrays.items()}
        for way, arrays in found.items()
    }


def measure(batch: int, layers: list[str]) -> None:
    rows = []
    for layer in layers:
        for relu in (False, True):
            found = errors(layer, batch, relu)
            peer = found.pop(PEER)
            for name in ["y", "gw"] if layer == "conv1" else ["y", "gx", "gw"]:
                title = f"{layer}, {'after a ReLU' if relu else 'random'}, {name}"
                rows.append([title, *(f"{error[name] / peer[name]:.2f}" for error in found.values())])
    print_table([f"batch {batch}", "PyTorch, contiguous", *WAYS], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 96])
    parser.add_argument("--only", nargs="+", choices=LAYERS, default=list(LAYERS))
    args = parser.parse_args()
    use_threads(get_num_threads())
    print(machine_line())
    for batch in args.batch:
        measure(batch, args.only)


if __name__ == "__main__":
    main()
