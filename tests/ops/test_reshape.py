"""minidl.ops.reshape: what moves elements, against NumPy and element by element; gradcheck, errors, memory layouts."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layer_cases import IMAGES, LayerCase, uniform

from minidl import Tensor, gradcheck
from minidl.layout import is_channels_last
from minidl.ops.reshape import cat, flatten, getitem, pad, permute, reshape, squeeze, transpose, unsqueeze

LAYER_CASES = {
    "cat": LayerCase(lambda F, x, y: F.cat([x, y], 1), uniform((2, 3), (2, 2)), theirs=""),
    "cat channels-last": LayerCase(
        lambda F, x, y: F.cat([x, y], 1), uniform((2, 3, 4, 4), (2, 2, 4, 4), channels_last=True), theirs=""
    ),
    "pad": LayerCase(lambda F, x: F.pad(x, (1, -1, 0, 2), value=3.0), IMAGES),
    "pad all sides": LayerCase(lambda F, x: F.pad(x, (2, 2, 2, 2)), IMAGES, module=lambda nn: nn.ZeroPad2d(2)),
    "pad sides": LayerCase(lambda F, x: F.pad(x, (1, 2, 3, 4)), IMAGES, module=lambda nn: nn.ZeroPad2d((1, 2, 3, 4))),
    "flatten": LayerCase(
        lambda F, x: F.flatten(x, 1),
        uniform((2, 3, 4, 4), channels_last=True),
        module=lambda nn: nn.Flatten(),
        theirs=lambda F, x: x.flatten(1),
    ),
    "flatten part": LayerCase(
        lambda F, x: F.flatten(x, 0, 1), IMAGES, module=lambda nn: nn.Flatten(0, 1), theirs=lambda F, x: x.flatten(0, 1)
    ),
}

ANY = settings(max_examples=80)

# op, shape of x, the same on a NumPy array
MOVES = {
    "reshape": (lambda t: reshape(t, 4, 6), (2, 3, 4), lambda a: a.reshape(4, 6)),
    "reshape to a tuple": (lambda t: reshape(t, (6, 4)), (2, 3, 4), lambda a: a.reshape(6, 4)),
    "reshape, guessed": (lambda t: reshape(t, 2, -1), (2, 3, 4), lambda a: a.reshape(2, 12)),
    "reshape to a number": (lambda t: reshape(t), (1, 1), lambda a: a.reshape(())),
    "reshape of nothing": (lambda t: reshape(t, -1, 3), (0, 3), lambda a: a.reshape(0, 3)),
    "flatten": (flatten, (2, 3, 4), lambda a: a.reshape(24)),
    "flatten from 1": (lambda t: flatten(t, 1), (2, 3, 4, 5), lambda a: a.reshape(2, 60)),
    "flatten the middle": (lambda t: flatten(t, 1, -2), (2, 3, 4, 5), lambda a: a.reshape(2, 12, 5)),
    "flatten a number": (flatten, (), lambda a: a.reshape(1)),
    "flatten of no images": (lambda t: flatten(t, 1), (0, 3, 4), lambda a: a.reshape(0, 12)),
    "squeeze": (squeeze, (1, 3, 1, 2), lambda a: a.reshape(3, 2)),
    "squeeze one": (lambda t: squeeze(t, -2), (1, 3, 1, 2), lambda a: a.reshape(1, 3, 2)),
    "squeeze an axis that is longer": (lambda t: squeeze(t, 1), (1, 3, 1, 2), lambda a: a),
    "unsqueeze": (lambda t: unsqueeze(t, 1), (3, 2), lambda a: a[:, None]),
    "unsqueeze at the end": (lambda t: unsqueeze(t, -1), (3, 2), lambda a: a[..., None]),
    "permute": (lambda t: permute(t, 2, 0, 1), (2, 3, 4), lambda a: a.transpose(2, 0, 1)),
    "permute by a tuple": (lambda t: permute(t, (0, -1, 1, 2)), (2, 3, 4, 5), lambda a: a.transpose(0, 3, 1, 2)),
    "permute nothing": (permute, (), lambda a: a),
    "transpose": (lambda t: transpose(t, 0, -1), (2, 3, 4), lambda a: a.transpose(2, 1, 0)),
    "transpose of a number": (lambda t: transpose(t, 0, -1), (), lambda a: a),
    "pad": (lambda t: pad(t, (1, 2)), (2, 3), lambda a: np.pad(a, ((0, 0), (1, 2)))),
    "pad images": (lambda t: pad(t, (1, 2, 0, 3)), (2, 3, 4, 5), lambda a: np.pad(a, ((0, 0), (0, 0), (0, 3), (1, 2)))),
    "pad, other value": (lambda t: pad(t, [1, 0], value=7.0), (2, 3), lambda a: np.pad(a, ((0, 0), (1, 0)), constant_values=7)),
    "pad by a negative width crops": (lambda t: pad(t, (-1, 2, 3, -2)), (4, 3), lambda a: np.pad(a[:2, 1:], ((3, 0), (0, 2)))),
    "pad by nothing": (lambda t: pad(t, ()), (2, 3), lambda a: a),
    "crop to nothing": (lambda t: pad(t, (-1, -2)), (2, 3), lambda a: a[:, :0]),
}


def positions(shape):
    """An array of this shape whose elements are their own positions."""
    return np.arange(int(np.prod(shape))).reshape(shape)


# ----------------------------------------------------------------------------------------------------- against a loop


def check_move(run, op, x, of_numpy):
    """Each output is one input or none (-1); each input's gradient is the sum over the outputs it went to."""
    y, gy, (gx,) = run(op, x)
    origin = of_numpy(positions(x.shape) + 1) - 1  # NumPy's padding of 0 becomes -1
    np.testing.assert_array_equal(y, of_numpy(x))
    assert y.shape == origin.shape and gx.shape == x.shape
    expected = np.zeros(x.size)
    for at in np.ndindex(y.shape):
        if origin[at] >= 0:
            expected[origin[at]] += gy[at]
    np.testing.assert_allclose(gx.ravel(), expected, rtol=1e-13, atol=1e-13)  # sums of a few elements in another order


