"""What is left out on purpose is missing to `hasattr`, and says why and what to do instead."""

import re

import numpy as np
import pytest

import minidl
import minidl.nn as nn
import minidl.nn.functional as F
from minidl import Tensor
from minidl.left_out import REASONS


@pytest.mark.parametrize("name", REASONS)
def test_a_name_of_pytorchs_says_why_it_is_not_there(name):
    assert not hasattr(minidl, name)
    with pytest.raises(AttributeError, match=re.escape(f"module 'minidl' has no attribute {name!r}: {REASONS[name]}")):
        getattr(minidl, name)


@pytest.mark.parametrize(
    "module, name, reason",
    [
        (nn, "Conv1d", "Conv2d does it with x.unsqueeze(2), whose height is 1, and a window (1, k)"),
        (nn, "Conv3d", "Conv2d is the one for 2 dimensions, and volumes are not taken"),
        (F, "conv1d", "conv2d does it with x.unsqueeze(2), whose height is 1, and a window (1, k)"),
        (F, "max_pool3d", "max_pool2d is the one for 2 dimensions, and volumes are not taken"),
    ],
)
def test_layers_of_other_dimensions_name_the_one_there_is(module, name, reason):
    with pytest.raises(AttributeError, match=re.escape(f"{name!r}: layers are of images; {reason}") + "$"):
        getattr(module, name)


@pytest.mark.parametrize("module", [minidl, nn, F])
def test_any_other_name_is_just_not_there(module):
    with pytest.raises(AttributeError, match=f"^module '{module.__name__}' has no attribute 'Transformer2d'$"):
        _ = module.Transformer2d


def test_a_convolution_of_one_dimension_is_had_as_its_reason_says(rng):
    x, w = rng.standard_normal((2, 3, 10)), rng.standard_normal((4, 3, 5))
    y = F.conv2d(Tensor(x).unsqueeze(2), Tensor(w).unsqueeze(2)).squeeze(2).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(x, 5, axis=2)
    np.testing.assert_allclose(y, np.einsum("nclk,ock->nol", windows, w), rtol=1e-12, atol=1e-13)  # 15 terms of size about 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tensor(np.ones(2, complex)),
        lambda: Tensor([1j]),
        lambda: minidl.tensor([1 + 2j]),
        lambda: minidl.from_numpy(np.ones(2, np.complex64)),
        lambda: minidl.zeros(2, dtype=complex),
        lambda: minidl.ones(2).to("complex64"),
    ],
)
def test_complex_numbers_are_refused_wherever_they_come_in(make):
    with pytest.raises(TypeError, match=r"must be of real numbers, got complex\d+: there are no complex tensors; keep"):
        make()


def test_gradients_of_gradients_are_refused():
    x = Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(NotImplementedError, match="create_graph=True asks for gradients of gradients, which minidl leaves out"):
        x.sum().backward(create_graph=True)
