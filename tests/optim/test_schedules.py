"""Learning rate schedules: proportions, resuming, errors. Values are compared with PyTorch's in test_optim_torch.py."""

import json

import pytest

from minidl.optim import SGD, LRScheduler, MultiStepLR, ReduceLROnPlateau, StepLR
from minidl.tensor import Tensor


def optimizer(*rates):
    return SGD([{"params": [Tensor([1.0], requires_grad=True)], "lr": lr} for lr in rates])


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


SCHEDULES = [lambda o: StepLR(o, 2), lambda o: MultiStepLR(o, [1, 4]), lambda o: ReduceLROnPlateau(o, patience=0)]


def advance(schedule, epochs):
    for _ in range(epochs):
        schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))


@pytest.mark.parametrize("make", SCHEDULES)
def test_groups_keep_their_ratio(make):
    o = optimizer(1.0, 2.0)
    schedule = make(o)
    advance(schedule, 5)
    first, second = rates(o)
    assert first < 0.5 and second == 2 * first
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


def test_a_state_that_does_not_fit_is_refused_before_anything_changes():
    schedule = StepLR(optimizer(1.0), 2)
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=r"StepLR: its state is \[.*'step_size'\], got \[.*'milestones'\]"):
        schedule.load_state_dict(MultiStepLR(optimizer(1.0), [3]).state_dict())
    with pytest.raises(ValueError, match="StepLR: the optimizer has 1 parameter groups, got the rates of 2"):
        schedule.load_state_dict(StepLR(optimizer(1.0, 2.0), 7).state_dict())
    assert schedule.state_dict() == before
