"""Ledger: which memory was alive when, whose it was, and when it went, in steps small enough to follow by hand."""

import re

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Function, Tensor, nn
from minidl.study import Ledger

N = 1000
BYTES = 4 * N  # of a tensor in these tests


class Slow(Function):
    """Identity that advances a clock: forward by 2 seconds, backward by 3."""

    name = "slow"
    clock = 0.0

    def forward(ctx, x):
        Slow.clock += 2.0
        return x * 1

    def backward(ctx, gy):
        Slow.clock += 3.0
        return (gy * 1,)


@pytest.fixture
def x():
    return Tensor(np.ones(N, np.float32), requires_grad=True)


def test_every_piece_of_memory_from_its_birth_to_its_end(x):
    """relu saves its output, which mul does not need: (x) -> relu -> y, times 2 -> z."""
    with Ledger() as ledger:
        y = F.relu(x)
        z = y * 2.0
        del y
        z.backward(np.ones(N, np.float32))
        del z
    assert ledger.events == ["relu forward", "mul forward", "mul backward", "relu backward"]
    pieces = [(p.owner, p.nbytes, p.born, p.gone) for p in ledger.pieces]
    assert pieces[:3] == [
        ("the batch", BYTES, 0, None),
        ("relu: output", BYTES, 0, 3),  # relu keeps it for its backward
        ("mul: output", BYTES, 1, 3),
    ]
    began, of_y, of_x = ledger.pieces[3:6]
    assert (began.owner, began.born) == ("the gradient that backward began with", 2)
    assert (of_y.owner, of_y.nbytes, of_y.born) == ("mul: gradient of x", BYTES, 2)
    assert (of_x.owner, of_x.born, of_x.gone) == ("relu: gradient of x", 3, None)  # x.grad


def test_the_timeline_is_the_sum_of_what_is_alive(x):
    with Ledger() as ledger:
        F.relu(F.relu(x) * 2.0).sum().backward()
    for i, (event, alive) in enumerate(ledger.timeline):
        assert event == ledger.events[i]
        assert alive == sum(p.nbytes for p in ledger.pieces if p.alive(i))
    assert ledger.timeline[0][1] == 2 * BYTES  # x and relu's output
    assert ledger.peak.nbytes == max(alive for _, alive in ledger.timeline)


def test_the_peak_and_its_owners():
    """Forward keeps the output of each layer; the last one's backward adds a gradient."""
    model = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 10))
    with Ledger() as ledger:
        model(minidl.randn(5, 100)).sum().backward()
    peak = ledger.peak
    assert peak.event == "0 (linear) backward"
    owners = {p.owner: p.nbytes for p in peak.pieces}
    assert owners["0.weight"] == owners["0 (linear): gradient of 0.weight"] == 40_000
    assert owners["1.weight"] == owners["1 (linear): gradient of 1.weight"] == 4_000
    assert [p.nbytes for p in peak.pieces] == sorted((p.nbytes for p in peak.pieces), reverse=True)
    assert sum(p.nbytes for p in peak.pieces) == peak.nbytes


def test_an_op_of_which_no_gradient_came_has_no_backward(x):
    with Ledger() as ledger:
        unused = F.relu(x)
        F.relu(x).sum().backward()
    assert [r.backward_event is None for r in ledger.records] == [True, False, False]
    assert ledger.records[0].freed_event is None and ledger.records[1].freed_event == 4
    assert unused.shape == (N,)


def test_what_is_retained_is_not_freed(x):
    with Ledger() as ledger:
        y = F.relu(x)
        y.backward(np.ones(N, np.float32), retain_graph=True)
    assert ledger.records[0].freed_event is None and ledger.records[0].backward_event == 1


def test_times_are_those_of_each_op(x, monkeypatch):
    monkeypatch.setattr("minidl.study.step.trace.time.perf_counter", lambda: Slow.clock)
    with Ledger() as ledger:
        Slow.apply(F.relu(x)).sum().backward()
    relu, slow, _ = ledger.records
    assert (slow.forward_seconds, slow.backward_seconds) == (2.0, 3.0)
    assert (relu.forward_seconds, relu.backward_seconds) == (0.0, 0.0)
    line = next(row for row in ledger.operations().splitlines() if row.startswith("slow"))
    assert line.split()[-2:] == ["2000.000", "3000.000"]


def test_the_text(x):
    model = nn.Sequential(nn.ReLU(), nn.Linear(N, 2))
    with Ledger() as ledger:
        model(x.reshape(1, N)).sum().backward()
    operations = ledger.operations().splitlines()
    assert re.split(r"  +", operations[0])[:4] == ["op", "layer", "device", "output"]
    assert re.match(r"relu +0 +cpu:0 +1 x 1000 .* 4,000  0 \(relu\) backward$", operations[2])
    assert re.match(r"linear +1 +cpu:0 +1 x 2 ", operations[3])
    memory = ledger.memory().splitlines()
    alive = dict(ledger.timeline)
    for line, event in zip(memory[1:], ledger.events, strict=False):
        assert line.startswith(event) and f" {alive[event]:,} " in f"{line} "
    assert max(line.count("#") for line in memory) == 40
    assert f"at the peak, {ledger.peak.event}, {ledger.peak.nbytes:,} bytes were alive:" in memory
    assert ledger.text() == ledger.operations() + "\n\n" + ledger.memory()


def test_many_owners_are_summed_up(x):
    with Ledger() as ledger:
        for _ in range(12):
            x = F.relu(x)
        x.sum().backward()
    last = ledger.memory().splitlines()[-1]
    named = ledger.peak.pieces[:10]
    assert last.split() == [f"{ledger.peak.nbytes - sum(p.nbytes for p in named):,}", str(len(ledger.peak.pieces) - 10), "more"]


def test_before_any_op():
    ledger = Ledger()
    assert ledger.timeline == [] and ledger.memory() == "no op ran"
    with pytest.raises(ValueError, match="Ledger: at least 1 op must have run, got 0"):
        _ = ledger.peak


def test_a_leaf_s_gradient_that_is_a_copy_is_met(x):
    """The gradient is a view of one number; the leaf makes itself a whole array."""
    with Ledger() as ledger:
        x.sum().backward()
    assert [(p.owner, p.nbytes) for p in ledger.pieces if p.owner == "gradient of a leaf"] == [("gradient of a leaf", BYTES)]
