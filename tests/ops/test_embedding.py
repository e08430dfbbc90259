"""minidl.ops.embedding against a loop, ids that repeat, padding, what PyTorch's gradients are by frequency, errors."""

import re

import numpy as np
import pytest
from layer_cases import LayerCase, uniform

import minidl.nn as nn
from minidl import Tensor
from minidl.ops.embedding import embedding

IDS = np.array([[0, 3, 3], [1, 4, 3]])
LAYER_CASES = {
    "embedding": LayerCase(
        lambda F, w, ids: F.embedding(ids, w), uniform((5, 4)), (IDS,), module=lambda nn: nn.Embedding(5, 4)
    ),
    "embedding one id": LayerCase(lambda F, w, ids: F.embedding(ids, w), uniform((5, 4)), (np.array(2, np.int32),)),
}


@pytest.mark.parametrize("padding_idx", [None, 3, -1])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_forward_and_backward_against_a_loop(padding_idx, by_frequency, run, rng, device):
    w, ids = rng.standard_normal((5, 4)), Tensor(IDS, device=device)
    settings = {"padding_idx": padding_idx, "scale_grad_by_freq": by_frequency}
    y, gy, (gw,) = run(lambda t: embedding(ids, t, **settings), w)
    expected = np.zeros_like(w)
    for at in np.ndindex(IDS.shape):
        np.testing.assert_array_equal(y[at], w[IDS[at]])
        expected[IDS[at]] += gy[at] / ((IDS[at] == IDS).sum() if by_frequency else 1)
    if padding_idx is not None:
        expected[padding_idx] = 0
    np.testing.assert_allclose(gw, expected, rtol=1e-15)


@pytest.mark.parametrize("settings", [{"padding_idx": 3}, {"scale_grad_by_freq": True}])
def test_pytorch_has_the_same_gradients(settings, torch, rng):
    """Which are no slopes, so that the cases, whose gradients are checked, do without."""
    from oracle.compare import compare

    theirs = lambda w: torch.nn.functional.embedding(torch.tensor(IDS), w, **settings)
    compare(lambda w: embedding(Tensor(IDS), w, **settings), theirs, rng.standard_normal((5, 4)))
    for module in (nn.Embedding, torch.nn.Embedding):
        assert repr(module(5, 4, **settings)) == f"Embedding(5, 4, {next(iter(settings))}={next(iter(settings.values()))})"


@pytest.mark.parametrize(("shape", "table"), [((0,), (3, 4)), ((2, 0), (3, 4)), ((2,), (3, 0))])
def test_what_is_empty(shape, table, run, device):
    ids = Tensor(np.zeros(shape, np.int64), device=device)
    y, _, (gw,) = run(lambda w: embedding(ids, w), np.ones(table))
    assert y.shape == (*shape, table[1]) and gw.shape == table and not gw.any()


def test_a_table_of_ints_can_be_looked_up(device):
    y = embedding(Tensor(np.array([2, 0]), device=device), Tensor(np.arange(6).reshape(3, 2), device=device))
    assert y.numpy().tolist() == [[4, 5], [0, 1]] and y.dtype == np.int64


# ----------------------------------------------------------------------------------------------------------- the module


def test_initial_values_are_standard_normal_and_0_for_padding():
    layer = nn.Embedding(100, 400, padding_idx=-2)
    values = np.delete(layer.weight.data, 98, axis=0)
    # 39,600 numbers: six standard deviations of their mean and of their standard deviation
    assert abs(values.mean()) < 6 / 39_600**0.5 and abs(values.std() - 1) < 6 / (2 * 39_600) ** 0.5
    assert layer.padding_idx == 98 and not layer.weight.data[98].any()
    layer.reset_parameters()
    assert (layer.weight.data[:98] != values[:98]).all() and not layer.weight.data[98].any()


def test_from_pretrained(device):
    table = Tensor(np.arange(6.0).reshape(3, 2), device=device)
    frozen = nn.Embedding.from_pretrained(table)
    assert not frozen.weight.requires_grad and frozen.weight.device is device
    assert (frozen.num_embeddings, frozen.embedding_dim) == (3, 2)
    assert frozen(Tensor(np.array([2]), device=device)).numpy().tolist() == [[4, 5]]
    trained = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=0)
    trained(Tensor(np.array([0, 1]), device=device)).sum().backward()
    assert trained.weight.grad.tolist() == [[0, 0], [1, 1], [0, 0]]


# -------------------------------------------------------------------------------------------------------------- errors

ERRORS = [
    ({"ids": np.array([0, 3, 1])}, "ids must be in [0, 2], got 3 (weight (3, 2))"),
    ({"ids": np.array([[0, -1]])}, "ids must be in [0, 2], got -1 (weight (3, 2))"),
    ({"ids": np.array([0], np.uint8)}, "ids must be int64 or int32, got uint8"),
    ({"ids": np.array([0.0])}, "ids must be int64 or int32, got float64"),
    ({"weight": np.ones(3)}, "weight must be (V, D), got (3,)"),
    ({"padding_idx": 1.0}, "padding_idx must be an int or None, got 1.0"),
]


def call(given, tensor, function):
    given = {"ids": np.array([0]), "weight": np.ones((3, 2)), **given}
    return function(tensor(given.pop("ids")), tensor(given.pop("weight")), **given)


@pytest.mark.parametrize(("given", "text"), ERRORS)
def test_errors(given, text):
    with pytest.raises((RuntimeError, IndexError, TypeError), match=f"^{re.escape(f'embedding: {text}')}$"):
        call(given, Tensor, embedding)


@pytest.mark.parametrize("given", [given for given, _ in ERRORS])
def test_errors_are_pytorchs(given, torch):
    with pytest.raises((RuntimeError, IndexError, TypeError)) as ours:
        call(given, Tensor, embedding)
    with pytest.raises(ours.type):
        call(given, torch.tensor, torch.nn.functional.embedding)


LEFT_OUT = [
    ({"max_norm": 1.0}, "max_norm is left out and must be None, got 1.0; scale the weight between steps"),
    ({"sparse": True}, "sparse gradients are left out and sparse must be False, got True"),
    ({"padding_idx": 3}, "padding_idx must be in [-3, 2], got 3"),  # PyTorch: an AssertionError
    ({"padding_idx": -4}, "padding_idx must be in [-3, 2], got -4"),
]


@pytest.mark.parametrize(("given", "text"), LEFT_OUT)
def test_what_is_left_out_is_said(given, text):
    with pytest.raises(ValueError, match=f"^{re.escape(f'embedding: {text}')}$"):
        embedding(Tensor(np.array([0])), Tensor(np.ones((3, 2))), **given)
    with pytest.raises(ValueError, match=f"^{re.escape(f'Embedding: {text}')}$"):
        nn.Embedding(3, 2, **given)


def test_the_modules_errors():
    with pytest.raises(RuntimeError, match=r"^Embedding: num_embeddings must be at least 0, got -1$"):
        nn.Embedding(-1, 2)
    with pytest.raises(TypeError, match=r"^Embedding: embedding_dim must be an int, got 2.5$"):
        nn.Embedding(3, 2.5)
    with pytest.raises(ValueError, match=r"^Embedding: _weight must be \(3, 2\), got \(2, 3\)$"):
        nn.Embedding(3, 2, _weight=Tensor(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"^Embedding: embeddings must be \(V, D\), got \(3,\)$"):
        nn.Embedding.from_pretrained(Tensor(np.ones(3)))
