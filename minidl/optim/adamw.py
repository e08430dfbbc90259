"""AdamW: Adam whose weight decay does not pass through the running means.

    w  <- w - lr weight_decay w
    then Adam's step with weight_decay 0        (minidl/optim/adam.py)

In Adam the decay is a part of the gradient, and so it is divided by the root of the mean square like the rest of it: weights
with large gradients decay less. Here all decay at one rate.
Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2. As in PyTorch, the decay is
multiplied by the learning rate.
"""

from collections.abc import Iterable
from typing import Any

from minidl.optim.adam import Adam
from minidl.tensor import Tensor


class AdamW(Adam):
    """Adam with decoupled weight decay. Arguments and errors as Adam's, but for the default of weight_decay.

    weight_decay : >= 0; each step takes the fraction lr * weight_decay off the weights.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Adam's, whose states it takes too; the decay stays decoupled."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
