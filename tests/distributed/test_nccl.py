"""What goes from GPU to GPU, on a stand-in for CuPy and NCCL whose ranks are threads."""

import sys
import threading

import fake_cupy
import fake_nccl
import numpy as np
import pytest
from emulator import emulator
from rank_threads import on_ranks

import minidl.distributed as dist
import minidl.nn.functional as F
from minidl import Device, DeviceError, Tensor, nn, random
from minidl.device import load_nccl
from minidl.distributed.nccl import NCCL
from minidl.nn.parallel import DistributedDataParallel
from minidl.optim import SGD
from minidl.random import Generator


@pytest.fixture(autouse=True)
def gpus(monkeypatch):
    cupy = fake_cupy.install(monkeypatch, gpus=4)
    fake_nccl.install(cupy, monkeypatch)
    yield cupy
    assert fake_cupy.errors == []


def by_nccl(size, function, per_rank=1):
    """function(group, this rank's GPUs) on each rank."""

    def run(group):
        group.nccl = NCCL(group)
        first = group.rank * per_rank
        return function(group, [Device(f"cuda:{first + i}") for i in range(per_rank)])

    return on_ranks(size, run)


# --------------------------------------------------------------------------------------------------------- exchanges


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
@pytest.mark.parametrize("op, expected", [("SUM", [3, 3, 3]), ("PRODUCT", [0, 2, 2]), ("MIN", [0, 1, 1]), ("MAX", [3, 2, 2])])
def test_all_reduce(op, expected, dtype):
    def run(group, gpus):
        x = Tensor(np.array([3 * group.rank, 1 + group.rank, 2 - group.rank], dtype), device=gpus[0])
        dist.all_reduce(x, dist.ReduceOp[op], group)
        return x.numpy()

    for result in by_nccl(2, run):
        np.testing.assert_array_equal(result, np.array(expected, dtype))


@pytest.mark.parametrize("dtype", ["f4", "?", "i8"])
def test_broadcast_of_memory_that_is_not_in_c_order(dtype):
    def run(group, gpus):
        x = Tensor((np.arange(6) + group.rank).astype(dtype).reshape(2, 3).T, device=gpus[0])
        dist.broadcast(x, 1, group)
        return x.numpy()

    for result in by_nccl(3, run):
        np.testing.assert_array_equal(result, (np.arange(6) + 1).astype(dtype).reshape(2, 3).T)


def test_it_runs_on_the_copy_stream_and_is_not_done_before_all_have_come():
    asked = threading.Event()

    def run(group, gpus):
        x = Tensor(np.ones(4, np.float32), device=gpus[0])
        dist.all_reduce(x, group=group)  # at the first one the communicators meet
        if group.rank == 1:
            assert asked.wait(fake_nccl.PATIENCE)
            dist.all_reduce(x, group=group)
        else:
            work = dist.all_reduce(x, group=group, async_op=True)
            assert np.isnan(x.data._array).all() and not work.is_completed()
            asked.set()
            work.wait()
            assert work.is_completed()
        assert gpus[0].copy_stream.name in [stream for _, rank, _, stream in fake_nccl.calls if rank == group.rank]
        return x.tolist()

    assert by_nccl(2, run) == [[4.0] * 4] * 2


def test_a_host_tensor_goes_as_before():
    def run(group, gpus):
        x = Tensor([1.0 + group.rank])
        dist.all_reduce(x, group=group)
        return x.tolist()

    assert by_nccl(2, run) == [[3.0], [3.0]] and fake_nccl.calls == []


# --------------------------------------------------------------------------------------------------------- training


class Towers(nn.Module):
    """A net in float64 on one device or two, whose largest parameter has a bucket of its own."""

    def __init__(self, seed, *devices):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, device=devices[0])
        self.hidden = nn.Linear(4 * 6 * 6, 10, device=devices[0])
        self.out = nn.Linear(10, 5, device=devices[-1])
        generator = Generator(seed)
        for p in self.parameters():
            nn.init.copy_(p, 0.2 * generator.normal(p.shape, np.float64))
        self.to(np.float64)

    def forward(self, x):
        x = F.flatten(F.relu(self.conv(x)), 1)
        x = F.dropout(F.tanh(self.hidden(x)), 0.3, True)
        return self.out(x.to(self.out.weight.device))


