"""Adagrad: steps scaled, element by element, by the root of the sum of all squares of the gradient so far.

    g  <- gradient + weight_decay w
    s  <- s + g^2
    w  <- w - lr / (1 + (t - 1) lr_decay)  g / (sqrt(s) + eps)            at step t = 1, 2, ...

s starts at initial_accumulator_value. It only grows, so steps only shrink; what was seldom changed still takes large ones.
Source: Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 12, 2011,
section 3, with diagonal matrices. lr_decay is PyTorch's.
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


def adagrad_update(
    w: Array,
    g: Array,
    s: Array,
    step: int,
    lr: float,
    lr_decay: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Step number `step` (1, 2, ...), in place on w and s; arrays of one shape."""
    d = direction(w, g, weight_decay, maximize)
    s += d * d
    d /= array_module(w).sqrt(s) + eps
    d *= lr / (1 + (step - 1) * lr_decay)
    w -= d


class Adagrad(Optimizer):
    """Adagrad.

    params       : tensors, or group dicts (see minidl/optim/optimizer.py).
    lr           : learning rate, >= 0; a number or a tensor of one element.
    lr_decay     : >= 0; the rate is divided by 1 + lr_decay times the number of steps done.
    weight_decay : >= 0; weight_decay * w is added to the gradient.
    initial_accumulator_value : >= 0; what the sums of squares begin with, at the first step of a parameter.
    eps          : >= 0, added to the root in the denominator.
    maximize     : climb instead of descend.

    foreach, differentiable and fused are as in minidl/optim/optimizer.py.

    ValueError: an option out of range, no parameters, a parameter twice. TypeError: a parameter that is not a Tensor.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("sum",)
    number_names: ClassVar[tuple[str, ...]] = ("step",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults, foreach=foreach, differentiable=differentiable, fused=fused)

    def check_group(self, group: dict[str, Any]) -> None:
        """ValueError if an option of the group is out of range."""
        self.check_at_least_0(group, "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def update(self, p: Tensor, gradient: Array, group: dict[str, Any]) -> None:
        s = self.buffer(p, "sum", first=float(group["initial_accumulator_value"]))
        update = partial(
            fastest(adagrad_update, p.data),
            step=self.count_step(p),
            lr=float(group["lr"]),
            lr_decay=float(group["lr_decay"]),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            maximize=group["maximize"],
        )
        fastest(apply_elementwise, p.data)(update, p.data, gradient, s)
