"""Adam: steps scaled, element by element, by running means of the gradient and of its square.

    g  <- gradient + weight_decay w
    m  <- beta1 m + (1 - beta1) g                    mean of the gradient
    s  <- beta2 s + (1 - beta2) g^2                  mean of its square
    w  <- w - lr  m / (1 - beta1^t)  /  (sqrt(s / (1 - beta2^t)) + eps)

m and s start at zero and are therefore too small by the factors 1 - beta^t after t steps; the last line takes them out.
Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1. AMSGrad replaces s there by
its largest value so far: Reddi, Kale and Kumar, "On the convergence of Adam and beyond", ICLR 2018, algorithm 2 (as in
PyTorch, the maximum is taken before the correction).
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from minidl.device import Array, array_module
from minidl.kernels import fastest
from minidl.optim.elementwise import apply_elementwise
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    s: Array,
    s_max: Array | None,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Step number `step` (1, 2, ...), in place on w, m, s and s_max (None without AMSGrad); arrays of one shape."""
    xp = array_module(w)
    beta1, beta2 = betas
    d = xp.empty_like(w)
    d[...] = g
    if weight_decay != 0:
        d += weight_decay * w
    m *= beta1
    m += (1 - beta1) * d
    s *= beta2
    d *= d
    d *= 1 - beta2
    s += d
    if s_max is not None:
        xp.maximum(s_max, s, out=s_max)
        s = s_max
    xp.sqrt(s, out=d)
    d /= math.sqrt(1 - beta2**step)
    d += eps
    xp.divide(m, d, out=d)
    d *= lr / (1 - beta1**step)
    w -= d


class Adam(Optimizer):
    """Adam, and AMSGrad.

    params       : tensors, or group dicts (see minidl/optim/optimizer.py).
    lr           : learning rate, >= 0.
    betas        : how much of the two running means is kept from step to step, each in [0, 1).
    eps          : >= 0, added to the root in the denominator.
    weight_decay : >= 0; weight_decay * w is added to the gradient.
    amsgrad      : divide by the largest mean square so far.

    ValueError: an option out of range, no parameters, a parameter twice. TypeError: a parameter that is not a Tensor.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    number_names: ClassVar[tuple[str, ...]] = ("step",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """ValueError if an option of the group is out of range."""
        if not group["lr"] >= 0:
            raise ValueError(f"Adam: Invalid learning rate: lr must be at least 0, got {group['lr']}")
        if not group["eps"] >= 0:
            raise ValueError(f"Adam: Invalid epsilon value: eps must be at least 0, got {group['eps']}")
        for i, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"Adam: Invalid beta parameter at index {i}: it must be in [0, 1), got {beta}")
        if not group["weight_decay"] >= 0:
            raise ValueError(f"Adam: Invalid weight_decay value: it must be at least 0, got {group['weight_decay']}")

    def update(self, p: Tensor, group: dict[str, Any]) -> None:
        m, s = self.buffer(p, "exp_avg"), self.buffer(p, "exp_avg_sq")
        s_max = self.buffer(p, "max_exp_avg_sq") if group["amsgrad"] else None
        state = self.state[p]
        state["step"] = int(state.get("step", 0)) + 1
        beta1, beta2 = group["betas"]
        update = partial(
            fastest(adam_update, p.data),
            step=state["step"],
            lr=float(group["lr"]),
            betas=(float(beta1), float(beta2)),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
        )
        fastest(apply_elementwise, p.data)(update, p.data, p.grad, m, s, s_max)