def train(net, first, last, parts, model=None, steps=3):
    """The mean losses of steps of SGD on these images of the batch, and the weights."""
    optimizer, losses = SGD(net.parameters(), lr=0.1, momentum=0.9), []
    for step in range(steps):
        generator = Generator(9, step)
        images, labels = generator.normal((12, 3, 6, 6), np.float64)[parts], generator.integers(0, 5, 12)[parts]
        optimizer.zero_grad()
        loss = F.cross_entropy((model or net)(Tensor(images, device=first)), Tensor(labels, device=last))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, net.state_dict()


@pytest.mark.parametrize("per_rank", [1, 2])
@pytest.mark.parametrize("cap", [25, 0.005])
def test_two_ranks_are_one_with_the_whole_batch(per_rank, cap):
    """As in tests/nn/test_distributed_data_parallel.py; with two devices a rank, each has its own communicator."""
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    with random.standing_in(Generator(7)):
        losses, weights = train(Towers(0, Device("cpu")), "cpu", "cpu", slice(None))

    def run(group, gpus):
        with random.standing_in(Generator(7)):
            net = Towers(group.rank, *gpus)
            model = DistributedDataParallel(net, process_group=group, bucket_cap_mb=cap)
            found = train(net, gpus[0], gpus[-1], slice(group.rank, None, 2), model)
        return *found, len(group.nccl._communicators), group.reduced

    results = by_nccl(2, run, per_rank)
    np.testing.assert_allclose(np.mean([found[0] for found in results], axis=0), losses, rtol=1e-12)
    for _, theirs, communicators, on_the_host in results:
        assert (communicators, on_the_host) == (per_rank, [])
        for name, weight in weights.items():
            np.testing.assert_allclose(theirs[name], weight, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(theirs[name], results[0][1][name])


def test_towers_in_another_order_on_a_rank_are_refused():
    def run(group, gpus):
        net = Towers(0, *gpus)
        if group.rank == 1:
            net.hidden.to(gpus[1])
        with pytest.raises(ValueError, match=r"hidden.weight .* on its cuda device 0, rank 1 on here .* on its cuda device 1"):
            DistributedDataParallel(net, process_group=group)

    by_nccl(2, run, per_rank=2)


# ----------------------------------------------------------------------------------------------------------- faults


def test_two_ranks_with_one_gpu_are_named():
    def run(group, gpus):
        x = Tensor([1.0], device="cuda:2")
        with pytest.raises(dist.DistributedError, match=r"a GPU of its own, ranks 0 and 1 on here both have 0000:02:00.0"):
            dist.all_reduce(x, group=group)

    by_nccl(2, run)


def test_an_error_that_nccl_reports_ends_all_communicators_and_all_that_follows():
    def run(group, gpus):
        x = Tensor([1.0], device=gpus[0])
        dist.all_reduce(x, group=group)
        if group.rank == 0:
            monkeyed = group.nccl._communicators[gpus[0]]._meeting
            work = dist.all_reduce(x, group=group, async_op=True)
            monkeyed.error = "unhandled system error"
            with pytest.raises(dist.DistributedError, match=r"1 float32 on cuda:0: NCCL reports unhandled system error"):
                work.wait()
            with pytest.raises(dist.DistributedError, match="unhandled system error"):
                dist.all_reduce(x, group=group)
            assert group.nccl._communicators[gpus[0]]._aborted
            fake_cupy.errors.clear()  # what was aborted is never read

    by_nccl(2, run)


def test_a_rank_that_does_not_come_is_waited_for_so_long():
    def run(group, gpus):
        x = Tensor([1.0], device=gpus[0])
        dist.all_reduce(x, group=group)
        if group.rank == 0:
            group.timeout = 0.01
            with pytest.raises(dist.DistributedError, match=r"on cuda:0: every rank must come within 0.01 s"):
                dist.all_reduce(x, group=group)
            fake_cupy.errors.clear()

    by_nccl(2, run)


def test_a_dtype_that_nccl_lacks():
    def run(group, gpus):
        with pytest.raises(TypeError, match=r"a dtype must be of int8, .* float64, got bool"):
            dist.all_reduce(Tensor(np.array([True]), device=gpus[0]), group=group)

    by_nccl(1, run)


def test_without_the_library_it_says_so(monkeypatch):
    monkeypatch.setattr(sys.modules["cupy.cuda.nccl"], "available", False)
    with pytest.raises(DeviceError, match=r"CuPy finds no NCCL, libnccl.so.2; pip install nvidia-nccl-cu13"):
        load_nccl()
    monkeypatch.setattr(fake_cupy, "devices", 0)
    with pytest.raises(DeviceError, match="CuPy found 0"):
        load_nccl()


# ------------------------------------------------------------------------------------------- what the stand-in refuses


def ask(gpu, array, communicator, count=None, dtype=7, stream=None, wait=True):
    """An all-reduce of a whole array on the copy stream, or what is given instead."""
    produced = gpu.record()
    with gpu.copying():
        if wait:
            gpu.copy_stream.wait_event(produced)
        at, where = array.data.ptr, gpu.copy_stream.ptr if stream is None else stream
        communicator.allReduce(at, at, array.size if count is None else count, dtype, 0, where)
    with gpu.active():
        gpu.stream.wait_event(gpu.copy_stream.record())


def alone(gpu):
    with gpu.active():
        return fake_nccl.NcclCommunicator(1, fake_nccl.get_unique_id(), 0), gpu.xp.ones(3, np.float32)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"wait": False}, "uses what stream.* wrote, with no event in between"),
        ({"count": 4}, "4 of float32 are read, the memory ends after 12 bytes"),
        ({"dtype": 8}, "float32 is read as float64"),
        ({"stream": 0}, "a stream of another GPU than 0, or the null stream"),
    ],
)
def test_a_request_that_is_wrong_is_refused(wrong, message):
    gpu = Device("cuda:0")
    communicator, array = alone(gpu)
    with pytest.raises(RuntimeError, match=message):
        ask(gpu, array, communicator, **wrong)
    ask(gpu, array, communicator)


