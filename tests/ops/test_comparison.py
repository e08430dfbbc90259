"""minidl.ops.comparison: what tests/oracle/test_in_place.py does not compare with PyTorch."""

import numpy as np
import pytest

from minidl import Tensor

A = np.array([1.0, 2.0, 3.0])


def test_results_are_bool_tensors_of_the_device_without_a_gradient(device):
    x = Tensor(A, True, device)
    for y in (x == 2, x < Tensor(A[::-1].copy(), True, device), x >= A, x != 2, (x > 1) & (x < 3), ~(x > 1)):
        assert type(y) is Tensor and y.dtype == np.bool_ and y.device is device and not y.requires_grad
    assert ((x == 2).sum().item(), (x >= A).sum().item()) == (1, 3)


def test_what_is_no_operand_is_just_another_object():
    x = Tensor(A)
    assert (x == None) is False and (x != "a") is True and (x == [1.0, 2.0, 3.0]) is False  # noqa: E711
    with pytest.raises(TypeError):
        x < None  # noqa: B015


def test_errors():
    x = Tensor(A)
    with pytest.raises(RuntimeError, match=r"^eq: sizes must be equal or 1, .* got x \(3,\), y \(2,\)$"):
        x == Tensor(np.ones(2))  # noqa: B015
    with pytest.raises(RuntimeError, match=r"^bitwise_and: operands must be bools or integers, got float64$"):
        (x > 1) & x
    with pytest.raises(RuntimeError, match=r"^bitwise_not: "):
        _ = ~x
    with pytest.raises(RuntimeError, match=r"^lt: x is on cpu:0, y on cpu:1; move one"):
        x < Tensor(A, device="cpu:1")  # noqa: B015
