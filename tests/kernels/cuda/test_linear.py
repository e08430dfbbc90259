"""Fully connected layers on CUDA against products in float64: one rounding for each product and each addition."""

import fake_cublas
import fake_cupy
import numpy as np
import pytest

import minidl.nn.functional as F
from minidl import Device, Tensor
from minidl.kernels import REPLACEMENTS
from minidl.kernels.cuda.linear import linear_backward, linear_forward

SHAPES = [(1, 1, 1), (3, 5, 7), (17, 2, 33), (1, 9, 4), (5, 1, 3), (4, 3, 1), (300, 3, 2)]  # N, I, O
EMPTY = [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0)]
EVERYTHING = True, True, True


def arrays(rng, shape, dtype):
    """x, w, b and a gy."""
    n, i, o = shape
    return [rng.standard_normal(s).astype(dtype) for s in ((n, i), (o, i), (o,), (n, o))]


def check(got, a, b, bias=0):
    """got = a @ b + bias"""
    a, b, bias = (np.asarray(x, "float64") for x in (a, b, bias))
    assert got.shape == (len(a), b.shape[1]) and got.flags.c_contiguous
    bound = (a.shape[1] + 3) * np.finfo(got.dtype).eps * (np.abs(a) @ np.abs(b) + np.abs(bias))
    assert (np.abs(got - (a @ b + bias)) <= bound).all()


def check_gradients(got, gy, x, w):
    check(got[0], gy, w)
    check(got[1], gy.T, x)
    check(got[2][None], np.ones((1, len(gy))), gy)
    assert got[2].shape == gy.shape[1:]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES + EMPTY, ids=str)
def test_both_ways(gpu, rng, shape, dtype):
    x, w, b, gy = arrays(rng, shape, dtype)
    there = [gpu.put(a) for a in (x, w, b, gy)]
    for bias in (b, None):
        y = gpu.get(linear_forward(there[0], there[1], None if bias is None else there[2]))
        assert y.dtype == dtype
        check(y, x, w.T, 0 if bias is None else bias)
    got = [gpu.get(g) for g in linear_backward(there[3], *there[:2], EVERYTHING)]
    assert {g.dtype for g in got} == {np.dtype(dtype)}
    check_gradients(got, gy, x, w)
    for array, before in zip(there, (x, w, b, gy), strict=True):
        np.testing.assert_array_equal(gpu.get(array), before)


def test_only_what_is_needed(gpu, rng):
    x, w, _, gy = (gpu.put(a) for a in arrays(rng, (6, 5, 4), "f"))
    every = linear_backward(gy, x, w, EVERYTHING)
    for needs in np.ndindex(2, 2, 2):
        got = linear_backward(gy, x, w, tuple(map(bool, needs)))
        assert [g is not None for g in got] == list(map(bool, needs))
        assert all(g is None or gpu.get(g).tobytes() == gpu.get(e).tobytes() for g, e in zip(got, every, strict=True))


def test_inputs_of_any_memory_order(gpu, rng):
    x, w, b, gy = arrays(rng, (6, 5, 4), "d")
    forms = (
        lambda a: gpu.put(np.ascontiguousarray(a.T)).T,
        lambda a: gpu.put(np.repeat(a, 2, -1))[..., ::2],
        lambda a: gpu.put(np.concatenate([a, a], -1))[..., : a.shape[-1]],
        lambda a: gpu.put(np.ascontiguousarray(a[::-1]))[::-1],
    )
    for form in forms:
        on_gpu = [form(a) for a in (x, w, b, gy)]
        check(gpu.get(linear_forward(*on_gpu[:3])), x, w.T, b)
        check_gradients([gpu.get(g) for g in linear_backward(on_gpu[3], *on_gpu[:2], EVERYTHING)], gy, x, w)
    one = gpu.device.xp.broadcast_to(gpu.put(np.full((1, 1), 0.5)), gy.shape)
    got = linear_backward(one, gpu.put(x), gpu.put(w), EVERYTHING)
    check_gradients([gpu.get(g) for g in got], np.full_like(gy, 0.5), x, w)


def test_few_launches(gpu, rng):
    x, w, b, gy = (gpu.put(a) for a in arrays(rng, (6, 5, 4), "f"))
    if not isinstance(x, fake_cupy.ndarray):
        pytest.skip("about the stand-in, which counts")
    linear_forward(x, w, b)
    assert (fake_cupy.launches, fake_cublas.calls) == (["mdl_add_bias"], ["gemmEx"])
    linear_backward(gy, x, w, EVERYTHING)
    assert (fake_cupy.launches, fake_cublas.calls) == (["mdl_add_bias", "mdl_column_sums"], ["gemmEx"] * 3)


def test_the_op_with_these_kernels(gpu, rng, monkeypatch):
    for function in (linear_forward, linear_backward):
        monkeypatch.setitem(REPLACEMENTS, ("cuda", function.__name__), function)
    x, w, b, _ = arrays(rng, (6, 5, 4), "d")
    results = []
    for device in map(Device, ("cpu:0", "cuda:0")):
        leaves = [Tensor(a).to(device).requires_grad_() for a in (x.reshape(2, 3, 5), w, b)]
        y = F.linear(*leaves)
        (y * y).sum().backward()
        results.append([y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
    if isinstance(gpu.put(x), fake_cupy.ndarray):
        assert "gemmEx" in fake_cublas.calls
