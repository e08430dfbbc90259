"""minidl.kernels.cuda.cross_entropy against the plain functions.

Largest scores and differences from them are the same. Sums are of the same terms in another order: NumPy adds in runs of 128, a
block in runs of C / 256 and a tree, so both have fewer than C / 64 + 30 roundings one after the other; an exponential or a
logarithm has 2 more at most.
"""

import fake_cupy
import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Tensor
from minidl.kernels import REPLACEMENTS
from minidl.kernels.cuda.cross_entropy import cross_entropy_backward, cross_entropy_forward
from minidl.ops import cross_entropy as plain

SIZES = [(1, 1), (0, 5), (1, 2), (4, 1), (7, 3), (3, 31), (3, 32), (2, 33), (5, 64), (3, 100), (2, 255), (2, 256), (3, 257)]
SIZES += [(13, 1000), (1, 2049), (300, 5)]


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


def targets(rng, dtype, rows, classes):
    hot = np.zeros((rows, classes), dtype)
    hot[np.arange(rows), rng.integers(0, classes, rows)] = 1
    return {
        "classes": hot,
        "smoothed": (0.9 * hot + 0.1 / classes).astype(dtype),
        "some ignored": hot * (rng.random((rows, 1)) < 0.5).astype(dtype),
        "probabilities": rng.random((rows, classes)).astype(dtype),
        "some of either sign": (rng.standard_normal((rows, classes)) * (rng.random((rows, classes)) < 0.5)).astype(dtype),
    }


def rounding(logp):
    """Of a sum of C terms relative to their absolute values, twice for the two functions."""
    return 2 * (logp.shape[1] / 64 + 34) * np.finfo(logp.dtype).eps