@pytest.mark.parametrize("move", [name for name in MOVES if name != "pad, other value"])
def test_moves_against_a_loop(move, run, rng):
    op, shape, of_numpy = MOVES[move]
    check_move(run, op, rng.standard_normal(shape), of_numpy)


def test_pad_with_another_value(run, rng):
    op, shape, of_numpy = MOVES["pad, other value"]
    x = rng.standard_normal(shape)
    y, gy, (gx,) = run(op, x)
    np.testing.assert_array_equal(y, of_numpy(x))
    np.testing.assert_array_equal(gx, gy[:, 1:])


INDICES = {
    "int": 1,
    "negative int": -1,
    "slice": slice(1, 3),
    "step": slice(None, None, 2),
    "backwards": slice(None, None, -1),
    "ellipsis": (..., 0),
    "new axis": (None, slice(None), None, 1),
    "ints": (2, 1),
    "array": np.array([3, 0, -1]),
    "repeated": np.array([1, 1, 0, 1]),
    "list": [2, 2, 1],
    "empty list": [],
    "two arrays": (np.array([0, 1, 0]), np.array([2, 2, 2])),
    "array and slice": (slice(1, None), np.array([[0, 0], [1, 2]])),
    "mask": np.arange(12).reshape(4, 3) % 2 == 0,
    "mask of rows": np.array([True, False, True, False]),
    "NumPy's int": np.int64(2),
    "all": (),
}


@pytest.mark.parametrize("name", INDICES)
def test_getitem_against_a_loop(name, run, rng):
    index = INDICES[name]
    of_numpy = lambda a: np.asarray(a[index])
    check_move(run, lambda t: getitem(t, index), rng.standard_normal((4, 3)), of_numpy)


