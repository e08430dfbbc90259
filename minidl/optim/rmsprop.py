"""RMSprop: steps scaled, element by element, by the root of a running mean of the gradient's square.

    g  <- gradient + weight_decay w
    s  <- alpha s + (1 - alpha) g^2                          mean of the square
    v  <- momentum v + g / (sqrt(s) + eps)
    w  <- w - lr v

centered: sqrt(s - m^2) in place of sqrt(s), where m <- alpha m + (1 - alpha) g is the mean of the gradient: what is left is
its variance. s, m and v start at zero.
Source: Tieleman and Hinton, lecture 6.5 of "Neural networks for machine learning", Coursera, 2012. Centered: Graves,
"Generating sequences with recurrent neural networks", 2013, section 4.2 (there eps is inside the root).
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


def rmsprop_update(
    w: Array,
    g: Array,
    s: Array,
    m: Array | None,
    v: Array | None,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
) -> None:
    """One step, in place on w, s, m (None unless centered) and v (None without momentum); arrays of one shape."""
    xp = array_module(w)
    d = direction(w, g, weight_decay, maximize)
    s *= alpha
    s += (1 - alpha) * d * d
    if m is None:
        root = xp.sqrt(s)
    else:
        m *= alpha
        m += (1 - alpha) * d
        root = xp.sqrt(s - m * m)
    d /= root + eps
    if v is not None:
        v *= momentum
        v += d
        d[...] = v
    d *= lr
    w -= d


class RMSprop(Optimizer):
    """RMSprop, plain or centered.

    params       : tensors, or group dicts (see minidl/optim/optimizer.py).
    lr           : learning rate, >= 0; a number or a tensor of one element.
    alpha        : >= 0; how much of the running means is kept from step to step.
    eps          : >= 0, added to the root in the denominator.
    weight_decay : >= 0; weight_decay * w is added to the gradient.
    momentum     : >= 0; how much of the velocity is kept from step to step.
    centered     : divide by the standard deviation of the gradient.
    maximize     : climb instead of descend.

    foreach, capturable and differentiable are as in minidl/optim/optimizer.py.

    ValueError: an option out of range, no parameters, a parameter twice. TypeError: a parameter that is not a Tensor.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("square_avg", "momentum_buffer", "grad_avg")
    number_names: ClassVar[tuple[str, ...]] = ("step",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, foreach=foreach, capturable=capturable, differentiable=differentiable)

    def check_group(self, group: dict[str, Any]) -> None:
        """ValueError if an option of the group is out of range."""
        self.check_at_least_0(group, "lr", "eps", "momentum", "weight_decay", "alpha")

    def update(self, p: Tensor, gradient: Array, group: dict[str, Any]) -> None:
        self.count_step(p)
        momentum = float(group["momentum"])
        s = self.buffer(p, "square_avg")
        m = self.buffer(p, "grad_avg") if group["centered"] else None
        v = self.buffer(p, "momentum_buffer") if momentum else None
        update = partial(
            fastest(rmsprop_update, p.data),
            lr=float(group["lr"]),
            alpha=float(group["alpha"]),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            momentum=momentum,
            maximize=group["maximize"],
        )
        fastest(apply_elementwise, p.data)(update, p.data, gradient, s, m, v)
