"""Learning rate schedules, with PyTorch's names: what changes `lr` in an optimizer's groups between epochs.

    schedule = MultiStepLR(optimizer, milestones=[23, 50, 77], gamma=0.1)
    for epoch in range(90):
        train(...)                 # optimizer.step() for every minibatch
        schedule.step()            # once an epoch, after it

What a schedule calls an epoch is the time between two of its steps; OneCycleLR takes one after every minibatch.

Most schedules multiply what they find in each group, so rates that differ between groups (a doubled one for biases, say)
keep their ratio. `ReduceLROnPlateau` is the automatic form of what the authors of AlexNet did by hand: "divide the
learning rate by 10 when the validation error rate stopped improving" (Krizhevsky et al. 2012, section 5).

A rate that is a 0-d tensor is changed in place. What a schedule computes and reports is always Python floats.
"""

import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from minidl.optim.optimizer import Optimizer, set_option


def _checked_optimizer(schedule: object, optimizer: Optimizer) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(schedule).__name__}: {type(optimizer).__name__} is not an Optimizer")
    return optimizer


class LRScheduler:
    """Base of the schedules: counts epochs in `last_epoch` and keeps its settings where a checkpoint can save them.

    Attributes: `optimizer`; `last_epoch`, the present epoch, from 0; `base_lrs`, the rate that each group had at first.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        """last_epoch : -1 to begin; otherwise the last epoch that was trained, and each group must have its
        `initial_lr` from then (KeyError)."""
        self.optimizer: Optimizer = _checked_optimizer(self, optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", float(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    f"with last_epoch {last_epoch}; load the optimizer's state first"
                )
        self.base_lrs: list[float] = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch: int = last_epoch
        self._last_lr: list[float] = []
        self._first_step()

    def _first_step(self) -> None:
        self._step_count = 0
        self.step()

    @property
    def _is_first_step(self) -> bool:
        """Is the constructor's own step being taken? It leaves rates that a resumed optimizer brings."""
        return self._step_count == 1

    def _restart(self) -> None:
        """Epoch 0 again, from `base_lrs`, whatever the rates are now: what SequentialLR asks at a milestone."""
        self._set_rates(self.base_lrs)
        self.last_epoch = -1
        self._first_step()

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _set_rates(self, rates: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            set_option(group, "lr", lr)

    def get_lr(self) -> list[float]:
        """The rate of each group for epoch `last_epoch`. For subclasses to define; `get_last_lr` is for users."""
        raise NotImplementedError(f"{type(self).__name__}: get_lr is missing")

    def step(self) -> None:
        """Begin the next epoch: set `lr` in every group. UserWarning if the optimizer has taken no step yet."""
        if self._step_count == 1 and not self.optimizer.has_stepped:
            warnings.warn(
                f"{type(self).__name__}: detected call of step() before optimizer.step(), so that the first rate is never "
                "used. Call the optimizer's first",
                stacklevel=2,
            )
        self._step_count += 1
        self.last_epoch += 1
        self._set_rates(self.get_lr())
        self._last_lr = self._rates()

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
        self._check_state(state_dict)
        vars(self).update(state_dict)

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        own, groups = sorted(self.state_dict()), len(self.optimizer.param_groups)
        if sorted(state_dict) != own:
            raise ValueError(f"{type(self).__name__}: its state is {own}, got {sorted(state_dict)}")
        if len(state_dict["_last_lr"]) != groups:
            raise ValueError(
                f"{type(self).__name__}: the optimizer has {groups} parameter groups, got the rates of "
                f"{len(state_dict['_last_lr'])}"
            )


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
        return [lr * factor for lr in self._rates()]


class MultiStepLR(LRScheduler):
    """lr times gamma when the number of epochs done reaches a milestone (twice for one that is named twice)."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factor = self.gamma ** self.milestones.count(self.last_epoch)
        return [lr * factor for lr in self._rates()]


class ExponentialLR(LRScheduler):
    """lr times gamma every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        factor = 1 if self._is_first_step else self.gamma
        return [lr * factor for lr in self._rates()]


class LambdaLR(LRScheduler):
    """The rate that a group had at first, times a function of the epoch.

    lr_lambda : function of the epoch, 0, 1, 2, ..., that returns a factor; or a list of them, one for each group.

    ValueError: a list of another length than there are groups.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(_checked_optimizer(self, optimizer).param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: Expected {groups} lr_lambdas, one a group, got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr * float(f(self.last_epoch)) for lr, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer. Of `lr_lambdas`, the attributes of callable objects; None for functions: what is
        loaded goes on with those that the constructor got."""
        saved = [None if isinstance(f, FunctionType) else dict(vars(f)) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._check_state(state_dict)
        for f, attributes in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if attributes is not None:
                vars(f).update(attributes)
        vars(self).update({name: value for name, value in state_dict.items() if name != "lr_lambdas"})


class LinearLR(LRScheduler):
    """The factor on lr goes in a straight line from start_factor to end_factor in total_iters epochs: a warm-up.

    ValueError: a start_factor outside (0, 1], an end_factor outside [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"LinearLR: start_factor must be greater than 0 and at most 1, got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: end_factor must be between 0 and 1, got {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            factor = self.start_factor
        elif self._is_first_step or self.last_epoch > self.total_iters:
            factor = 1.0
        else:  # of the line at last_epoch, by that of the epoch before
            rise = self.end_factor - self.start_factor
            factor = 1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)
        return [lr * factor for lr in self._rates()]


class CosineAnnealingLR(LRScheduler):
    """Half a wave of a cosine, from lr down to eta_min in T_max epochs, and up again in as many, and so on.

        lr(t) = eta_min + (lr(0) - eta_min) (1 + cos(pi t / T_max)) / 2

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5, without
    the restarts. As in PyTorch, each rate comes from the one before, so other changes of a rate stay in it.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        low, t, rates = self.eta_min, self.last_epoch, self._rates()
        if self._is_first_step:
            return rates
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:  # up from eta_min, where the ratio below is 0 by 0
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - low) * rise for lr, base in zip(rates, self.base_lrs, strict=True)]
        ratio = (1 + math.cos(math.pi * t / self.T_max)) / (1 + math.cos(math.pi * (t - 1) / self.T_max))
        return [ratio * (lr - low) + low for lr in rates]


