"""DistributedDataParallel on threads that stand for processes: N ranks are one rank with N times the batch."""

import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn, random
from minidl.nn.parallel import DistributedDataParallel, _fill
from minidl.optim import SGD
from minidl.random import Generator

sys.path.insert(0, str(Path(__file__).parent.parent / "distributed"))
from rank_threads import on_ranks

MIB = 1 << 20


class Net(nn.Module):
    """Convolution, dropout and a linear layer; in float64. `seed` gives its first weights."""

    def __init__(self, seed, dropped=True, second_device="cpu:0"):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Linear(4 * 6 * 6, 10)
        self.second = nn.Linear(10, 5, device=second_device)
        self.dropped = dropped
        generator = Generator(seed)
        for p in self.parameters():
            nn.init.copy_(p, 0.2 * generator.normal(p.shape, np.float64))
        self.to(np.float64)

    def forward(self, x):
        x = F.flatten(F.relu(self.conv(x)), 1)
        x = F.dropout(x, 0.5, self.dropped)
        x = F.dropout(F.tanh(self.first(x)), 0.3, self.dropped)
        return self.second(x.to(self.second.weight.device))


def batch(step, n=12):
    generator = Generator(9, step)
    return generator.normal((n, 3, 6, 6), np.float64), generator.integers(0, 5, n)


def train(net, parts, steps=20, model=None):
    """steps of SGD -> the losses, and the weights by name. parts: what of a batch this rank takes."""
    model = net if model is None else model
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(steps):
        images, labels = batch(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(Tensor(images[parts])), labels[parts])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, net.state_dict()


def on_one_rank(steps=20, **settings):
    with random.standing_in(Generator(7)):
        return train(Net(0, **settings), slice(None), steps)


def on_many(size, steps=20, cap=25, **settings):
    def run(group):
        with random.standing_in(Generator(7)):
            net = Net(group.rank, **settings)  # other weights on each rank: rank 0's count
            return train(
                net, slice(group.rank, None, size), steps, DistributedDataParallel(net, process_group=group, bucket_cap_mb=cap)
            )

    return on_ranks(size, run)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("cap", [25, 0.0005])
