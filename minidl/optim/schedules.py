"""Learning rate schedules, with PyTorch's names: what changes `lr` in an optimizer's groups between epochs.

    schedule = MultiStepLR(optimizer, milestones=[23, 50, 77], gamma=0.1)
    for epoch in range(90):
        train(...)                 # optimizer.step() for every minibatch
        schedule.step()            # once an epoch, after it

A schedule multiplies what it finds in each group, so rates that differ between groups (a doubled one for biases, say)
keep their ratio. `ReduceLROnPlateau` is the automatic form of what the authors of AlexNet did by hand: "divide the
learning rate by 10 when the validation error rate stopped improving" (Krizhevsky et al. 2012, section 5).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from minidl.optim.optimizer import Optimizer


def _checked_optimizer(schedule: object, optimizer: Optimizer) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(schedule).__name__}: {type(optimizer).__name__} is not an Optimizer")
    return optimizer


class LRScheduler:
    """Base of the schedules: counts epochs in `last_epoch` and keeps its settings where a checkpoint can save them."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        """last_epoch : -1 to begin; otherwise the last epoch that was trained, and each group must have its
        `initial_lr` from then (KeyError)."""
        self.optimizer: Optimizer = _checked_optimizer(self, optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    f"with last_epoch {last_epoch}; load the optimizer's state first"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch: int = last_epoch
        self._last_lr: list[float] = []
        self.step()

    def get_lr(self) -> list[float]:
        """The rate of each group for epoch `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__}: get_lr is missing")

    def step(self) -> None:
        """Begin the next epoch: set `lr` in every group."""
        self.last_epoch += 1
        rates = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        self._last_lr = rates

    def get_last_lr(self) -> list[float]:
        """The rate of each group as last set by this schedule."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer (whose own state holds the rates), as numbers, strings and lists."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        ValueError, and nothing is changed, if it is another schedule's, or for another number of groups.
        """
        own, groups = sorted(self.state_dict()), len(self.optimizer.param_groups)
        if sorted(state_dict) != own:
            raise ValueError(f"{type(self).__name__}: its state is {own}, got {sorted(state_dict)}")
        if len(state_dict["_last_lr"]) != groups:
            raise ValueError(
                f"{type(self).__name__}: the optimizer has {groups} parameter groups, got the rates of "
                f"{len(state_dict['_last_lr'])}"
            )
        vars(self).update(state_dict)


class StepLR(LRScheduler):
    """lr times gamma every step_size epochs.  ValueError unless step_size >= 1."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, got {step_size}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factor = self.gamma if self.last_epoch > 0 and self.last_epoch % self.step_size == 0 else 1
        return [group["lr"] * factor for group in self.optimizer.param_groups]


class MultiStepLR(LRScheduler):
    """lr times gamma when the number of epochs done reaches a milestone (twice for one that is named twice)."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factor = self.gamma ** self.milestones.count(self.last_epoch)
        return [group["lr"] * factor for group in self.optimizer.param_groups]


class ReduceLROnPlateau(LRScheduler):
    """lr times factor when a measure has not improved for more than `patience` epochs.

    mode           : "min" (a loss, an error rate) or "max" (an accuracy).
    factor         : below 1.
    threshold      : how much better than the best counts as better: for "min", below best * (1 - threshold) with
                     threshold_mode "rel", below best - threshold with "abs".
    cooldown       : epochs after a reduction in which none is counted as bad.
    min_lr         : no rate goes below it; a number, or one for each group.
    eps            : a rate that would change by no more than this is left.

    A NaN is never better than the best. ValueError: factor >= 1, an unknown mode, a wrong number of min_lr.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1:
            raise ValueError(f"ReduceLROnPlateau: Factor should be < 1.0, got {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        self.optimizer = _checked_optimizer(self, optimizer)
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.eps = cooldown, eps
        self.min_lr = list(min_lr) if isinstance(min_lr, Sequence) else min_lr
        self._min_lrs()
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self.get_lr()

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """End an epoch whose measure was `metrics`, a number or a tensor of one element."""
        current = float(metrics)
        self.last_epoch += 1
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self.get_lr()

    def _is_better(self, current: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        step = sign * self.threshold
        goal = self.best * (1 + step) if self.threshold_mode == "rel" else self.best + step
        return sign * current > sign * goal

    def _reduce(self) -> None:
        for group, floor in zip(self.optimizer.param_groups, self._min_lrs(), strict=True):
            lr = max(group["lr"] * self.factor, floor)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def _min_lrs(self) -> list[float]:
        groups = len(self.optimizer.param_groups)
        if not isinstance(self.min_lr, list):
            return [self.min_lr] * groups
        if len(self.min_lr) != groups:
            raise ValueError(f"ReduceLROnPlateau: expected {groups} min_lrs, one a group, got {len(self.min_lr)}")
        return self.min_lr