def test_repeated_indices_add_their_gradients(device):
    x = Tensor(np.array([1.0, 2.0, 3.0]), True, device)
    getitem(x, np.array([2, 0, 2, 2])).backward(np.array([1.0, 10.0, 100.0, 1000.0]))
    assert x.grad.tolist() == [10, 0, 1101]


def test_tensors_can_be_indices(device, rng):
    x = Tensor(rng.standard_normal((4, 3)), device=device)
    rows, columns = Tensor(np.array([3, 0]), device=device), Tensor(np.array([1, 2]), device=device)
    np.testing.assert_array_equal(getitem(x, rows).numpy(), x.numpy()[[3, 0]])
    np.testing.assert_array_equal(getitem(x, (rows, columns)).numpy(), x.numpy()[[3, 0], [1, 2]])


@ANY
@given(st.data())
def test_any_slice_against_numpy(run, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    x = np.random.default_rng(0).standard_normal(shape)
    check_move(run, lambda t: getitem(t, index), x, lambda a: np.asarray(a[index]))


@ANY
@given(st.data())
def test_any_integer_arrays_against_numpy(run, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    index = data.draw(hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=4)))
    x = np.random.default_rng(0).standard_normal(shape)
    check_move(run, lambda t: getitem(t, index), x, lambda a: a[index])


@ANY
@given(st.data())
def test_any_permutation_and_reshape_against_numpy(run, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3))
    order = data.draw(st.permutations(range(len(shape))))
    turned = tuple(shape[i] for i in order)
    x = np.random.default_rng(0).standard_normal(shape)
    check_move(run, lambda t: permute(t, order), x, lambda a: a.transpose(order))
    check_move(run, lambda t: reshape(permute(t, order), shape), x, lambda a: a.transpose(order).reshape(shape))
    check_move(run, lambda t: reshape(t, turned), x, lambda a: a.reshape(turned))


@pytest.mark.parametrize(
    ("shapes", "dim"),
    [
        ([(2, 3), (4, 3)], 0), ([(2, 3), (2, 1), (2, 2)], 1), ([(2, 3, 4), (2, 3, 2)], -1), ([(3,)], 0), ([(0, 3), (2, 3)], 0),
        ([(2, 3, 4, 5), (2, 1, 4, 5)], 1), ([(1, 2, 2, 2), (1, 2, 3, 2)], 2), ([(0, 2), (0, 3)], 1),
    ],
)  # fmt: skip
def test_cat_against_numpy(shapes, dim, run, rng):
    arrays = [rng.standard_normal(shape) for shape in shapes]
    y, gy, gradients = run(lambda *tensors: cat(tensors, dim), *arrays)
    np.testing.assert_array_equal(y, np.concatenate(arrays, dim))
    start = 0
    for array, gradient in zip(arrays, gradients, strict=True):
        taken = np.arange(start, start + array.shape[dim])
        np.testing.assert_array_equal(gradient, gy.take(taken, dim))
        start += array.shape[dim]


def test_cat_of_ints_and_floats_takes_the_floats_dtype(device):
    ids, x = Tensor(np.array([1, 2]), device=device), Tensor(np.array([0.5], np.float32), device=device)
    y = cat([ids, x])
    assert y.dtype == np.float32 and y.numpy().tolist() == [1, 2, 0.5]
    assert cat([ids, ids]).dtype == np.int64


def test_cat_passes_over_an_empty_tensor_of_another_shape(run):
    y, gy, gradients = run(lambda none, x: cat([none, x], 1), np.zeros(0), np.ones((2, 3)))
    assert y.tolist() == [[1, 1, 1], [1, 1, 1]] and gradients[0].shape == (0,)
    np.testing.assert_array_equal(gradients[1], gy)


def test_cat_of_a_tensor_with_itself_adds_the_gradients(device):
    x = Tensor(np.array([1.0, 2.0]), True, device)
    cat([x, x]).backward(np.array([1.0, 2.0, 30.0, 40.0]))
    assert x.grad.tolist() == [31, 42]


# ----------------------------------------------------------------------------------------------------------- gradcheck


