"""Learning rate schedules against PyTorch's."""

import itertools
import warnings

import numpy as np
import pytest

from minidl.optim import SGD, Adam, lr_scheduler
from minidl.tensor import Tensor

torch = pytest.importorskip("torch")

# of each: what makes it from a library's module of schedules and an optimizer
MAKERS = {
    "StepLR": lambda m, o: m.StepLR(o, 3),
    "StepLR, every epoch": lambda m, o: m.StepLR(o, step_size=1, gamma=0.9),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [2, 5, 5, 9], gamma=0.3),
    "MultiStepLR, at once": lambda m, o: m.MultiStepLR(o, milestones=[7, 0, 3]),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.9),
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda epoch: 0.95**epoch),
    "LambdaLR, one a group": lambda m, o: m.LambdaLR(o, [lambda epoch: epoch // 3, lambda epoch: 1 / (1 + epoch)]),
    "LinearLR": lambda m, o: m.LinearLR(o),
    "LinearLR, down": lambda m, o: m.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=7),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 5),
    "CosineAnnealingLR, to a floor": lambda m, o: m.CosineAnnealingLR(o, T_max=7, eta_min=0.1),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.5, total_steps=20),
    "OneCycleLR, linear": lambda m, o: m.OneCycleLR(
        o, [0.5, 2.0], epochs=4, steps_per_epoch=5, pct_start=0.45, anneal_strategy="linear", base_momentum=[0.7, 0.8]
    ),
    "OneCycleLR, three phases": lambda m, o: m.OneCycleLR(
        o, 0.5, 20, three_phase=True, max_momentum=0.99, div_factor=10, final_div_factor=100
    ),
    "OneCycleLR, falling only": lambda m, o: m.OneCycleLR(o, 0.5, 20, pct_start=0.0, cycle_momentum=False),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=4), m.CosineAnnealingLR(o, 6, 0.01), m.ExponentialLR(o, 0.9)], [4, 11]
    ),
    "SequentialLR of those that drop": lambda m, o: m.SequentialLR(
        o, [m.ExponentialLR(o, 0.5), m.StepLR(o, 2), m.MultiStepLR(o, [3]), m.LambdaLR(o, lambda t: 1 / (t + 2))], [3, 8, 12]
    ),
    "SequentialLR, one left out": lambda m, o: m.SequentialLR(o, [m.StepLR(o, 2), m.StepLR(o, 3), m.LinearLR(o)], [5, 5]),
    "SequentialLR from OneCycleLR": lambda m, o: m.SequentialLR(o, [m.OneCycleLR(o, 0.5, 6), m.StepLR(o, 2, 0.5)], [6]),
}
OPTIMIZERS = {"SGD": {"momentum": 0.9}, "Adam": {}}


def pair(optimizer="SGD", lr=(0.8, 0.4), number=lambda x: x):
    """The same two groups for both."""
    options = OPTIMIZERS[optimizer]
    kinds = {"SGD": SGD, "Adam": Adam}
    ours = kinds[optimizer]([{"params": [Tensor([1.0])], "lr": number(rate)} for rate in lr], **options)
    theirs = getattr(torch.optim, optimizer)([{"params": [torch.ones(1)], "lr": rate} for rate in lr], **options)
    ours.step()  # without gradients, and before the schedules come
    return ours, theirs