def test_another_gpu_s_communicator_memory_and_stream_are_refused():
    here, there = Device("cuda:0"), Device("cuda:1")
    communicator, array = alone(here)
    other, its = alone(there)
    with pytest.raises(RuntimeError, match="a communicator of GPU 1 is used while GPU 0 is current"):
        ask(here, array, other)
    with pytest.raises(RuntimeError, match="memory of another GPU than 0"):
        ask(here, its, communicator)
    with pytest.raises(RuntimeError, match="a stream of another GPU than 0"):
        ask(here, array, communicator, stream=there.copy_stream.ptr)
    communicator.abort()
    with pytest.raises(RuntimeError, match="was aborted"):
        ask(here, array, communicator)
    with pytest.raises(TypeError, match="expected bytes, got tuple"):
        fake_nccl.NcclCommunicator(1, (0,) * 128, 0)


@pytest.mark.parametrize("counts, ops", [((2, 3), ("SUM", "SUM")), ((3, 3), ("SUM", "MAX"))])
def test_ranks_that_ask_for_different_things_are_refused(counts, ops):
    def run(group, gpus):
        x = Tensor(np.ones(counts[group.rank], np.float32), device=gpus[0])
        with pytest.raises(dist.DistributedError, match="ranks ask for different things"):
            dist.all_reduce(x, dist.ReduceOp[ops[group.rank]], group)
        fake_cupy.errors.clear()

    by_nccl(2, run)