@pytest.mark.parametrize("move", [name for name, (op, shape, of_numpy) in MOVES.items() if of_numpy(np.ones(shape)).any()])
def test_gradcheck(move, leaves):
    op, shape, _ = MOVES[move]
    gradcheck(op, leaves(shape))


@pytest.mark.parametrize("name", [name for name in INDICES if name != "empty list"])
def test_gradcheck_of_getitem(name, leaves):
    gradcheck(lambda x: getitem(x, INDICES[name]), leaves((4, 3)))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gradcheck_of_cat(dim, leaves):
    shapes = [[2, 3, 2], [2, 3, 2]]
    shapes[1][dim] = 4
    gradcheck(lambda *xs: cat(xs, dim), leaves(*shapes))


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = [
    (lambda x: reshape(x, 5, 5), RuntimeError, "reshape: shape (5, 5) is invalid for 24 elements (x (2, 3, 4))"),
    (lambda x: reshape(x, 5, -1), RuntimeError, "reshape: shape (5, -1) is invalid for 24 elements (x (2, 3, 4))"),
    (lambda x: reshape(x, -1, -1), RuntimeError, "reshape: shape (-1, -1) is invalid for 24 elements (x (2, 3, 4))"),
    (lambda x: reshape(x, -2, -12), RuntimeError, "reshape: shape (-2, -12) is invalid for 24 elements (x (2, 3, 4))"),
    (lambda x: reshape(x, 0, -1), RuntimeError, "reshape: shape (0, -1) is invalid for 24 elements (x (2, 3, 4))"),
    (lambda x: reshape(x, 2.0, 12), TypeError, "reshape: sizes must be ints, got (2.0, 12)"),
    (
        lambda x: flatten(x, 2, 1),
        RuntimeError,
        "flatten: start_dim must not come after end_dim, got 2 and 1 (x (2, 3, 4))",
    ),
    (lambda x: flatten(x, 3), IndexError, "flatten: dim must be in [-3, 2], got 3"),
    (lambda x: squeeze(x, 3), IndexError, "squeeze: dim must be in [-3, 2], got 3"),
    (lambda x: unsqueeze(x, 4), IndexError, "unsqueeze: dim must be in [-4, 3], got 4"),
    (lambda x: transpose(x, 0, -4), IndexError, "transpose: dim must be in [-3, 2], got -4"),
    (lambda x: permute(x, 0, 1), RuntimeError, "permute: dims must name each of 3 axes once, got (0, 1)"),
    (lambda x: permute(x, 0, 1, -2), RuntimeError, "permute: dims must name each of 3 axes once, got (0, 1, -2)"),
    (lambda x: permute(x, 0, 1, 5), IndexError, "permute: dim must be in [-3, 2], got 5"),
    (lambda x: permute(x, 0, 1, 2.0), TypeError, "permute: sizes must be ints, got (0, 1, 2.0)"),
    (lambda x: cat([]), ValueError, "cat: at least 1 tensor is needed, got 0"),
    (lambda x: cat([x], 3), IndexError, "cat: dim must be in [-3, 2], got 3"),
    (lambda x: cat([x[0, 0, 0]]), RuntimeError, "cat: tensors need at least 1 axis, got ()"),
    (
        lambda x: cat([x, x[:, :2]], -1),
        RuntimeError,
        "cat: sizes must agree except along dim -1, got (2, 3, 4), (2, 2, 4)",
    ),
    (lambda x: cat([x, x[0]], 0), RuntimeError, "cat: sizes must agree except along dim 0, got (2, 3, 4), (3, 4)"),
    (lambda x: pad(x, (1, 1), mode="reflect"), ValueError, "pad: mode must be 'constant', got 'reflect'"),
    (
        lambda x: pad(x, (1, 1, 1)),
        ValueError,
        "pad: widths come in pairs, at most 3 of them, got 3 widths (x (2, 3, 4))",
    ),
    (
        lambda x: pad(x, (1,) * 8),
        ValueError,
        "pad: widths come in pairs, at most 3 of them, got 8 widths (x (2, 3, 4))",
    ),
    (lambda x: pad(x, (-3, -2)), RuntimeError, "pad: sizes must not become negative, got x (2, 3, 4), pad (-3, -2)"),
    (lambda x: pad(x, (-5, 3)), RuntimeError, "pad: sizes must not become negative, got x (2, 3, 4), pad (-5, 3)"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS)
def test_errors(call, error, text, device):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call(Tensor(np.zeros((2, 3, 4)), device=device))


def test_an_index_that_is_out_of_range(device):
    with pytest.raises(IndexError, match="out of bounds"):
        getitem(Tensor(np.zeros((2, 3)), device=device), 2)


def test_an_index_lives_on_the_tensors_device():
    x, index = Tensor(np.zeros(3)), Tensor(np.array([0]), device="cpu:1")
    text = "getitem: x is on cpu:0, index on cpu:1; move one with .to(device)"
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        getitem(x, index)


# -------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize(
    "op",
    [
        lambda t: reshape(t, 6, 20),
        lambda t: flatten(t, 1),
        lambda t: permute(t, 3, 1, 0, 2),
        lambda t: getitem(t, (0, slice(1, None))),
        lambda t: getitem(t, np.array([1, 1, 0])),
        lambda t: pad(t, (1, 1, -1, 2)),
        lambda t: cat([t, t], 1),
    ],
)
def test_memory_order_of_the_input_changes_nothing(op, arrange, device, rng):
    array = rng.standard_normal((2, 3, 4, 5))
    expected_x, x = Tensor(array, True, device), arrange(array)
    expected, y = op(expected_x), op(x)
    np.testing.assert_array_equal(y.detach().numpy(), expected.detach().numpy())
    gy = rng.standard_normal(y.shape)
    y.backward(gy)
    expected.backward(gy)
    np.testing.assert_array_equal(x.grad.numpy(), expected_x.grad.numpy())


