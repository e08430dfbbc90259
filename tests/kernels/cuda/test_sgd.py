"""minidl.kernels.cuda.sgd against the plain functions. On the CPU every bit is the same; a GPU may keep more bits of a product
that is added to something, which spares a rounding."""

import fake_cupy
import numpy as np
import pytest

from minidl import Tensor
from minidl.kernels import REPLACEMENTS
from minidl.kernels.cuda import sgd as kernels
from minidl.kernels.cuda.sgd import sgd_update, sgd_update_2012
from minidl.optim import SGD
from minidl.optim import sgd as plain

SIZES = [0, 1, 3, 255, 256, 257, 1023, 1024, 1025, 5003]  # a block has 256 threads, each with 4 elements
RATES = {"rich": (0.0123, 0.9, 5e-4), "no decay": (0.1, 0.85, 0.0), "no step": (0.0, 0.9, 0.01), "no momentum": (0.3, 0.0, 0.2)}


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def updates():
    """Name, replacement, plain function, what comes after w, g, v; whether v may be None."""
    for name, (lr, momentum, decay) in RATES.items():
        yield f"2012, {name}", sgd_update_2012, plain.sgd_update_2012, (lr, momentum, decay), True
        for dampening, nesterov, maximize in ((0.0, False, False), (0.3, False, True), (0.0, True, False), (0.0, True, True)):
            label = f"{name}, dampening {dampening}, nesterov {nesterov}, maximize {maximize}"
            rest = lr, momentum, dampening, decay, nesterov, maximize
            yield label, sgd_update, plain.sgd_update, rest, not nesterov


UPDATES = {label: rest for label, *rest in updates()}


def errors(w, g, v, options):
    """Some eight products and sums, each rounded, and none larger than their sizes added up."""
    lr, momentum, decay = options[0], options[1], options[-1] if len(options) == 3 else options[3]
    step = np.abs(g) + (decay * np.abs(w) if decay else 0)  # without decay not even an infinite w counts
    velocity = step + momentum * (0 if v is None else np.abs(v))
    scale = 16 * np.finfo(w.dtype).eps
    return scale * (np.abs(w) + lr * (step + 2 * velocity) + velocity), scale * velocity


def same(gpu, got, expected, error):
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    if gpu.device.xp is fake_cupy:
        np.testing.assert_array_equal(got, expected)
    else:
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(got[~finite], expected[~finite])
        assert (np.abs(got - expected) <= error)[finite].all()


def check(gpu, arrays, on_gpu, replacement, function, options):
    """Both on copies, or on the GPU's arrays given; g stays as it is."""
    with np.errstate(all="ignore"):
        allowed = errors(*arrays, options)
        w, g, v = (None if a is None else a.copy(order="K") for a in arrays)
        assert replacement(*on_gpu, *options) is None
        function(w, g, v, *options)
        same(gpu, gpu.get(on_gpu[0]), w, allowed[0])
        if v is not None:
            same(gpu, gpu.get(on_gpu[2]), v, allowed[1])
        np.testing.assert_array_equal(gpu.get(on_gpu[1]), g)


def put(gpu, arrays):
    return [None if a is None else gpu.put(a) for a in arrays]


@pytest.mark.parametrize("label", UPDATES)
def test_every_option(gpu, rng, dtype, label):
    replacement, function, options, without_velocity = UPDATES[label]
    for size in SIZES if label.endswith("rich") else SIZES[-1:]:
        w, g, v = rng.standard_normal((3, size)).astype(dtype)
        check(gpu, (w, g, v), put(gpu, (w, g, v)), replacement, function, options)
        if without_velocity:
            check(gpu, (w, g, None), put(gpu, (w, g, None)), replacement, function, options)


@pytest.mark.parametrize("label", UPDATES)
def test_infinities_and_what_is_no_number(gpu, rng, label):
    """Also in the weights, which without decay don't count."""
    replacement, function, options, without_velocity = UPDATES[label]
    odd = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0])
    w, g, v = (a.reshape(-1) for a in np.meshgrid(odd, odd, odd))
    check(gpu, (w, g, v), put(gpu, (w, g, v)), replacement, function, options)
    if without_velocity:
        check(gpu, (w, g, None), put(gpu, (w, g, None)), replacement, function, options)


@pytest.mark.parametrize("label", UPDATES)
def test_nothing_is_done_where_a_number_was_found_that_is_not_finite(gpu, rng, label):
    replacement, function, options, _ = UPDATES[label]
    w, g, v = rng.standard_normal((3, 1025))
    for found in (np.array([0], np.int32), np.array([1], np.int32)):
        here, there = [a.copy() for a in (w, g, v)], put(gpu, (w, g, v))
        function(*here, *options, found=found)
        assert np.array_equal(here[2], v) == bool(found[0])
        replacement(*there, *options, found=gpu.put(found))
        for got, expected, error in zip(there, here, (1e-14, 0, 1e-14), strict=True):
            np.testing.assert_allclose(gpu.get(got), expected, rtol=0, atol=error)


