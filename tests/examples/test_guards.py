"""guards.py: the lock, the disk's room, signals, and where a number stopped being finite."""

import errno
import os
import re
import signal
import subprocess
import sys
import tracemalloc

import fake_cupy
import guards
import numpy as np
import pytest
from guards import Disk, DiskFullError, RunLockedError, Signals, all_finite, first_not_finite, locked
from model import AlexNet

import minidl.nn.functional as F
from minidl import Device, Tensor, nn
from minidl.ops.relu import ReLUFunction

MB = 1 << 20

# ------------------------------------------------------------------------------------------------------------------ lock


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path):
        with pytest.raises(RunLockedError) as caught, locked(tmp_path):
            pass
        assert re.match(rf"{tmp_path}: process {os.getpid()} on \S* ?is at work in this folder; wait", str(caught.value))
    with locked(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_lock_is_freed_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_another_process_is_refused_and_death_frees_the_lock(tmp_path):
    hold = "import sys, pathlib, guards\nwith guards.locked(pathlib.Path(sys.argv[1])): print(1, flush=True), sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(guards.__file__), *sys.path])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout.readline() == b"1\n"
        with pytest.raises(RunLockedError, match=f"process {holder.pid} on "), locked(tmp_path):
            pass
        holder.kill()
    with locked(tmp_path):
        pass


def test_a_holder_that_has_not_said_who_it_is(tmp_path):
    with locked(tmp_path):
        (tmp_path / ".lock.json").write_text("")
        with pytest.raises(RunLockedError, match=": another process is at work"), locked(tmp_path):
            pass


def test_folders_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    touch = guards.Path.touch

    def refuse(self, *args, **kwargs):
        if self.parent.name == "checkpoints":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        touch(self, *args, **kwargs)

    monkeypatch.setattr(guards.Path, "touch", refuse)
    text = f"{tmp_path}/checkpoints: files must be writable in a run folder, got: {os.strerror(errno.EROFS)}"
    with pytest.raises(PermissionError, match=f"^{text}$"), locked(tmp_path):
        pass


# ------------------------------------------------------------------------------------------------------------------ disk


def free_space(monkeypatch, size):
    usage = guards.shutil.disk_usage("/")._replace(free=size)
    monkeypatch.setattr(guards.shutil, "disk_usage", lambda folder: usage)


def test_the_reserve_is_real_and_goes(tmp_path):
    (tmp_path / ".reserve").write_bytes(bytes(9 * MB))  # a killed process left it
    with Disk(tmp_path, 2 * MB, lambda: 1):
        about = (tmp_path / ".reserve").stat()
        assert about.st_size == 3 * MB and about.st_blocks * 512 >= 3 * MB
    assert not (tmp_path / ".reserve").exists()


def test_the_reserve_that_a_killed_process_left_counts_as_free(tmp_path, monkeypatch):
    left, usage = tmp_path / ".reserve", guards.shutil.disk_usage("/")
    left.touch()
    monkeypatch.setattr(guards.shutil, "disk_usage", lambda folder: usage._replace(free=0 if left.exists() else 6 * MB))
    with Disk(tmp_path, 2 * MB, lambda: 1):
        pass


def test_the_reserve_without_fallocate(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with Disk(tmp_path, 2 * MB + 5, lambda: 1):
        assert (tmp_path / ".reserve").stat().st_size == 3 * MB + 5


def test_room_for_checkpoints_and_the_reserve_is_needed(tmp_path, monkeypatch):
    disk = Disk(tmp_path, 2 * MB, lambda: 4)
    free_space(monkeypatch, 15 * MB)
    assert disk.missing() == 0
    with disk:
        pass
    free_space(monkeypatch, 15 * MB - 1)
    assert disk.missing() == 1
    text = "4 checkpoints and a reserve of 3.1 MB each need 15.7 MB free, got 15.7 MB; --keep 1 needs less"
    with pytest.raises(DiskFullError, match=f"^{tmp_path}: {text}$"), disk:
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_that_does_not_fit_is_not_left(tmp_path, monkeypatch):
    def fill(handle, start, size):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", fill, raising=False)
    with pytest.raises(OSError, match="full"), Disk(tmp_path, MB, lambda: 1):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", guards.DISK_FULL)
def test_a_full_disk_gives_up_the_reserve_and_writes_again(number, tmp_path):
    disk, tries = Disk(tmp_path, MB, lambda: 1), []

    def write():
        tries.append((tmp_path / ".reserve").exists())
        if tries[-1]:
            raise OSError(number, "full")

    with disk:
        disk.write(lambda: None)
        assert not disk.full
        disk.write(write)
    assert disk.full and tries == [True, False]


def test_a_disk_that_stays_full_and_other_errors(tmp_path):
    tries = []

    def fail(number):
        tries.append(number)
        raise OSError(number, os.strerror(number))

    disk = Disk(tmp_path, MB, lambda: 1)
    with disk, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disk.write(lambda: fail(errno.EIO))
    assert not disk.full and len(tries) == 1
    for tried in (3, 4):  # without a reserve there is nothing to give up
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            disk.write(lambda: fail(errno.ENOSPC))
        assert disk.full and len(tries) == tried


# --------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted(number):
    before = signal.getsignal(number)
    with Signals() as _, (signals := Signals()):
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number
        os.kill(os.getpid(), signal.SIGTERM)  # clusters may send more than one
        assert signals.received == number
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_the_program():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# --------------------------------------------------------------------------------------------------- numbers not finite


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_bad_element_is_seen(bad, dtype, device, rng):
    host = [np.asarray(rng.standard_normal(shape), dtype) for shape in [(), (3,), (4, 5, 2, 3)]]
    host[2] = host[2].transpose(0, 3, 1, 2)  # channels-last
    with device.active():
        arrays = [(device, device.xp.asarray(a)) for a in host]
    assert all_finite(arrays) is True
    for i, place in [(0, ()), (1, (2,)), (2, (3, 2, 4, 1)), (2, (0, 0, 0, 0))]:
        broken = [a.copy(order="K") for a in host]
        broken[i][place] = bad
        with device.active():
            arrays = [(device, device.xp.asarray(a)) for a in broken]
        assert all_finite(arrays) is False


def test_finite_numbers_whose_squares_overflow():
    cpu, large = Device("cpu:0"), np.full(3, 3e38, np.float32)
    assert all_finite([(cpu, large)]) is True
    assert all_finite([(cpu, np.full(1, 1.5e19, np.float32)), (cpu, np.full(1, 1.5e19, np.float32))]) is True
    assert all_finite([(cpu, large), (Device("cpu:1"), np.array([1, np.nan], np.float32))]) is False


def test_no_array_is_finite():
    assert all_finite([]) is True


def test_nothing_is_copied_to_look():
    """Gradients have their parameters' memory: channels-last is looked at in place."""
    array = np.ones((40, 50, 20, 30), np.float32).transpose(0, 3, 1, 2)
    tracemalloc.start()
    assert all_finite([(Device("cpu:0"), array)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 20


def test_gradients_on_two_gpus(monkeypatch):
    fake_cupy.install(monkeypatch, gpus=2)
    gpus, host = [Device("cuda:0"), Device("cuda:1")], np.ones((4, 5, 2, 3), np.float32).transpose(0, 3, 1, 2)
    assert all_finite([(gpu, gpu.asarray(array)) for gpu in gpus for array in (host, host[0, 0, 0])])
    assert fake_cupy.errors == []


def two_layers():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    images = np.ones((5, 3), np.float32)
    return net, images, lambda: F.cross_entropy(net(Tensor(images)), np.zeros(5, np.int64))


def test_images_come_first():
    net, images, step = two_layers()
    images[2, 1] = np.nan
    net[0].weight.data[0, 0] = np.nan
    assert first_not_finite(net, images, step) == "1 of 15 elements of the images are not finite"
    assert first_not_finite(net, [Tensor(images)] * 2, step) == "1 of 15 elements of the images are not finite"


def test_then_parameters():
    net, images, step = two_layers()
    net[2].bias.data[1] = np.inf
    assert first_not_finite(net, images, step) == "2.bias is not finite any more"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_then_the_first_op_forward():
    net, images, step = two_layers()
    net[0].weight.data[...] = 1e30
    net[2].weight.data[...] = 1e30
    assert first_not_finite(net, images, step).startswith("it began in linear in 2, forward: 10 of 10 elements of its output")


def test_then_the_first_op_backward(monkeypatch):
    net, images, step = two_layers()
    backward = ReLUFunction.backward
    monkeypatch.setattr(ReLUFunction, "backward", lambda ctx, gy: tuple(gx + np.float32(np.nan) for gx in backward(ctx, gy)))
    assert first_not_finite(net, images, step).startswith("it began in relu in 1, backward: 20 of 20 elements of the gradient")


def test_old_gradients_do_not_count():
    net, images, step = two_layers()
    for p in net.parameters():
        p.grad = Tensor(np.full_like(p.data, np.nan))
    assert first_not_finite(net, images, step) == "the step, computed again, was finite: the machine may have made an error"


def test_a_gradient_that_overflows_in_alexnet():
    """The loss is finite; the first op on the way back that overflows is named with its layer."""
    net, images = AlexNet(5, devices="cpu:0", width=0.05).eval(), np.ones((2, 3, 224, 224), np.float32)
    for tower in net.towers:
        tower.fc7.bias.data[...] = -1e9  # so that relu gives 0, and the scores are small whatever fc8's weights are
    net.fc8.weight.data[...] = 1e30
    with np.errstate(all="ignore"):
        text = first_not_finite(net, images, lambda: F.cross_entropy(net(images), np.zeros(2, np.int64)) * 1e30)
    assert text.startswith("it began in linear in fc8, backward: ") and " are not finite " in text