def test_channels_last_memory_is_flattened_in_channel_order(channels_last_leaf, device):
    """PyTorch's weights of the first fully connected layer expect C, H, W."""
    x, _, _ = channels_last_leaf
    y = flatten(x, 1).detach().numpy()
    for n, c, h, w in np.ndindex(x.shape):
        assert y[n, (c * 4 + h) * 5 + w] == x.detach().numpy()[n, c, h, w]


@pytest.mark.parametrize("dim", range(4))
def test_cat_keeps_channels_last(dim, channels_last_leaf, device, rng):
    x, _, _ = channels_last_leaf
    c_order = Tensor(rng.standard_normal((2, 3, 4, 5)), device=device)
    for tensors in ([x, x], [x, c_order], [c_order, x]):
        y = cat(tensors, dim)
        assert is_channels_last(y.data)
        expected = np.concatenate([t.detach().numpy() for t in tensors], dim)
        np.testing.assert_array_equal(y.detach().numpy(), expected)
    assert cat([c_order, c_order], dim).data.flags.c_contiguous


@pytest.mark.parametrize("index", [slice(1), (slice(None), slice(None, None, -1)), (..., 2), np.array([1, 1, 0])])
def test_the_gradient_of_getitem_keeps_channels_last(index, channels_last_leaf):
    x, _, received = channels_last_leaf
    getitem(x, index).sum().backward()
    assert received == [True]


def test_pad_keeps_channels_last(channels_last_leaf, device, rng):
    x, _, received = channels_last_leaf
    y = pad(x, (1, 2, 0, 1))
    y.backward(y.detach())
    assert is_channels_last(y.data) and received == [True]
    assert pad(Tensor(rng.standard_normal((2, 3, 4, 5)), device=device), (1, 1)).data.flags.c_contiguous


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_stays(move, dtype, run, rng):
    op, shape, _ = MOVES[move]
    y, _, (gx,) = run(op, rng.standard_normal(shape).astype(dtype))
    assert y.dtype == gx.dtype == dtype