def close(got, expected, error):
    """Equal where infinite or NaN, else as close as `error`."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    with np.errstate(invalid="ignore"):
        assert (np.abs(got.astype("d") - expected)[finite] <= np.broadcast_to(error, got.shape)[finite]).all()


def check_forward(gpu, x, t, on_gpu=None):
    with np.errstate(all="ignore"):
        losses, logp = plain.cross_entropy_forward(x, t)
        got = [gpu.get(a) for a in cross_entropy_forward(*(on_gpu or (gpu.put(x), gpu.put(t))))]
        # ln of the sum errs as the sum does, relative to its size; one rounding more where it is subtracted
        largest = np.where(np.isfinite(logp), np.abs(logp), 0)
        error = rounding(logp) + np.finfo(x.dtype).eps * largest
        terms = np.where(t == 0, 0, np.abs(t) * (error + rounding(logp) * largest))
    close(got[1], logp, error)
    close(got[0], losses, terms.sum(axis=1))
    assert got[1].flags.c_contiguous
    return logp


def check_backward(gpu, gy, logp, t, on_gpu=None):
    with np.errstate(all="ignore"):
        expected = plain.cross_entropy_backward(gy, logp, t)
        got = gpu.get(cross_entropy_backward(*(on_gpu or [gpu.put(a) for a in (gy, logp, t)])))
        size = np.exp(logp) * np.abs(t).sum(axis=1, keepdims=True) + np.abs(t)
        error = rounding(logp) * np.abs(gy)[:, None] * size
    close(got, expected, error)
    assert got.flags.c_contiguous


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward_and_backward(gpu, rng, dtype, size):
    x, gy = (3 * rng.standard_normal(size)).astype(dtype), rng.standard_normal(size[0]).astype(dtype)
    for t in targets(rng, dtype, *size).values():
        logp = check_forward(gpu, x, t)
        check_backward(gpu, gy, logp, t)


def test_a_row_of_equal_scores_and_scores_that_would_overflow(gpu, rng, dtype):
    t = np.eye(4, 6, dtype=dtype)
    for x in (np.full((4, 6), 7), 1e4 * rng.standard_normal((4, 6)), np.full((4, 6), -1e5), rng.standard_normal((4, 6)) + 1e5):
        logp = check_forward(gpu, x.astype(dtype), t)
        check_backward(gpu, np.ones(4, dtype), logp, t)


@pytest.mark.parametrize("classes", [3, 40, 300])
def test_infinities_and_what_is_no_number(gpu, rng, dtype, classes):
    """Each odd value in each of four places of a row, with targets that hit it and others that do not."""
    x = rng.standard_normal((4 * 5, classes)).astype(dtype)
    x[16:] = -np.inf  # impossible classes: a row of nothing else, and with one, two or three that are not
    for row, value in enumerate([np.inf, -np.inf, np.nan, -np.nan] * 4):
        x[row, [0, classes // 2, classes - 1, row % classes][row // 4]] = value
    x[17, 1] = x[18, 0] = x[18, 2] = 0
    x[19, :3] = np.inf, -np.inf, np.nan
    for t in (*targets(rng, dtype, *x.shape).values(), np.zeros_like(x), -np.zeros_like(x), np.eye(*x.shape, dtype=dtype)):
        logp = check_forward(gpu, x, t)
        check_backward(gpu, rng.standard_normal(len(x)).astype(dtype), logp, t)


def test_targets_and_gradients_that_are_not_finite(gpu, rng, dtype):
    x, t = rng.standard_normal((5, 7)).astype(dtype), rng.random((5, 7)).astype(dtype)
    t[0, 0], t[1, 3], t[2, 6] = np.nan, np.inf, -np.inf
    logp = check_forward(gpu, x, t)
    check_backward(gpu, np.array([1, 2, 3, np.inf, np.nan], dtype), logp, t)


def test_a_class_that_is_impossible_and_no_target_costs_nothing(gpu):
    x, t = np.array([[0.0, -np.inf], [-np.inf, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    losses, logp = (gpu.get(a) for a in cross_entropy_forward(gpu.put(x), gpu.put(t)))
    np.testing.assert_array_equal(losses, [0, np.inf])
    np.testing.assert_array_equal(logp, x)


def test_inputs_of_any_memory_order_which_stay_as_they_are(gpu, rng, dtype):
    wide = rng.standard_normal((3, 6, 20)).astype(dtype)
    for view in (lambda a: a[:, ::2], lambda a: a[:, :10].T.copy().T, lambda a: a[::-1, ::-1], lambda a: a[1:4, 3:9]):
        x, t, gy = view(wide[0]), view(wide[1]), wide[2, : len(view(wide[0])), 1]
        on_gpu = gpu.put(wide)
        logp = check_forward(gpu, x, t, (view(on_gpu[0]), view(on_gpu[1])))
        check_backward(gpu, gy, logp, t, (on_gpu[2, : len(x), 1], gpu.put(logp), view(on_gpu[1])))
        np.testing.assert_array_equal(gpu.get(on_gpu), wide)


def test_a_broadcast_gradient(gpu, rng, dtype):
    """The gradient of a sum of losses is one number for all rows."""
    x = rng.standard_normal((5, 7)).astype(dtype)
    t = targets(rng, dtype, 5, 7)["smoothed"]
    gy = gpu.device.xp.broadcast_to(gpu.put(np.array(0.5, dtype)), (5,))
    logp = plain.cross_entropy_forward(x, t)[1]
    check_backward(gpu, np.full(5, 0.5, dtype), logp, t, (gy, gpu.put(logp), gpu.put(t)))


def test_results_depend_on_neither_grid_nor_threads(gpu, rng):
    x, t, gy = rng.standard_normal((40, 700)), rng.random((40, 700)), rng.standard_normal(40)
    on_gpu, seen = [gpu.put(a) for a in (x, t, gy)], set()
    for threads, order in ((256, "forward"), (1024, "reverse"), (1 << 22, "shuffled")):
        gpu.few_threads(threads)
        gpu.order(order)
        losses, logp = cross_entropy_forward(*on_gpu[:2])
        gx = cross_entropy_backward(on_gpu[2], logp, on_gpu[1])
        seen.add(b"".join(gpu.get(a).tobytes() for a in (losses, logp, gx)))
    assert len(seen) == 1


def test_the_op_takes_one_kernel_each_way(gpu, rng, monkeypatch):
    for function in (cross_entropy_forward, cross_entropy_backward):
        monkeypatch.setitem(REPLACEMENTS, ("cuda", function.__name__), function)
    x, ids = rng.standard_normal((6, 5)), np.array([1, 0, 4, -100, 2, 2])
    results = []
    for where in (gpu.device, "cpu:0"):
        leaf = Tensor(x, True, where)
        loss = F.cross_entropy(leaf, ids, label_smoothing=0.1)
        loss.backward()
        results.append((float(loss.detach().numpy()), leaf.grad.numpy()))
    assert abs(results[0][0] - results[1][0]) < 1e-14
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=0, atol=1e-15)
    if gpu.device.xp is fake_cupy:
        assert fake_cupy.launches == ["mdl_cross_entropy_forward", "mdl_cross_entropy_backward"]
