"""minidl's side of the benchmarks: networks with their optimiser, trained and asked as a user would."""

from collections.abc import Callable
from typing import Any

import common  # noqa: F401  before minidl, and for AlexNet
import nets
import numpy as np
from model import AlexNet
from steps import Steps

import minidl.nn.functional as F
from minidl import Tensor, nn, no_grad
from minidl.optim import SGD


class Program:
    """A network, its optimiser, and the two things that are done with them."""

    def __init__(self, net: Any, params: Any = None) -> None:
        self.net = net
        self.optimizer = SGD(params or net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, rule="2012")

    def inputs(self, images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        """The batch in the form that the network takes; its making is not timed."""
        return Tensor(images, device=next(iter(self.net.parameters())).device), labels

    def train(self, x: Any, labels: np.ndarray) -> None:
        self.net.train()
        loss = F.cross_entropy(self.net(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def infer(self, x: Any, labels: np.ndarray) -> None:
        self.net.eval()
        with no_grad():
            self.net(x)

    def synchronize(self) -> None:
        """Wait until the devices have done all that was asked of them."""
        for device in {parameter.device for parameter in self.net.parameters()}:
            device.synchronize()


class Towers(Program):
    """The network that examples/alexnet/train.py trains, in two towers on two logical devices."""

    def __init__(self, devices: tuple[str, str] = ("cpu:0", "cpu:1")) -> None:
        net = AlexNet(devices=devices)
        super().__init__(net, net.parameter_groups(1e-4, 5e-4))

    def inputs(self, images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        on_gpus = [tower.device for tower in self.net.towers if tower.device.kind == "cuda"]
        return [Tensor(images, device=device) for device in on_gpus] or images, labels


class Loop(Towers):
    """The same network by the loop of examples/alexnet/train.py, which looks whether all numbers are finite, and reads what a
    step said when the next one has been asked for."""

    def __init__(self, devices: tuple[str, str]) -> None:
        super().__init__(devices)
        self.steps = Steps(self.net, self.optimizer)

    def train(self, x: Any, labels: np.ndarray) -> None:
        for outcome in self.steps.take(1, x, labels):
            self._check(outcome.fault)

    def synchronize(self) -> None:
        for outcome in self.steps.rest():
            self._check(outcome.fault)
        super().synchronize()

    @staticmethod
    def _check(fault: str) -> None:
        if fault:
            raise ArithmeticError(f"train.py's loop: {fault}")


ALEXNETS: dict[str, Callable[[], Program]] = {
    "minidl, two towers": Towers,
    "minidl, one device": lambda: Program(nets.alexnet(nn)),
}

GPU_ALEXNETS: dict[str, Callable[[], Program]] = {
    "minidl, one device": lambda: Program(nets.alexnet(nn).to("cuda:0")),
    "minidl, two towers": lambda: Towers(("cuda:0", "cuda:1")),
    "minidl, train.py's loop": lambda: Loop(("cuda:0", "cuda:1")),
}
