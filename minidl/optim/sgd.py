"""Stochastic gradient descent with momentum, by two rules that differ only when the learning rate changes.

    rule="pytorch"   v <- momentum v + (g + weight_decay w)          w <- w - lr v
    rule="2012"      v <- momentum v - lr (g + weight_decay w)       w <- w + v

The second is the AlexNet paper's (Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional
neural networks", NIPS 2012, section 5). There the learning rate is inside the velocity. While it is constant, the
second velocity is -lr times the first, and both take the same steps. When it drops, PyTorch's step shrinks at once, and
the 2012 rule coasts on at the old rate for some 1 / (1 - momentum) steps. Multiplying PyTorch's velocity by
lr_old / lr_new at the drop gives the 2012 rule's steps.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from minidl.device import Array, Device, array_module
from minidl.kernels import fastest
from minidl.optim.direction import direction
from minidl.optim.elementwise import apply_elementwise
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


def sgd_update(
    w: Array,
    g: Array,
    v: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    found: Array | None = None,
) -> None:
    """One step of PyTorch's rule, in place on w and v, with one temporary array (two if nesterov).

    w, g, v : parameter, gradient and velocity, of one shape; v is None where momentum is 0, and zeros before the first
              step, which is taken with dampening 0.
    found   : (1,) int32 on their device; nothing is done where it is not 0.
    """
    if found is not None and found[0] != 0:
        return
    d = direction(w, g, weight_decay, maximize)
    if v is not None:
        v *= momentum
        if dampening != 0:
            d *= 1 - dampening
        v += d
    if nesterov:
        d += momentum * v  # type: ignore[operator]  # nesterov has a momentum, so v is there
    if v is None or nesterov:
        d *= lr
    else:
        array_module(w).multiply(v, lr, out=d)
    w -= d


def sgd_update_2012(
    w: Array, g: Array, v: Array | None, lr: float, momentum: float, weight_decay: float, found: Array | None = None
) -> None:
    """One step of the 2012 rule, in place on w and v, with one temporary array. Arguments as for `sgd_update`."""
    if found is not None and found[0] != 0:
        return
    d = direction(w, g, weight_decay, maximize=False)
    d *= lr
    if v is None:
        w -= d
    else:
        v *= momentum
        v -= d
        w += v


class SGD(Optimizer):
    """Stochastic gradient descent.

    params       : tensors, or group dicts (see minidl/optim/optimizer.py).
    lr           : learning rate, >= 0; a number or a tensor of one element.
    momentum     : >= 0; how much of the velocity is kept from step to step.
    dampening    : the velocity takes in (1 - dampening) of a gradient, except its first.
    weight_decay : >= 0; weight_decay * w is added to the gradient, which is that of 1/2 weight_decay |w|^2 in the loss.
    nesterov     : step along g + momentum * v. Sutskever et al., "On the importance of initialization and momentum in
                   deep learning", ICML 2013.
    maximize     : climb instead of descend.
    rule         : "pytorch", or "2012", where lr = 0 leaves a parameter and its velocity untouched.

    foreach, differentiable and fused are as in minidl/optim/optimizer.py.

    found_inf, an attribute as of PyTorch's fused optimizers: {device: tensor (1,) of int32 on it}, empty by default. Where one
    is not 0, a step changes nothing on its device, and the host need not wait to know; see minidl/optim/finite.py.

    ValueError: an option out of range, nesterov without momentum or with dampening, nesterov, dampening or maximize
    with the 2012 rule, no parameters, a parameter twice. TypeError: a parameter that is not a Tensor.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    absent_options: ClassVar[dict[str, Any]] = {"rule": "pytorch"}

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        rule: str = "pytorch",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "rule": rule,
        }
        super().__init__(params, defaults, foreach=foreach, differentiable=differentiable, fused=fused)
        self.found_inf: dict[Device, Tensor] = {}

    def check_group(self, group: dict[str, Any]) -> None:
        """ValueError if an option of the group is out of range, or does not go with another."""
        self.check_at_least_0(group, "lr", "momentum", "weight_decay")
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: Nesterov momentum requires a momentum and zero dampening, got momentum "
                f"{group['momentum']}, dampening {group['dampening']}"
            )
        if group["rule"] not in ("pytorch", "2012"):
            raise ValueError(f"SGD: rule must be 'pytorch' or '2012', got {group['rule']!r}")
        if group["rule"] == "2012" and (group["nesterov"] or group["dampening"] != 0 or group["maximize"]):
            raise ValueError(
                "SGD: the 2012 rule has no nesterov, dampening or maximize, got nesterov "
                f"{group['nesterov']}, dampening {group['dampening']}, maximize {group['maximize']}"
            )

    def update(self, p: Tensor, gradient: Array, group: dict[str, Any]) -> None:
        lr, momentum, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        found = self.found_inf[p.device].data if p.device in self.found_inf else None
        if group["rule"] == "2012":
            if lr == 0:
                return
            update = partial(fastest(sgd_update_2012, p.data), lr=lr, momentum=momentum, weight_decay=decay, found=found)
        else:
            update = partial(
                fastest(sgd_update, p.data),
                lr=lr,
                momentum=momentum,
                dampening=float(group["dampening"]) if "momentum_buffer" in self.state.get(p, {}) else 0.0,
                weight_decay=decay,
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                found=found,
            )
        velocity = self.buffer(p, "momentum_buffer") if momentum else None
        fastest(apply_elementwise, p.data)(update, p.data, gradient, velocity)
