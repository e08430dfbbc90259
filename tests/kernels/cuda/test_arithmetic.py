"""The matrix product on CUDA, for every kind of operands that @ takes, against NumPy's; and its precision."""

import fake_cupy
import numpy as np
import pytest

import minidl
from minidl import Device, Tensor
from minidl.kernels.cuda.arithmetic import matrix_product

SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((6, 1, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (1, 6, 4, 5)),
    ((0, 3, 4), (4, 5)),
    ((0, 3, 4), (0, 4, 5)),
    ((2, 3, 0), (2, 0, 5)),
    ((3, 0), (0,)),
]


@pytest.fixture(autouse=True)
def _precision():
    yield
    minidl.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("x_shape, y_shape", SHAPES, ids=str)
def test_shapes_of_every_kind(gpu, rng, x_shape, y_shape, dtype):
    """Each of K products and additions is rounded, by eps of at most the sum of the absolute values."""
    x, y = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal(y_shape).astype(dtype)
    got, expected = gpu.get(matrix_product(gpu.put(x), gpu.put(y))), x.astype("d") @ y.astype("d")
    assert (got.shape, got.dtype) == (np.shape(expected), np.dtype(dtype))
    bound = (x_shape[-1] + 2) * np.finfo(dtype).eps * (np.abs(x).astype("d") @ np.abs(y).astype("d"))
    assert (np.abs(got - expected) <= bound).all()


def test_operands_that_are_views(gpu, rng):
    x, y = rng.standard_normal((5, 2, 4)), rng.standard_normal((2, 5, 4))
    got = matrix_product(gpu.put(x).swapaxes(0, 1), gpu.put(y).swapaxes(1, 2))
    np.testing.assert_allclose(gpu.get(got), x.swapaxes(0, 1) @ y.swapaxes(1, 2), rtol=1e-13, atol=1e-14)
    got = matrix_product(gpu.put(x)[::2], gpu.put(y)[0].T)
    np.testing.assert_allclose(gpu.get(got), x[::2] @ y[0].T, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("x_dtype, y_dtype", [("int64", "int64"), ("float32", "float64"), ("bool", "float32")])
def test_other_dtypes_are_multiplied_too(gpu, rng, x_dtype, y_dtype):
    x, y = rng.integers(0, 2, (3, 4)).astype(x_dtype), rng.integers(-9, 9, (4, 2)).astype(y_dtype)
    got = gpu.get(matrix_product(gpu.put(x), gpu.put(y)))
    assert got.dtype == (x @ y).dtype
    np.testing.assert_array_equal(got, x @ y)


def test_the_operator_multiplies_as_it_is_told_both_ways(gpu, rng):
    values = [rng.standard_normal(shape).astype("f") for shape in ((3, 4), (4, 2), (3, 2))]
    x, y, g = (v.astype("d") for v in values)
    results = {}
    for precision in ("highest", "high"):
        minidl.set_float32_matmul_precision(precision)
        on_gpu = [Tensor(v, device="cuda:0", requires_grad=True) for v in values[:2]]
        z = on_gpu[0] @ on_gpu[1]
        z.backward(Tensor(values[2], device="cuda:0"))
        results[precision] = [gpu.get(a) for a in (z.data, *(t.grad.data for t in on_gpu))]
    for exact, rounded, (a, b) in zip(*results.values(), ((x, y), (g, y.T), (x.T, g)), strict=True):
        size = np.abs(a) @ np.abs(b)
        assert (np.abs(exact - a @ b) <= 8 * np.finfo("f").eps * size).all()
        assert (np.abs(rounded - a @ b) <= 2.0**-9 * size).all()  # two factors, each rounded to 10 bits
        if isinstance(on_gpu[0].data, fake_cupy.ndarray):
            assert (np.abs(rounded - a @ b) > 8 * np.finfo("f").eps * size).any()


def test_the_operator_agrees_with_the_host(gpu, rng):
    values = [rng.standard_normal(s) for s in ((6, 1, 3, 4), (2, 4, 5))]
    results = []
    for device in map(Device, ("cpu:0", "cuda:0")):
        x, y = (Tensor(v).to(device).requires_grad_() for v in values)
        z = x @ y
        (z * z).sum().backward()
        results.append([z.detach().numpy(), *(t.grad.numpy() for t in (x, y))])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