class OneCycleLR(LRScheduler):
    """One cycle: the rate rises to max_lr and falls far below where it began, while momentum falls and rises.

        initial_lr = max_lr / div_factor                     at step 0
        max_lr                                               at step pct_start * total_steps - 1
        min_lr = initial_lr / final_div_factor               at step total_steps - 1

    Call `step` after every minibatch. Source: Smith and Topin, "Super-convergence: very fast training of neural networks
    using large learning rates", 2018. The paper falls back to initial_lr first, as long as it rose, and to min_lr after
    that: three_phase=True.

    max_lr                      : a number, or one for each group.
    total_steps                 : how many steps the cycle has; or epochs and steps_per_epoch, whose product it is.
    pct_start                   : the fraction of them in which the rate rises, a float in [0, 1].
    anneal_strategy             : "cos", half a wave between two rates, or "linear", a straight line.
    cycle_momentum              : change momentum too (the first of the betas where the optimizer has those).
    base_momentum, max_momentum : momentum at the peak of the rate, and at both ends; a number, or one for each group.

    ValueError: no number of steps or one that is not a positive int, an option out of range, a list of another length than
    there are groups, cycle_momentum for an optimizer without momentum, a step after the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        _checked_optimizer(self, optimizer)
        if total_steps is not None:
            self.total_steps = self._positive("total_steps", total_steps)
        elif epochs is not None and steps_per_epoch is not None:
            self.total_steps = self._positive("epochs", epochs) * self._positive("steps_per_epoch", steps_per_epoch)
        else:
            raise ValueError(
                "OneCycleLR: You must define either total_steps or both epochs and steps_per_epoch, got "
                f"{total_steps}, {epochs}, {steps_per_epoch}"
            )
        if not (isinstance(pct_start, float) and 0 <= pct_start <= 1):
            raise ValueError(f"OneCycleLR: pct_start must be a float between 0 and 1, got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy must be one of 'cos' or 'linear', got {anneal_strategy!r}")
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.use_beta1 = "betas" in optimizer.defaults
        if cycle_momentum and not self.use_beta1 and "momentum" not in optimizer.defaults:
            raise ValueError(
                "OneCycleLR: optimizer must support momentum or beta1 with cycle_momentum=True, "
                f"{optimizer.name} has the options {', '.join(optimizer.defaults)}"
            )
        self.pct_start = pct_start
        self.three_phase = three_phase
        if last_epoch == -1:
            limits = zip(
                self._for_each_group("max_lr", optimizer, max_lr),
                self._for_each_group("base_momentum", optimizer, base_momentum),
                self._for_each_group("max_momentum", optimizer, max_momentum),
                strict=True,
            )
            for group, (high, low_momentum, high_momentum) in zip(optimizer.param_groups, limits, strict=True):
                group["initial_lr"] = high / div_factor
                group["max_lr"] = high
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if cycle_momentum:
                    group["max_momentum"] = high_momentum
                    group["base_momentum"] = low_momentum
        super().__init__(optimizer, last_epoch)

    @staticmethod
    def _positive(name: str, value: int) -> int:
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"OneCycleLR: Expected positive integer {name}, but got {value}")
        return value

    @staticmethod
    def _for_each_group(name: str, optimizer: Optimizer, value: float | Sequence[float]) -> list[float]:
        groups = len(optimizer.param_groups)
        values = [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)] * groups  # type: ignore[arg-type]
        if len(values) != groups:
            raise ValueError(
                f"OneCycleLR: {name} must have the same length as optimizer.param_groups, {groups}, got {len(values)}"
            )
        return values

    def _phases(self) -> list[tuple[float, str, str]]:
        """The last step of each phase, and what the rate and momentum are then."""
        rise = self.pct_start * self.total_steps
        down = [(2 * rise - 2, "initial_lr", "max_momentum")] if self.three_phase else []
        return [(rise - 1, "max_lr", "base_momentum"), *down, (self.total_steps - 1, "min_lr", "max_momentum")]

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * fraction) + 1)
        return (end - start) * fraction + start

    def get_lr(self) -> list[float]:
        """The rate of each group for step `last_epoch`. With cycle_momentum it sets momentum too, as PyTorch's does."""
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(f"OneCycleLR: Tried to step {t} times. The specified number of total steps is {self.total_steps}")
        begin, lr_name, momentum_name = 0.0, "initial_lr", "max_momentum"
        *phases, (end, next_lr, next_momentum) = self._phases()
        for phase in phases:
            if t <= phase[0]:
                end, next_lr, next_momentum = phase
                break
            begin, lr_name, momentum_name = phase
        fraction = (t - begin) / (end - begin)
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                momentum = self._between(group[momentum_name], group[next_momentum], fraction)
                if self.use_beta1:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        return [self._between(group[lr_name], group[next_lr], fraction) for group in self.optimizer.param_groups]