def quietly(step):
    """PyTorch warns of a step of a schedule before one of the optimizer, and of what SequentialLR asks of schedules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return step()


def same_options(a, b):
    """All that schedules change in groups. Equal formulas in float64 give equal bits, but for PyTorch's closed forms where a
    schedule takes over: a few roundings in each of 20 epochs."""
    for ours, theirs in zip(a.param_groups, b.param_groups, strict=True):
        for name in ("lr", "initial_lr", "momentum", "betas", "max_lr", "min_lr", "base_momentum", "max_momentum"):
            assert (name in ours) == (name in theirs), name
            if name in ours:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-13, atol=1e-16, err_msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MAKERS)
def test_schedules(name, optimizer):
    a, b = pair(optimizer)
    mine, their = MAKERS[name](lr_scheduler, a), quietly(lambda: MAKERS[name](torch.optim.lr_scheduler, b))
    for _ in range(20):
        same_options(a, b)
        assert mine.get_last_lr() == [g["lr"] for g in a.param_groups]
        np.testing.assert_allclose(mine.get_last_lr(), their.get_last_lr(), rtol=1e-13, atol=1e-16)
        assert mine.last_epoch == their.last_epoch
        mine.step()
        quietly(their.step)
    same_options(a, b)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(["StepLR", "LinearLR", "CosineAnnealingLR"], 2)))
def test_two_schedules_on_one_optimizer(first, second):
    a, b = pair()
    mine = [MAKERS[name](lr_scheduler, a) for name in (first, second)]
    their = [MAKERS[name](torch.optim.lr_scheduler, b) for name in (first, second)]
    for _ in range(14):
        same_options(a, b)
        for schedule in mine:
            schedule.step()
        for schedule in their:
            quietly(schedule.step)


@pytest.mark.parametrize("last_epoch", [0, 2, 4, 6])
@pytest.mark.parametrize(
    "make",
    [
        lambda m, o, t: m.StepLR(o, 3, last_epoch=t),
        lambda m, o, t: m.MultiStepLR(o, [3, 5], last_epoch=t),
        lambda m, o, t: m.ExponentialLR(o, 0.9, last_epoch=t),
        lambda m, o, t: m.LambdaLR(o, lambda epoch: 0.5**epoch, last_epoch=t),
        lambda m, o, t: m.LinearLR(o, last_epoch=t),
        lambda m, o, t: m.CosineAnnealingLR(o, 5, last_epoch=t),
        lambda m, o, t: m.OneCycleLR(o, 0.5, 20, cycle_momentum=False, last_epoch=t),
    ],
)
def test_resuming_at_an_epoch(make, last_epoch):
    a, b = pair()
    for o in (a, b):
        for group in o.param_groups:
            group.update(initial_lr=group["lr"] * 2, max_lr=group["lr"] * 3, min_lr=0.01)
    mine, their = make(lr_scheduler, a, last_epoch), quietly(lambda: make(torch.optim.lr_scheduler, b, last_epoch))
    assert mine.last_epoch == their.last_epoch == last_epoch + 1
    for _ in range(8):
        same_options(a, b)
        mine.step()
        quietly(their.step)


@pytest.mark.parametrize("name", ["StepLR", "LinearLR", "OneCycleLR", "SequentialLR"])
def test_a_rate_that_is_a_tensor_is_changed_in_place(name):
    """float32: a rounding at each of 12 steps."""
    a, b = pair(number=lambda x: Tensor(np.array(x, np.float32)))
    rates = [group["lr"] for group in a.param_groups]
    mine, their = MAKERS[name](lr_scheduler, a), quietly(lambda: MAKERS[name](torch.optim.lr_scheduler, b))
    for _ in range(12):
        assert [group["lr"] for group in a.param_groups] == rates
        np.testing.assert_allclose([r.item() for r in rates], their.get_last_lr(), rtol=12 * 6e-8)
        assert mine.get_last_lr() == [r.item() for r in rates]
        mine.step()
        quietly(their.step)


ERRORS = {
    "no optimizer": lambda m, o: m.StepLR(3, 1),
    "lambdas": lambda m, o: m.LambdaLR(o, [lambda t: t]),
    "start_factor 0": lambda m, o: m.LinearLR(o, start_factor=0.0),
    "start_factor 2": lambda m, o: m.LinearLR(o, start_factor=2.0),
    "end_factor": lambda m, o: m.LinearLR(o, end_factor=-0.1),
    "no steps": lambda m, o: m.OneCycleLR(o, 0.1, epochs=3),
    "steps": lambda m, o: m.OneCycleLR(o, 0.1, total_steps=0),
    "epochs": lambda m, o: m.OneCycleLR(o, 0.1, epochs=1.5, steps_per_epoch=2),
    "steps_per_epoch": lambda m, o: m.OneCycleLR(o, 0.1, epochs=2, steps_per_epoch=-2),
    "pct_start": lambda m, o: m.OneCycleLR(o, 0.1, 10, pct_start=1.5),
    "pct_start is an int": lambda m, o: m.OneCycleLR(o, 0.1, 10, pct_start=1),
    "anneal_strategy": lambda m, o: m.OneCycleLR(o, 0.1, 10, anneal_strategy="exp"),
    "max_lr": lambda m, o: m.OneCycleLR(o, [0.1], 10),
    "a step too many": lambda m, o: [s := m.OneCycleLR(o, 0.1, 2), s.step(), s.step(), s.step()],
    "no schedules": lambda m, o: m.SequentialLR(o, [], []),
    "not a schedule": lambda m, o: m.SequentialLR(o, [3], []),
    "a plateau": lambda m, o: m.SequentialLR(o, [m.ReduceLROnPlateau(o)], []),
    "milestones": lambda m, o: m.SequentialLR(o, [m.StepLR(o, 2)], [1]),
    "no initial_lr": lambda m, o: m.ExponentialLR(o, 0.9, last_epoch=4),
    "factor": lambda m, o: m.ReduceLROnPlateau(o, factor=1.0),
    "mode": lambda m, o: m.ReduceLROnPlateau(o, mode="mean"),
    "min_lr": lambda m, o: m.ReduceLROnPlateau(o, min_lr=[0.1]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_of_pytorchs_kinds(name):
    a, b = pair()
    with pytest.raises(Exception) as theirs:
        quietly(lambda: ERRORS[name](torch.optim.lr_scheduler, b))
    with pytest.raises(theirs.type):
        ERRORS[name](lr_scheduler, a)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 2},
        {"patience": 0, "cooldown": 2, "factor": 0.5},
        {"patience": 1, "threshold": 0.3, "min_lr": 0.1, "factor": 0.6},
        {"patience": 1, "min_lr": [0.3, 0.01]},
        {"patience": 0, "eps": 0.05, "factor": 0.7},
    ],
)
def test_plateau(mode, threshold_mode, settings):
    a, b = pair()
    mine = lr_scheduler.ReduceLROnPlateau(a, mode, threshold_mode=threshold_mode, **settings)
    their = torch.optim.lr_scheduler.ReduceLROnPlateau(b, mode, threshold_mode=threshold_mode, **settings)
    measures = np.random.default_rng(1).standard_normal(60).round(1).tolist()
    measures[20] = float("nan")
    reductions = 0
    for measure in measures:
        before = mine.get_last_lr()
        mine.step(measure)
        their.step(measure)
        reductions += mine.get_last_lr() != before
        assert mine.get_last_lr() == their.get_last_lr() == [g["lr"] for g in a.param_groups]
        assert (mine.best, mine.num_bad_epochs, mine.cooldown_counter) == (
            their.best,
            their.num_bad_epochs,
            their.cooldown_counter,
        )
    assert reductions > 0
