"""Learning rate schedules: formulas, proportions, resuming, errors. PyTorch's values: tests/oracle/test_lr_scheduler.py."""

import json
import math
import warnings

import pytest

from minidl.optim import SGD
from minidl.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from minidl.tensor import Tensor


def optimizer(*rates):
    """One that has taken a step, without gradients."""
    made = SGD([{"params": [Tensor([1.0], requires_grad=True)], "lr": lr} for lr in rates])
    made.step()
    return made


def rates(o):
    return [group["lr"] for group in o.param_groups]


def test_multi_step_drops_at_its_milestones():
    o = optimizer(1.0)
    schedule = MultiStepLR(o, [2, 3], gamma=0.5)
    seen = []
    for _ in range(5):
        seen += rates(o)
        schedule.step()
    assert seen == [1.0, 1.0, 0.5, 0.25, 0.25]


def test_step_drops_every_step_size_epochs():
    o = optimizer(1.0)
    schedule = StepLR(o, 2, gamma=0.5)
    seen = []
    for _ in range(5):
        seen += rates(o)
        schedule.step()
    assert seen == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_plateau_drops_after_more_than_patience_bad_epochs():
    o = optimizer(1.0)
    schedule = ReduceLROnPlateau(o, factor=0.5, patience=1)
    seen = []
    for error in [3.0, 2.0, 2.0, 2.0, 2.0, 1.0]:
        schedule.step(error)
        seen += rates(o)
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_plateau_takes_a_tensor_of_one_element():
    schedule = ReduceLROnPlateau(optimizer(1.0))
    schedule.step(Tensor([2.5]))
    assert schedule.best == 2.5


def seen(o, schedule, epochs):
    """The rate of the first group in each of some epochs."""
    found = []
    for _ in range(epochs):
        found.append(o.param_groups[0]["lr"])
        schedule.step()
    return pytest.approx(found, rel=1e-13)  # some ten roundings


def test_exponential_multiplies_every_epoch():
    o = optimizer(1.0)
    assert seen(o, ExponentialLR(o, 0.5), 4) == [1.0, 0.5, 0.25, 0.125]


def test_lambda_is_of_the_epoch_and_of_the_first_rate():
    o = optimizer(3.0)
    assert seen(o, LambdaLR(o, lambda epoch: epoch**2), 4) == [0, 3, 12, 27]


def test_linear_is_a_line_and_then_flat():
    o = optimizer(8.0)
    assert seen(o, LinearLR(o, 0.25, 0.75, total_iters=4), 6) == [2, 3, 4, 5, 6, 6]


def test_cosine_goes_down_and_up():
    o = optimizer(1.0)
    formula = [0.2 + 0.8 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(10)]
    assert seen(o, CosineAnnealingLR(o, 4, eta_min=0.2), 10) == formula


def test_one_cycle_rises_and_falls_while_momentum_falls_and_rises():
    o = optimizer(1.0)
    schedule = OneCycleLR(
        o,
        0.8,
        9,
        pct_start=5 / 9,
        anneal_strategy="linear",
        div_factor=4,
        final_div_factor=2,
        max_momentum=0.9,
        base_momentum=0.5,
    )
    momenta = []
    found = []
    for _ in range(8):
        found += rates(o)
        momenta.append(o.param_groups[0]["momentum"])
        schedule.step()
    assert found + rates(o) == pytest.approx([0.2, 0.35, 0.5, 0.65, 0.8, 0.625, 0.45, 0.275, 0.1])
    assert momenta == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.6, 0.7, 0.8])


def test_one_cycle_of_three_phases_falls_as_it_rose():
    o = optimizer(1.0)
    schedule = OneCycleLR(
        o, 0.8, 10, pct_start=0.4, anneal_strategy="linear", div_factor=4, final_div_factor=2, three_phase=True
    )
    assert seen(o, schedule, 10) == [0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2, 0.2 - 0.1 / 3, 0.2 - 0.2 / 3, 0.1]


def test_sequential_takes_over_at_its_milestones_from_the_first_rate():
    o = optimizer(1.0)
    schedule = SequentialLR(o, [LinearLR(o, 0.5, total_iters=2), ExponentialLR(o, 0.1), StepLR(o, 1, 0.5)], [2, 4])
    assert seen(o, schedule, 7) == [0.5, 0.75, 1.0, 0.1, 1.0, 0.5, 0.25]


class Falling:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, epoch):
        return self.factor**epoch


