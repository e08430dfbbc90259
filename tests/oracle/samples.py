"""One sample of PyTorch's own tables, op_db and module_db, in both: is minidl right, does it refuse, or is it wrong?

make samples        counts, and writes what stands in sample_counts.json, op by op, and in docs/pytorch.md
"""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings

from minidl import Tensor

torch = pytest.importorskip("torch")

COUNTS_FILE = Path(__file__).with_name("sample_counts.json")

DTYPES = [torch.float32, torch.float64, torch.int64, torch.bool]

# Two orders of adding n numbers of like size differ by about sqrt(n) * eps of the sum of their sizes. The longest sums of the
# samples have some thousand terms, and a gradient goes through a few such sums. A wrong formula is off by far more.
ROUNDINGS = 256

MOST_AXES = 64  # of a NumPy array

# A clear error is minidl's own, "op: rule, got ...", or Python's about an argument that the signature lacks.
OWN = re.compile(r"[\w.]+: .")
SIGNATURE = re.compile(
    r"unexpected keyword argument|takes .* positional argument|required positional argument|multiple values for"
)


def counts_of(table: str) -> dict[str, tuple[int, int]]:
    """Of each op or module of a table how many samples are right, and how many are refused: those that `make samples` found."""
    return {name: (right, refused) for name, (right, refused) in json.loads(COUNTS_FILE.read_text())[table].items()}


def internal(name: str) -> ModuleType:
    """A module of PyTorch's own tests. What it makes Hypothesis do is undone: other files' tests come after it."""
    profile = settings.get_current_profile_name()
    module: ModuleType = pytest.importorskip(f"torch.testing._internal.{name}")
    settings.load_profile(profile)
    return module


class NotThereError(Exception):
    """A sample holds what can't be said in minidl: a complex number, say."""


class Verdict(NamedTuple):
    """`result` is right, refused or wrong, or refused by both; `why` the error's text, or what is not the same."""

    result: str
    why: str = ""


class Converter:
    """PyTorch's values as minidl's. Leaves that require a gradient are kept in pairs, `leaves`."""

    def __init__(self) -> None:
        self.leaves: list[tuple[Tensor, Any]] = []
        self._known: dict[int, Tensor] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, (list, tuple)):
            return tuple(map(self, value)) if isinstance(value, tuple) else list(map(self, value))
        if isinstance(value, dict):
            return {key: self(v) for key, v in value.items()}
        if isinstance(value, torch.dtype):
            return as_dtype(value)
        return str(value) if isinstance(value, torch.device) else value

    def _tensor(self, value: Any) -> Tensor:
        if id(value) not in self._known:
            as_dtype(value.dtype)
            if value.layout is not torch.strided or value.ndim > MOST_AXES:
                raise NotThereError(f"there are no tensors of {value.layout}, none of more than {MOST_AXES} axes")
            if value.requires_grad:
                value.retain_grad()
                value.grad = None  # some samples share their leaves
            mine = Tensor(value.detach().numpy(), requires_grad=value.requires_grad)
            self._known[id(value)] = mine
            if value.requires_grad:
                self.leaves.append((mine, value))
        return self._known[id(value)]


def as_dtype(dtype: Any) -> np.dtype:
    """NumPy's dtype of the same name."""
    if dtype.is_complex or dtype is torch.bfloat16:
        raise NotThereError(f"there is no {dtype}")
    return np.dtype(str(dtype).removeprefix("torch."))


def judge(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    random: bool = False,
    floor: float = 0.0,
) -> Verdict:
    """One call in both: values, dtypes, shapes and gradients. Of random numbers only dtypes and shapes."""
    convert = Converter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of both: a mean of nothing, degrees of freedom
        try:
            mine = ours(*convert(tuple(args)), **convert(kwargs))
        except NotThereError as error:
            return Verdict("refused", str(error))
        except Exception as error:
            if not is_clear(error):
                return Verdict("wrong", f"{type(error).__name__}: {error}")
            both = error_of(theirs, args, kwargs)
            return Verdict("refused by both" if both else "refused", f"{type(error).__name__}: {error}")
        try:
            their = theirs(*args, **kwargs)
        except Exception as error:
            return Verdict("wrong", f"accepted, PyTorch has {type(error).__name__}: {error}")
        return compared(flat(mine), flat(their), convert.leaves, random=random, floor=floor)


