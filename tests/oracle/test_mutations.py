"""PyTorch's columns of the table of docs/mutations.md."""

import pytest
from mutation_page import check_columns

from minidl.study.gallery.mutation_checks import CASES, CHECKS, KINK, MISSED, WITHOUT_TORCH, MismatchError, verdict
from minidl.study.gallery.mutations import find, mutation

pytest.importorskip("torch")


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in WITHOUT_TORCH])
def test_the_column_is_what_is_computed(check):
    check_columns([check])


@pytest.mark.parametrize("case", CASES)
def test_right_code_equals_pytorchs(case):
    CHECKS["PyTorch"](CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_pytorchs_gradcheck_passes_right_code(case):
    if case == "max_pool2d, ties":
        with pytest.raises(MismatchError, match=r"^torch.autograd.gradcheck returned False"):
            CHECKS["torch gradcheck"](CASES[case])
    else:
        CHECKS["torch gradcheck"](CASES[case])


def test_pytorchs_columns_can_fail():
    with mutation("sigmoid-of-output"):
        with pytest.raises(MismatchError, match=r"^gradient: "):
            CHECKS["PyTorch"](CASES["sigmoid"])
        with pytest.raises(MismatchError):
            CHECKS["torch gradcheck"](CASES["sigmoid"])
    with mutation("max-pool2d-zero-padding"), pytest.raises(MismatchError, match=r"^output: "):
        CHECKS["PyTorch"](CASES["max_pool2d"])


def test_its_gradcheck_may_be_called_after_a_tie():
    assert verdict("torch gradcheck", "max_pool2d, ties", find("max-pool2d-ties-last")) == KINK
    assert verdict("torch gradcheck", "max_pool2d", find("max-pool2d-ties-last")) == MISSED


def test_all_other_columns_need_no_pytorch():
    assert set(CHECKS) - set(WITHOUT_TORCH) == {"PyTorch", "torch gradcheck"}