def test_the_attributes_of_a_callable_object_are_saved_and_functions_are_not():
    saved = LambdaLR(optimizer(1.0, 1.0), [Falling(0.5), lambda epoch: 1]).state_dict()
    assert saved["lr_lambdas"] == [{"factor": 0.5}, None]
    o = optimizer(1.0, 1.0)
    resumed = LambdaLR(o, [Falling(0.1), lambda epoch: 7])
    resumed.load_state_dict(saved)
    resumed.step()
    assert rates(o) == [0.5, 7]


def test_a_step_before_the_optimizers_is_warned_of():
    fresh = SGD([Tensor([1.0], requires_grad=True)], lr=1.0)
    schedule = StepLR(fresh, 2)
    with pytest.warns(UserWarning, match=r"^StepLR: detected call of step\(\) before optimizer.step\(\)"):
        schedule.step()
    resumed = SGD([Tensor([1.0], requires_grad=True)], lr=1.0)
    schedule = StepLR(resumed, 2)
    resumed.load_state_dict(fresh.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()


SCHEDULES = [
    lambda o: StepLR(o, 2),
    lambda o: MultiStepLR(o, [1, 4]),
    lambda o: ReduceLROnPlateau(o, patience=0),
    lambda o: ExponentialLR(o, 0.7),
    lambda o: LambdaLR(o, lambda epoch: 0.8**epoch),
    lambda o: LinearLR(o, 1.0, 0.1, 7),
    lambda o: CosineAnnealingLR(o, 12),
    lambda o: OneCycleLR(o, [1.0, 2.0], 20, pct_start=0.1, final_div_factor=10),
    lambda o: SequentialLR(o, [StepLR(o, 1), LinearLR(o, 0.4), ExponentialLR(o, 0.5)], [2, 4]),
]


def advance(schedule, epochs):
    for _ in range(epochs):
        schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))


@pytest.mark.parametrize("make", SCHEDULES)
def test_groups_keep_their_ratio(make):
    o = optimizer(1.0, 2.0)
    schedule = make(o)
    advance(schedule, 5)
    first, second = rates(o)
    assert first < 0.9 and second == pytest.approx(2 * first)
    assert schedule.get_last_lr() == [first, second]


@pytest.mark.parametrize("make", SCHEDULES)
def test_resuming_through_json_continues_the_rates(make):
    o = optimizer(1.0, 2.0)
    schedule = make(o)
    advance(schedule, 3)
    saved, options = json.loads(json.dumps(schedule.state_dict())), o.state_dict()
    resumed_optimizer = optimizer(1.0, 2.0)
    resumed = make(resumed_optimizer)
    resumed_optimizer.load_state_dict(options)
    resumed.load_state_dict(saved)
    assert resumed.get_last_lr() == schedule.get_last_lr()
    for _ in range(4):
        advance(schedule, 1)
        advance(resumed, 1)
        assert rates(resumed_optimizer) == rates(o)
        assert resumed.state_dict() == schedule.state_dict()


def test_last_epoch_continues_from_the_rates_of_the_groups():
    o = optimizer(1.0)
    advance(StepLR(o, 2, gamma=0.5), 3)
    schedule = StepLR(o, 2, gamma=0.5, last_epoch=3)
    assert schedule.last_epoch == 4 and rates(o) == [0.25]
    assert schedule.base_lrs == [1.0]


