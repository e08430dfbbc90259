"""What is done to the gradients of all parameters at once, between backward and the optimizer's step.

loss.backward()
nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
optimizer.step()
"""

import math
import warnings
from collections.abc import Iterable, Iterator

import numpy as np

from minidl import changes
from minidl.device import Array, Device
from minidl.tensor import Tensor


def _with_gradient(name: str, parameters: Tensor | Iterable[Tensor]) -> list[tuple[Device, Array]]:
    """The gradients, each with its device."""
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not given and isinstance(parameters, Iterator):
        warnings.warn(f"{name}: `parameters` is an empty generator, no gradient clipping will occur", stacklevel=3)
    for p in given:
        if not isinstance(p, Tensor):
            raise TypeError(f"{name}: parameters must be Tensors, got {type(p).__name__}")
    return [(p.device, p.grad.data) for p in given if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by one factor, in place, so that their common norm is at most max_norm.

        norm = (sum over all elements of all gradients of |g|^norm_type)^(1 / norm_type)
        g   <- g min(1, max_norm / (norm + 1e-6))

    parameters         : a tensor, or tensors; those without a gradient are left out.
    norm_type          : math.inf is the largest |g|.
    error_if_nonfinite : raise where the norm is NaN or infinite. Otherwise NaN makes all gradients NaN.
    foreach            : changes nothing.

    Returns the norm before, a 0-d tensor on the first gradient's device; 0 without gradients.
    RuntimeError: error_if_nonfinite. TypeError: something that is not a Tensor.
    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.
    """
    gradients = _with_gradient("clip_grad_norm_", parameters)
    order = float(norm_type)
    if not gradients:
        return Tensor(np.zeros((), np.float32))
    first, xp = gradients[0][0], gradients[0][0].xp
    norms = []
    for device, g in gradients:
        with device.active(), np.errstate(over="ignore"):  # a norm too large for its dtype is infinite
            norm = device.xp.asarray(device.xp.linalg.norm(g.ravel(order="K"), order))
            norms.append(Tensor(norm, device=device).to(first).data)
    with first.active():
        total = xp.asarray(xp.linalg.norm(xp.stack(norms), order))
        if error_if_nonfinite and not math.isfinite(total.item()):
            raise RuntimeError(
                f"clip_grad_norm_: The total norm of order {order} for gradients from `parameters` is non-finite, "
                f"{total.item()}, so it cannot be clipped; error_if_nonfinite=False scales the gradients by it anyway"
            )
        factor = Tensor(xp.asarray(xp.minimum(max_norm / (total + 1e-6), 1.0)), device=first)
    for device, g in gradients:
        local = factor.to(device).data
        with device.active(), np.errstate(invalid="ignore"):  # infinity times 0 is NaN, as it should be
            g *= local.astype(g.dtype)
        changes.note(g, "clip_grad_norm_")
    return Tensor(total, device=first)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of every gradient to [-clip_value, clip_value], in place. NaN stays NaN.

    parameters : a tensor, or tensors; those without a gradient are left out.
    foreach    : changes nothing.

    TypeError: something that is not a Tensor.
    """
    limit = float(clip_value)
    for device, g in _with_gradient("clip_grad_value_", parameters):
        with device.active():
            device.xp.clip(g, -limit, limit, out=g)
        changes.note(g, "clip_grad_value_")