ARRANGEMENTS = {
    "C": lambda a: a,
    "channels-last": lambda a: a.transpose(0, 3, 1, 2),
    "sliced": lambda a: a[:, ::2, :, ::2],
    "reversed": lambda a: a[::-1, :, ::-1],
    "cut out": lambda a: a[:2, 1:4, :3, 1:],
    "one": lambda a: a[:1],
    "none": lambda a: a[:0],
    "a number": lambda a: a[1, 2, 0, 1, ...],
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
@pytest.mark.parametrize("replacement, function", [(sgd_update, plain.sgd_update), (sgd_update_2012, plain.sgd_update_2012)])
def test_any_memory_order(gpu, rng, dtype, name, replacement, function):
    """And nothing is written beside a view."""
    options = (0.1, 0.9, 5e-4) if function is plain.sgd_update_2012 else (0.1, 0.9, 0.1, 5e-4, False, True)
    view, wide = ARRANGEMENTS[name], rng.standard_normal((3, 2, 5, 3, 4)).astype(dtype)
    on_gpu = [gpu.put(a) for a in wide]
    other = on_gpu[1].transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0)  # the same gradient in Fortran order
    for g in (on_gpu[1], other):
        for velocity in (True, False):
            before = [gpu.get(a) for a in on_gpu]
            views, there = [view(a) for a in before], [view(a) for a in (on_gpu[0], g, on_gpu[2])]
            if not velocity:
                views[2] = there[2] = None
            check(gpu, views, there, replacement, function, options)
            for array, old in zip(on_gpu, before, strict=True):
                after = gpu.get(array)
                view(after)[...] = view(old)
                np.testing.assert_array_equal(after, old)


@pytest.mark.parametrize("name", ["C", "channels-last", "one", "a number"])
def test_dense_weights_are_not_copied(gpu, rng, monkeypatch, name):
    """Only a gradient in another order than theirs is."""
    w, g, v = (ARRANGEMENTS[name](gpu.put(a)) for a in rng.standard_normal((3, 2, 5, 3, 4)))
    given = []
    monkeypatch.setattr(kernels, "launch", lambda file, kernel, count, *args, real: given.extend(args[:3]))
    sgd_update_2012(w, g, v, 0.1, 0.9, 0.0)
    if gpu.device.xp is fake_cupy:
        assert all(np.shares_memory(ours._array, flat._array) for ours, flat in zip((w, g, v), given, strict=True))


def test_a_velocity_in_another_order_than_the_weights(gpu, rng):
    w, g, v = rng.standard_normal((3, 4, 5, 6))
    on_gpu = [gpu.put(w), gpu.put(g), gpu.put(v.T.copy()).T]
    check(gpu, (w, g, v), on_gpu, sgd_update, plain.sgd_update, (0.1, 0.9, 0.0, 5e-4, True, False))


def test_a_broadcast_gradient(gpu, rng):
    w, v = rng.standard_normal((2, 4, 5))
    g = gpu.device.xp.broadcast_to(gpu.put(np.array(2.0)), (4, 5))
    check(
        gpu, (w, np.full((4, 5), 2.0), v), (gpu.put(w), g, gpu.put(v)), sgd_update_2012, plain.sgd_update_2012, (0.1, 0.9, 0.1)
    )


@pytest.mark.parametrize("rule", ["pytorch", "2012"])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_the_optimizer_takes_one_kernel_for_each_parameter(gpu, rng, monkeypatch, rule, momentum):
    for function in (sgd_update, sgd_update_2012):
        monkeypatch.setitem(REPLACEMENTS, ("cuda", function.__name__), function)
    start, gradients = rng.standard_normal((3, 4)), rng.standard_normal((3, 3, 4))
    ends = []
    for where in (gpu.device, "cpu:0"):
        p = Tensor(start, True, where)
        optimizer = SGD([p], lr=0.1, momentum=momentum, weight_decay=1, rule=rule)  # whole numbers are options too
        for g in gradients:
            p.grad = Tensor(g, device=where)
            optimizer.step()
        ends.append(p.detach().numpy())
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-14)
    if gpu.device.xp is fake_cupy:
        suffix = "descent" if not momentum else "update_2012" if rule == "2012" else "update"
        assert fake_cupy.launches == [f"mdl_sgd_{suffix}"] * 3
