"""What setup.cfg and conftest.py ask of pytest and Hypothesis."""

import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = Path(__file__).parents[1] / "examples"
OURS = ["minidl", "minidl.kernels.cpu.im2col", "experiments.pools", *sorted({path.stem for path in EXAMPLES.glob("*/*.py")})]


def test_hypothesis_draws_the_same_examples_everywhere():
    """They depend on neither CI, a clock nor what failed before."""
    assert (settings().derandomize, settings().deadline, settings().database) == (True, None, None)
    assert HealthCheck.too_slow in settings().suppress_health_check


@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning])
@pytest.mark.parametrize("module", OURS)
def test_what_is_deprecated_is_an_error_in_our_modules(module, category):
    with pytest.raises(category, match="soon gone"):
        warnings.warn_explicit("soon gone", category, "file.py", 1, module)


@pytest.mark.parametrize("module", ["numpy", "database", "trainer", "my.minidl"])
def test_what_is_deprecated_is_a_warning_in_others(module):
    with pytest.warns(DeprecationWarning, match="soon gone"):
        warnings.warn_explicit("soon gone", DeprecationWarning, "file.py", 1, module)