class SequentialLR(LRScheduler):
    """One schedule after another: the next takes over, at its epoch 0, when the epochs done reach a milestone.

        warm_up = LinearLR(optimizer, 0.1, total_iters=5)
        schedule = SequentialLR(optimizer, [warm_up, CosineAnnealingLR(optimizer, 85)], milestones=[5])

    A schedule that takes over begins from the rates that the optimizer had at first, not from those that it finds.

    schedulers : schedules of this optimizer, no ReduceLROnPlateau and no SequentialLR.
    milestones : rising, one fewer than there are schedules.

    ValueError: no schedule, one of another optimizer, a ReduceLROnPlateau or SequentialLR, another number of milestones.
    TypeError: not a schedule.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        if not schedulers:
            raise ValueError("SequentialLR: expects at least one scheduler, but got no scheduler")
        for i, schedule in enumerate(schedulers):
            if not isinstance(schedule, LRScheduler):
                raise TypeError(f"SequentialLR: schedulers must be schedules, number {i} is {type(schedule).__name__}")
            if isinstance(schedule, (ReduceLROnPlateau, SequentialLR)):
                raise ValueError(
                    "SequentialLR: does not support ReduceLROnPlateau, whose step needs a measure, nor a SequentialLR in "
                    f"another, which can have all the milestones, got {type(schedule).__name__} at index {i}"
                )
            if schedule.optimizer is not optimizer:
                raise ValueError(
                    f"SequentialLR: expects all schedulers to belong to the same optimizer, {type(schedule).__name__} "
                    f"at index {i} of {len(schedulers)} has another"
                )
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "SequentialLR: expects number of schedulers provided to be one more than the number of milestone points, "
                f"got {len(schedulers)} schedulers and {len(milestones)} milestones"
            )
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        self.optimizer = optimizer
        self.last_epoch = last_epoch + 1
        self._set_rates([float(group["initial_lr"]) for group in optimizer.param_groups])
        for schedule in self._schedulers:
            schedule.last_epoch -= 1  # what their constructors' steps did
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._first_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:
        """Begin the next epoch."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        schedule = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            schedule._restart()
        else:
            schedule.step()
        self._last_lr = schedule.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, with the states of the schedules."""
        return {**super().state_dict(), "_schedulers": [schedule.state_dict() for schedule in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._check_state(state_dict)
        for schedule, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            schedule.load_state_dict(state)
        vars(self).update({name: value for name, value in state_dict.items() if name != "_schedulers"})

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        super()._check_state(state_dict)
        states = state_dict["_schedulers"]
        if len(states) != len(self._schedulers):
            raise ValueError(f"SequentialLR: it has {len(self._schedulers)} schedulers, got the states of {len(states)}")
        for schedule, state in zip(self._schedulers, states, strict=True):
            schedule._check_state(state)


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
        self._last_lr = self._rates()

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
        self._last_lr = self._rates()

    def _is_better(self, current: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        step = sign * self.threshold
        goal = self.best * (1 + step) if self.threshold_mode == "rel" else self.best + step
        return sign * current > sign * goal

    def _reduce(self) -> None:
        for group, floor in zip(self.optimizer.param_groups, self._min_lrs(), strict=True):
            before = float(group["lr"])
            lr = max(before * self.factor, floor)
            if before - lr > self.eps:
                set_option(group, "lr", lr)

    def _min_lrs(self) -> list[float]:
        groups = len(self.optimizer.param_groups)
        if not isinstance(self.min_lr, list):
            return [self.min_lr] * groups
        if len(self.min_lr) != groups:
            raise ValueError(f"ReduceLROnPlateau: expected {groups} min_lrs, one a group, got {len(self.min_lr)}")
        return self.min_lr
