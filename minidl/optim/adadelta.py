"""Adadelta: steps in the unit of the weights, from running means of the squares of gradients and of steps.

    g  <- gradient + weight_decay w
    s  <- rho s + (1 - rho) g^2                       mean of the gradient's square
    d  <- g sqrt(u + eps) / sqrt(s + eps)
    u  <- rho u + (1 - rho) d^2                       mean of the step's square
    w  <- w - lr d

s and u start at zero, so the first steps have about the size sqrt(eps).
Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1, which has no rate: there lr is 1.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.optim.direction import direction
from minidl.optim.elementwise import apply_elementwise
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


def adadelta_update(
    w: Array,
    g: Array,
    s: Array,
    u: Array,
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """One step, in place on w, s and u; arrays of one shape."""
    xp = array_module(w)
    d = direction(w, g, weight_decay, maximize)
    s *= rho
    s += (1 - rho) * d * d
    d *= xp.sqrt(u + eps) / xp.sqrt(s + eps)
    u *= rho
    u += (1 - rho) * d * d
    d *= lr
    w -= d


class Adadelta(Optimizer):
    """Adadelta.

    params       : tensors, or group dicts (see minidl/optim/optimizer.py).
    lr           : learning rate, >= 0; a number or a tensor of one element.
    rho          : how much of the running means is kept from step to step, in [0, 1].
    eps          : >= 0, added below both roots.
    weight_decay : >= 0; weight_decay * w is added to the gradient.
    maximize     : climb instead of descend.

    foreach, capturable and differentiable are as in minidl/optim/optimizer.py.

    ValueError: an option out of range, no parameters, a parameter twice. TypeError: a parameter that is not a Tensor.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("square_avg", "acc_delta")
    number_names: ClassVar[tuple[str, ...]] = ("step",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, foreach=foreach, capturable=capturable, differentiable=differentiable)

    def check_group(self, group: dict[str, Any]) -> None:
        """ValueError if an option of the group is out of range."""
        self.check_at_least_0(group, "lr", "eps", "weight_decay")
        if not 0 <= group["rho"] <= 1:
            raise ValueError(f"Adadelta: Invalid rho value: rho must be in [0, 1], got {group['rho']}")

    def update(self, p: Tensor, gradient: Array, group: dict[str, Any]) -> None:
        self.count_step(p)
        s, u = self.buffer(p, "square_avg"), self.buffer(p, "acc_delta")
        update = partial(
            fastest(adadelta_update, p.data),
            lr=float(group["lr"]),
            rho=float(group["rho"]),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            maximize=group["maximize"],
        )
        fastest(apply_elementwise, p.data)(update, p.data, gradient, s, u)
