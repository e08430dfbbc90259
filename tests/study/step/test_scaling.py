"""What several ranks would do, worked out by hand."""

import math

import numpy as np
import pytest

from minidl import nn
from minidl.study.models import load_model
from minidl.study.step import scaling as module
from minidl.study.step.scaling import Layer, Measured, Scaling, data_parallel, hybrid, scaling

MB = 1e6
# 40 MB of gradients in each of two layers, that take 1 s and 3 s of backward; forward takes 2 s
STEP = Measured(10, 2.0, 4.0, (Layer("low", 10_000_000, 0.75, 0), Layer("high", 10_000_000, 0.25, 5_000)), 1_000_000)


def test_messages_that_backward_outlasts_cost_nothing_but_the_last():
    found = data_parallel(STEP, 2, 100 * MB, 0.0)
    assert found.sent == 80 * MB  # 2 (N - 1)/N = 1
    # high is full at 3 s, and through at 3.4; low at 6 s, and through at 6.4
    assert found.seconds == pytest.approx(6.4) and found.waited == pytest.approx(0.4)


def test_messages_that_outlast_backward_queue_up():
    found = data_parallel(STEP, 2, 10 * MB, 0.0)
    assert found.seconds == pytest.approx(3 + 4 + 4) and found.waited == pytest.approx(5)


def test_each_bucket_has_the_latency_of_its_messages():
    found = data_parallel(STEP, 4, 1e30, 0.1)
    assert found.seconds == pytest.approx(6 + 2 * 3 * 0.1) and found.sent == 2 * 3 / 4 * 80 * MB


def test_one_rank_sends_nothing():
    assert data_parallel(STEP, 1, 1.0, 1.0) == hybrid(STEP, 1, 1.0, 1.0) == module.Prediction(6.0, 0.0, 0.0)


def test_small_layers_share_a_bucket():
    step = Measured(1, 0.0, 2.0, tuple(Layer(name, 1000, 0.5, 0) for name in "ab"), 0)
    assert data_parallel(step, 2, 1e30, 0.1).seconds == pytest.approx(2 + 2 * 0.1)


def test_the_hybrid_sends_activations_of_what_is_fully_connected():
    found = hybrid(STEP, 2, 100 * MB, 0.0)
    assert found.sent == 40 * MB + 2 * 1 * 4 * 10 * 5_000
    assert found.seconds == pytest.approx(6.4 + 0.4 * MB / (100 * MB))


def test_crossovers():
    found = Scaling("Net", STEP, (2,), 1.0, 0.0)
    assert found.crossovers() == (4 * 20_000_000 / 1_000_000, 10_000_000 / 5_000)
    alone = Measured(1, 1.0, 1.0, (Layer("a", 10, 1.0, 0),), 0)
    assert Scaling("Net", alone, (2,), 1.0, 0.0).crossovers() == (math.inf, math.inf)


def test_at_the_crossover_both_send_as_much():
    _, batch = Scaling("Net", STEP, (2,), 1.0, 0.0).crossovers()
    for ranks in (2, 4, 8):
        step = Measured(round(batch / ranks), 2.0, 4.0, STEP.layers, 0)
        assert hybrid(step, ranks, 1.0, 0.0).sent == pytest.approx(data_parallel(step, ranks, 1.0, 0.0).sent)


def test_alexnet_by_the_numbers_of_the_paper(monkeypatch):
    monkeypatch.setattr(module, "_times", lambda model, shape: (1.0, 2.0))
    found = scaling(load_model("alexnet"), (128, 3, 224, 224), [8], 1e9)
    assert found.step.parameters == 60_965_224 and found.step.crosses == 2 * 234_496
    assert found.step.connected == (9216 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000, 9216 + 4096 + 4096)
    towers, batch = found.crossovers()
    assert towers == pytest.approx(4 * 60_965_224 / 468_992) and batch == pytest.approx(58_631_144 / 17_408)
    text = found.text()
    assert "Two ranks send less than two towers from 520 images a rank on" in text
    assert "Data parallel sends less than the hybrid from a batch of 3,368 on" in text
    assert "426.8" in text  # MB that each of 8 ranks sends: 2 * 7/8 * 243.9


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4))
    before = model.state_dict()
    found = scaling(model, (5, 3), [1, 2], 1e9)
    assert found.step.images == 5 and found.step.forward > 0 and found.step.backward > 0
    assert model[0].weight.grad is None
    np.testing.assert_array_equal(model.state_dict()["0.weight"], before["0.weight"])


@pytest.mark.parametrize("ranks, bandwidth, latency", [([0], 1.0, 0.0), ([], 1.0, 0.0), ([1], 0.0, 0.0), ([1], 1.0, -1.0)])
def test_errors(ranks, bandwidth, latency):
    with pytest.raises(ValueError, match=r"ranks must be 1 or more, bandwidth above 0, latency 0 or more, got"):
        scaling(nn.Linear(3, 4), (5, 3), ranks, bandwidth, latency)
