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
from minidl.optim.direction import direction
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
    maximize: bool,
    decoupled: bool,
) -> None:
    """Step number `step` (1, 2, ...), in place on w, m, s and s_max (None without AMSGrad); arrays of one shape.

    maximize  : climb, with -g for g.
    decoupled : AdamW's decay, see minidl/optim/adamw.py.
    """
    xp = array_module(w)
    beta1, beta2 = betas
    d = direction(w, g, 0 if decoupled else weight_decay, maximize)
    if decoupled and weight_decay != 0:
        w *= 1 - lr * weight_decay
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
    lr           : learning rate, >= 0; a number or a tensor of one element.
    betas        : how much of the two running means is kept from step to step, each in [0, 1).
    eps          : >= 0, added to the root in the denominator.
    weight_decay : >= 0; weight_decay * w is added to the gradient.
    amsgrad      : divide by the largest mean square so far.
    maximize     : climb instead of descend.
    decoupled_weight_decay : decay as AdamW does.

    foreach, capturable, differentiable and fused are as in minidl/optim/optimizer.py.

    ValueError: an option out of range, no parameters, a parameter twice. TypeError: a parameter that is not a Tensor.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    number_names: ClassVar[tuple[str, ...]] = ("step",)
    absent_options: ClassVar[dict[str, Any]] = {"maximize": False, "decoupled_weight_decay": False}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, foreach=foreach, capturable=capturable, differentiable=differentiable, fused=fused)

    def check_group(self, group: dict[str, Any]) -> None:
        """ValueError if an option of the group is out of range."""
        self.check_at_least_0(group, "lr", "eps", "weight_decay")
        for i, beta in enumerate(group["betas"]):
            if isinstance(beta, Tensor) and beta.numel() != 1:
                raise ValueError(f"{self.name}: Tensor betas[{i}] must be 1-element, got the shape {beta.shape}")
            if not 0 <= float(beta) < 1:
                raise ValueError(f"{self.name}: Invalid beta parameter at index {i}: it must be in [0, 1), got {float(beta)}")

    def update(self, p: Tensor, gradient: Array, group: dict[str, Any]) -> None:
        m, s = self.buffer(p, "exp_avg"), self.buffer(p, "exp_avg_sq")
        s_max = self.buffer(p, "max_exp_avg_sq") if group["amsgrad"] else None
        beta1, beta2 = group["betas"]
        update = partial(
            fastest(adam_update, p.data),
            step=self.count_step(p),
            lr=float(group["lr"]),
            betas=(float(beta1), float(beta2)),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            maximize=group["maximize"],
            decoupled=group["decoupled_weight_decay"],
        )
        fastest(apply_elementwise, p.data)(update, p.data, gradient, m, s, s_max)