def test_errors():
    with pytest.raises(TypeError, match="StepLR: int is not an Optimizer"):
        StepLR(3, 1)
    with pytest.raises(TypeError, match="ReduceLROnPlateau: str is not an Optimizer"):
        ReduceLROnPlateau("sgd")
    with pytest.raises(ValueError, match="StepLR: step_size must be at least 1, got 0"):
        StepLR(optimizer(1.0), 0)
    with pytest.raises(KeyError, match=r"MultiStepLR: param 'initial_lr' is not specified in .*groups\[0\].*epoch 5"):
        MultiStepLR(optimizer(1.0), [1], last_epoch=5)
    with pytest.raises(ValueError, match=r"ReduceLROnPlateau: Factor should be < 1.0, got 1.5"):
        ReduceLROnPlateau(optimizer(1.0), factor=1.5)
    with pytest.raises(ValueError, match="ReduceLROnPlateau: mode must be 'min' or 'max', got 'mean'"):
        ReduceLROnPlateau(optimizer(1.0), mode="mean")
    with pytest.raises(ValueError, match="ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', got 'log'"):
        ReduceLROnPlateau(optimizer(1.0), threshold_mode="log")
    with pytest.raises(ValueError, match="ReduceLROnPlateau: expected 2 min_lrs, one a group, got 1"):
        ReduceLROnPlateau(optimizer(1.0, 2.0), min_lr=[0.1])
    with pytest.raises(NotImplementedError, match="LRScheduler: get_lr is missing"):
        LRScheduler(optimizer(1.0))
    with pytest.raises(ValueError, match=r"LambdaLR: Expected 2 lr_lambdas, one a group, got 1"):
        LambdaLR(optimizer(1.0, 2.0), [len])
    with pytest.raises(ValueError, match=r"LinearLR: start_factor must be greater than 0 and at most 1, got 1.5"):
        LinearLR(optimizer(1.0), 1.5)
    with pytest.raises(ValueError, match=r"LinearLR: end_factor must be between 0 and 1, got -1"):
        LinearLR(optimizer(1.0), end_factor=-1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "You must define either total_steps or both epochs and steps_per_epoch, got None, None, None"),
        ({"total_steps": 2.5}, "Expected positive integer total_steps, but got 2.5"),
        ({"epochs": 2, "steps_per_epoch": 0}, "Expected positive integer steps_per_epoch, but got 0"),
        ({"total_steps": 3, "pct_start": 1}, "pct_start must be a float between 0 and 1, got 1"),
        ({"total_steps": 3, "anneal_strategy": "exp"}, "anneal_strategy must be one of 'cos' or 'linear', got 'exp'"),
        ({"total_steps": 3, "max_momentum": [0.9]}, "max_momentum must have the same length as optimizer.*, 2, got 1"),
    ],
)
def test_errors_of_one_cycle(options, text):
    with pytest.raises(ValueError, match=f"^OneCycleLR: {text}"):
        OneCycleLR(optimizer(1.0, 2.0), 0.5, **options)


def test_one_cycle_ends():
    schedule = OneCycleLR(optimizer(1.0), 0.5, 2)
    advance(schedule, 2)
    with pytest.raises(ValueError, match=r"OneCycleLR: Tried to step 3 times. The specified number of total steps is 2"):
        schedule.step()


def test_errors_of_sequential():
    o = optimizer(1.0)
    step, sequence = StepLR(o, 1), SequentialLR(o, [StepLR(o, 1)], [])
    for schedules, milestones, text in (
        ([], [], "expects at least one scheduler, but got no scheduler"),
        ([step, ReduceLROnPlateau(o)], [1], "does not support ReduceLROnPlateau.* at index 1"),
        ([sequence, step], [1], "does not support .* nor a SequentialLR in another.* at index 0"),
        ([StepLR(optimizer(1.0), 1)], [], "expects all schedulers to belong to the same optimizer, StepLR at index 0"),
        (
            [step],
            [1],
            "expects number of schedulers provided .* milestone points, got 1 schedulers and 1 milestones",
        ),
    ):
        with pytest.raises(ValueError, match=f"^SequentialLR: {text}"):
            SequentialLR(o, schedules, milestones)
    with pytest.raises(TypeError, match="SequentialLR: schedulers must be schedules, number 1 is int"):
        SequentialLR(o, [step, 3], [1])


def test_a_sequence_refuses_the_state_of_another_before_anything_changes():
    o = optimizer(1.0)
    schedule = SequentialLR(o, [StepLR(o, 1), StepLR(o, 2)], [3])
    other = SequentialLR(o, [StepLR(o, 5), ExponentialLR(o, 0.5)], [4])
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=r"^StepLR: its state is .*step_size"):
        schedule.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"^SequentialLR: it has 2 schedulers, got the states of 1"):
        schedule.load_state_dict({**before, "_schedulers": before["_schedulers"][:1]})
    assert schedule.state_dict() == before


def test_a_state_that_does_not_fit_is_refused_before_anything_changes():
    schedule = StepLR(optimizer(1.0), 2)
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=r"StepLR: its state is \[.*'step_size'\], got \[.*'milestones'\]"):
        schedule.load_state_dict(MultiStepLR(optimizer(1.0), [3]).state_dict())
    with pytest.raises(ValueError, match="StepLR: the optimizer has 1 parameter groups, got the rates of 2"):
        schedule.load_state_dict(StepLR(optimizer(1.0, 2.0), 7).state_dict())
    assert schedule.state_dict() == before