def error_of(call: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """The text of the error that the call raises; empty if it raises none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(*args, **kwargs)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def is_clear(error: Exception) -> bool:
    """Does the error name the op and the rule, or the argument that is not taken?"""
    return bool(OWN.match(str(error)) or (isinstance(error, TypeError) and SIGNATURE.search(str(error))))


def flat(value: Any) -> list[Any]:
    """The outputs, one after the other."""
    return [x for v in value for x in flat(v)] if isinstance(value, (list, tuple)) else [value]


def compared(
    mine: list[Any], their: list[Any], leaves: list[tuple[Tensor, Any]], *, random: bool = False, floor: float = 0.0
) -> Verdict:
    """Outputs, and the gradients of the leaves: right, or wrong with the first difference."""
    if len(mine) != len(their):
        return Verdict("wrong", f"{len(mine)} outputs, PyTorch has {len(their)}")
    for i, (m, t) in enumerate(zip(mine, their, strict=True)):
        if why := difference(m, t, random=random):
            return Verdict("wrong", f"output {i}: {why}")
    tensors = [(m, t) for m, t in zip(mine, their, strict=True) if isinstance(t, torch.Tensor)]
    if any(m.requires_grad != t.requires_grad for m, t in tensors):
        return Verdict("wrong", f"requires_grad of {len(tensors)} outputs is not the same")
    if random or not any(t.requires_grad for _, t in tensors):
        return Verdict("right")
    rng = np.random.default_rng(99)
    for m, t in tensors:
        if t.requires_grad:
            upstream = rng.standard_normal(m.shape).astype(m.dtype)
            m.backward(upstream, retain_graph=True)
            t.backward(torch.tensor(upstream), retain_graph=True)
    for i, (m, t) in enumerate(leaves):
        if (m.grad is None) != (t.grad is None):
            return Verdict("wrong", f"gradient {i} is {'missing' if m.grad is None else 'there, PyTorch has none'}")
        if t.grad is not None and (why := difference(m.grad, t.grad, floor=floor)):
            return Verdict("wrong", f"gradient {i}: {why}")
    return Verdict("right")


def difference(mine: Any, their: Any, *, random: bool = False, floor: float = 0.0) -> str:
    """Empty if the two are the same, else what is not: type, dtype, shape, or values.

    Values may be off by ROUNDINGS of the largest one, or of `floor` if that is larger.
    """
    if not isinstance(their, torch.Tensor):
        return "" if type(mine) is type(their) and mine == their else f"{mine!r}, PyTorch has {their!r}"
    if not hasattr(mine, "dtype"):
        return f"a {type(mine).__name__}, PyTorch has a tensor"
    dtype = str(their.dtype).removeprefix("torch.")
    if (str(mine.dtype), mine.shape) != (dtype, tuple(their.shape)):
        return f"{mine.dtype} {mine.shape}, PyTorch has {dtype} {tuple(their.shape)}"
    if random:
        return ""
    a, b = np.asarray(mine.detach() if isinstance(mine, Tensor) else mine), their.detach().numpy()
    if a.dtype.kind != "f":
        return "" if np.array_equal(a, b) else f"{np.count_nonzero(a != b)} of {a.size} elements are not the same"
    largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    tolerance = ROUNDINGS * float(np.finfo(a.dtype).eps) * max(largest, floor)
    if np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True):
        return ""
    return f"off by {np.nanmax(np.abs(a.astype(np.float64) - b), initial=0):.3g}, the largest is {largest:.3g}"


def count(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """How many are right, and how many are refused."""
    results = Counter(verdict.result for verdict in verdicts)
    return results["right"], results["refused"]