def test_n_ranks_are_one_rank_with_n_times_the_batch(size, cap):
    """To rounding: sums of 12 terms in another order, 20 steps; 1e-12 is 4,000 times float64's eps."""
    losses, weights = on_one_rank()
    results = on_many(size, cap=cap)
    np.testing.assert_allclose(np.mean([result[0] for result in results], axis=0), losses, rtol=1e-12)
    for _, theirs in results:
        for name, weight in weights.items():
            np.testing.assert_allclose(theirs[name], weight, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(theirs[name], results[0][1][name])


def test_dropout_takes_part_in_that():
    losses, _ = on_one_rank()
    without, _ = on_one_rank(dropped=False)
    assert losses[0] != without[0]


def test_buckets_make_no_difference_to_a_bit():
    (_, whole), *_ = on_many(3, steps=3)
    (_, many), *_ = on_many(3, steps=3, cap=0.0005)
    for name in whole:
        np.testing.assert_array_equal(whole[name], many[name])


def test_a_module_on_two_devices():
    losses, weights = on_one_rank(steps=5)
    for own, theirs in on_many(2, steps=5, second_device="cpu:1"):
        assert own[0] != losses[0]
        for name, weight in weights.items():
            np.testing.assert_allclose(theirs[name], weight, rtol=0, atol=1e-12)


def test_no_sync_sends_nothing_and_the_next_backward_sends_the_sum():
    def run(group):
        net = Net(0, dropped=False)
        model = DistributedDataParallel(net, process_group=group)
        images, labels = batch(0)
        parts = [slice(group.rank + 2 * half, None, 4) for half in range(2)]
        group.reduced.clear()
        with model.no_sync():
            F.cross_entropy(model(Tensor(images[parts[0]])), labels[parts[0]]).backward()
        sent_inside = list(group.reduced)
        F.cross_entropy(model(Tensor(images[parts[1]])), labels[parts[1]]).backward()
        return sent_inside, sum(group.reduced), net.conv.weight.grad.numpy()

    net = Net(0, dropped=False)
    images, labels = batch(0)
    F.cross_entropy(net(Tensor(images)), labels).backward()
    for sent_inside, sent, gradient in on_ranks(2, run):
        assert sent_inside == [] and sent == sum(p.numel() for p in net.parameters())
        np.testing.assert_allclose(gradient, 2 * net.conv.weight.grad.numpy(), rtol=0, atol=1e-13)


class Branches(nn.Module):
    """Two branches, of which forward uses those that it is told to."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        for p in self.parameters():
            nn.init.constant_(p, 1.0)

    def forward(self, x, names):
        return [getattr(self, name)(x) for name in names]


def test_a_parameter_that_some_ranks_do_not_use_counts_as_zero_there():
    def run(group):
        net = Branches()
        model = DistributedDataParallel(net, process_group=group, find_unused_parameters=True)
        outputs = model(Tensor(np.ones((1, 2), np.float32)), ["a"] if group.rank else ["a", "b"])
        sum(y.sum() for y in outputs).backward()
        return net.a.bias.grad.tolist(), net.b.bias.grad.tolist(), net.c.bias.grad

    assert on_ranks(2, run) == [([1.0, 1.0], [0.5, 0.5], None)] * 2


def test_without_being_told_of_it_the_next_forward_refuses():
    def run(group):
        model = DistributedDataParallel(Branches(), process_group=group)
        x = Tensor(np.ones((1, 2), np.float32))
        model(x, "a")[0].sum().backward()
        with pytest.raises(RuntimeError, match=r"4 of 6 got none \(b.bias, b.weight, c.bias, c.weight\)"):
            model(x, "a")

    on_ranks(2, run)


def test_a_forward_without_backward_is_no_fault():
    def run(group):
        net = Branches()
        model = DistributedDataParallel(net, process_group=group)
        x = Tensor(np.ones((1, 2), np.float32))
        model(x, "abc")
        sum(y.sum() for y in model(x, "abc")).backward()
        with minidl.no_grad():
            model(x, "a")
        return net.a.bias.grad.tolist()

    assert on_ranks(2, run) == [[1.0, 1.0]] * 2


def test_two_losses_with_parameters_of_their_own():
    def run(group):
        net = Branches()
        a, b, c = DistributedDataParallel(net, process_group=group)(Tensor(np.ones((1, 2), np.float32)), "abc")
        a.sum().backward()
        (b * (group.rank + 1)).sum().backward()
        before = net.a.weight.grad.numpy()
        c.sum().backward()
        return before.tolist(), net.b.bias.grad.tolist()

    assert on_ranks(2, run) == [([[1.0, 1.0]] * 2, [1.5, 1.5])] * 2


def test_two_losses_of_the_same_parameters_are_refused():
    def run(group):
        model = DistributedDataParallel(nn.Linear(2, 2), process_group=group)
        y = model(Tensor(np.ones((1, 2), np.float32)))
        first, second = y.sum(), (y * y).sum()
        first.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match=r"(bias|weight) got a second one after the first was sent; add up the losses"):
            second.backward()

    on_ranks(2, run)


def test_buffers_are_those_of_rank_0_in_each_forward_that_trains():
    def run(group):
        net = nn.BatchNorm1d(2)
        model = DistributedDataParallel(net, process_group=group)
        for step in range(3):
            model(Tensor(np.array([[1.0, step], [group.rank, 4.0]], np.float32)))
        model.eval()
        model(Tensor(np.ones((2, 2), np.float32)))
        return net.running_mean.numpy(), group.rank

    (first, _), (second, _) = on_ranks(2, run)
    assert (first != second).any()  # the last forward's own images
    # rank 1 had rank 0's statistics before its last forward: 0.1 of the difference of the last batch's means is left
    np.testing.assert_allclose(second - first, 0.1 * np.array([0.5, 0.0]), atol=1e-7)


def test_ranks_with_other_modules_are_refused():
    def run(group):
        with pytest.raises(ValueError, match=r"rank 0 has weight float32 \(2, 3\).*, rank 1 on here weight float32 \(2, 4\)"):
            DistributedDataParallel(nn.Linear(3 + group.rank, 2), process_group=group)

    on_ranks(2, run)


def test_a_bucket_is_sent_while_backward_goes_on():
    """The last layer's gradient is on its way before the first layer's backward begins."""

    def run(group):
        first, last = nn.Linear(4, 4), nn.Linear(4, 4)
        model = DistributedDataParallel(nn.Sequential(first, last), process_group=group, bucket_cap_mb=1e-6)
        sent = []
        first.weight.register_hook(lambda gradient: sent.append(model._next))
        model(Tensor(np.ones((2, 4), np.float32))).sum().backward()
        return sent

    assert all(sent[0] >= 2 for sent in on_ranks(2, run))


def test_buckets_follow_the_order_of_the_first_backward():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.used_last, self.used_first = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

        def forward(self, x):
            return self.used_last(self.used_first(x))

    def run(group):
        net = Crossed()
        model = DistributedDataParallel(net, process_group=group, bucket_cap_mb=1e-6)
        names = lambda: [model._names[bucket.parameters[0]] for bucket in model._buckets]
        before = names()
        model(Tensor(np.ones((2, 2), np.float32))).sum().backward()
        return before, names()

    assert on_ranks(2, run) == [(["used_first.weight", "used_last.weight"], ["used_last.weight", "used_first.weight"])] * 2


def test_buckets_hold_so_many_bytes_of_one_device_and_dtype():
    parameter = lambda kib, **settings: nn.Parameter(Tensor(np.zeros(kib * 256, np.float32), **settings))
    small = [parameter(400) for _ in range(8)]
    large, other, double = parameter(5000), parameter(1, device="cpu:1"), parameter(1, dtype=np.float64)
    buckets = _fill([*small, large, other, double], 2)
    assert [len(bucket.parameters) for bucket in buckets] == [2, 5, 1, 1, 1, 1]  # the first has 1 MiB at most, others 2
    for bucket in buckets:
        assert len({(p.device, p.dtype) for p in bucket.parameters}) == 1
        assert len(bucket.parameters) == 1 or sum(p.data.nbytes for p in bucket.parameters) <= 2 * MIB


def test_a_gradient_keeps_its_memory_layout():
    def run(group):
        net = Net(0)
        DistributedDataParallel(net, process_group=group)(Tensor(batch(0)[0][:4])).sum().backward()
        return net.conv.weight.grad.data.strides == net.conv.weight.data.strides

    assert on_ranks(2, run) == [True, True]


@pytest.mark.parametrize(
    "make, text",
    [
        (
            lambda group: DistributedDataParallel(nn.ReLU(), process_group=group),
            "at least 1 parameter must require a gradient, got none",
        ),
        (
            lambda group: DistributedDataParallel(nn.Linear(1, 1), process_group=group, bucket_cap_mb=0),
            "bucket_cap_mb must be above 0, got 0",
        ),
        (
            lambda group: DistributedDataParallel(nn.Linear(1, 1), ["cpu:1"], process_group=group),
            "must be the module's one device, got cpu:1 for a module on cpu:0",
        ),
    ],
)
def test_errors(make, text):
    def run(group):
        with pytest.raises(ValueError, match=text):
            make(group)

    on_ranks(1, run)


def test_without_a_group():
    with pytest.raises(RuntimeError, match="call init_process_group first"):
        DistributedDataParallel(nn.Linear(1, 1))


def test_gradients_of_a_gpu_go_by_the_host(monkeypatch):
    gpu = fake_cupy.install(monkeypatch)
    results = {}
    for device in ("cpu:0", "cuda:0"):

        def run(group, device=device):
            with random.standing_in(Generator(7)):
                net = Net(0, second_device=device)
                _, weights = train(net, slice(None), 3, DistributedDataParallel(net, process_group=group))
                return weights

        (results[device],) = on_ranks(1, run)
    for name, weight in results["cpu:0"].items():
        np.testing.assert_allclose(results["cuda:0"][name], weight, rtol=0, atol=1e-14)
    assert not gpu.errors
