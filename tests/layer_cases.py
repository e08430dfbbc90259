"""Each layer's own examples, from which the tests of every layer are made.

An op's test file tests/ops/test_<name>.py has a dict LAYER_CASES: name -> LayerCase. The first word of a case's name is the
name of the function in minidl.nn.functional. tests/test_every_layer.py says what is done with them, and what else a layer owes.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import minidl.nn.functional as F
from minidl import Tensor


@dataclass(frozen=True)
class LayerCase:
    """One call of a layer's function, written so that minidl and PyTorch can both make it.

    call        : call(F, *arrays, *constants) with F either's `nn.functional`, and tensors for both
    arrays      : floats, each with a gradient: what the module takes, then its parameters in their order
    constants   : without a gradient: what the module takes, class ids and the like, then its buffers of floats in their order
    module      : module(nn), for the nn of either: a module that with these parameters and buffers does what `call` does. Every
                  setting differs from its default, and from every other that it could be mistaken for
    theirs      : the call in PyTorch, where it has no function of this name; "" where there is nothing to compare with
    elementwise : it is also compared with PyTorch at 0, at infinities and NaN, and where exponentials overflow
    bends_at    : where its slope jumps, if anywhere, when all elements of its arrays are there
    """

    call: Callable[..., Any]
    arrays: list[np.ndarray]
    constants: tuple[np.ndarray, ...] = ()
    module: Callable[[Any], Any] | None = None
    theirs: Callable[..., Any] | str | None = None
    elementwise: bool = False
    bends_at: float = 0.0

    def ours(self, *tensors: Any) -> Any:
        """The call in minidl, on the device of the tensors."""
        return self.call(F, *tensors, *(Tensor(c.copy(), device=tensors[0].device) for c in self.constants))


def uniform(*shapes: tuple[int, ...], low: float = -2.0, high: float = 2.0, channels_last: bool = False) -> list[np.ndarray]:
    """An array for each shape, uniform in [low, high), the same ones at every call."""
    rng = np.random.default_rng(5)
    arrays = [rng.uniform(low, high, shape) for shape in shapes]
    if channels_last:
        arrays = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in arrays]
    return arrays


IMAGES = uniform((2, 4, 7, 6))
ROWS = uniform((5, 4))


@cache
def layer_cases() -> dict[str, LayerCase]:
    """Those of all test files."""
    cases: dict[str, LayerCase] = {}
    for path in sorted((Path(__file__).parent / "ops").glob("test_*.py")):
        if "LAYER_CASES" in path.read_text():
            spec = importlib.util.spec_from_file_location(f"layer_cases_of_{path.stem}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            cases |= module.LAYER_CASES
    return cases
