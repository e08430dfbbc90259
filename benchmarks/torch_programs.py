"""PyTorch's side of the benchmarks, with its fastest settings on a CPU: in-place ReLU, SGD in one fused loop."""

from collections.abc import Callable
from typing import Any

import nets
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Program:
    """A network, its optimiser, and the two things that are done with them."""

    def __init__(self, net: Any, layout: str = "contiguous", device: str = "cpu") -> None:
        self.layout, self.device = LAYOUTS[layout], device
        self.net = net.to(device, memory_format=self.layout)
        self.optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)

    def inputs(self, images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        """The batch in the form that the network takes; its making is not timed."""
        x = torch.from_numpy(images).to(self.device)
        return x.contiguous(memory_format=self.layout) if x.ndim == 4 else x, torch.from_numpy(labels).to(self.device)

    def train(self, x: Any, labels: Any) -> None:
        self.net.train()
        loss = F.cross_entropy(self.net(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def infer(self, x: Any, labels: Any) -> None:
        self.net.eval()
        with torch.no_grad():
            self.net(x)

    def synchronize(self) -> None:
        """Wait until the GPU has done all that was asked of it."""
        torch.cuda.synchronize()


def gpu_alexnet(layout: str) -> Program:
    """The paper's network on the GPU."""
    return Program(nets.alexnet(nn), layout, "cuda")


ALEXNETS: dict[str, Callable[[], Program]] = {
    "PyTorch, contiguous": lambda: Program(nets.alexnet(nn), "contiguous"),
    "PyTorch, channels_last": lambda: Program(nets.alexnet(nn), "channels_last"),
    "PyTorch without LRN, contiguous": lambda: Program(nets.alexnet(nn, norm=False), "contiguous"),
    "PyTorch without LRN, channels_last": lambda: Program(nets.alexnet(nn, norm=False), "channels_last"),
}
