"""PyTorch's own samples of ops, `op_db`: each is right, or refused with one clear error. None is wrong.

An op that minidl has is run with all samples of float32, float64, int64 and bool, its gradients where PyTorch has them; so is
its form in place, on a copy.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import minidl
import minidl.nn.functional as F
from minidl import Tensor

from .samples import DTYPES, Converter, NotThereError, Verdict, count, counts_of, error_of, internal, judge, torch

op_db = internal("common_methods_invocations").op_db

# Where PyTorch's table calls something else than the op by its name.
CALLS: dict[str, Callable[..., Any]] = {
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "zero_": lambda x: x.clone().zero_(),
    "nn.functional.embedding": lambda weight, index, **settings: F.embedding(index, weight, **settings),
}

RANDOM = {"empty", "empty_like", "nn.functional.dropout", "nn.functional.dropout2d"}
RANDOM |= {"rand_like", "randint", "randn", "randn_like"}

# These gradients are small differences of numbers of size 1 and more.
CANCELS = {"nn.functional.batch_norm", "nn.functional.layer_norm"}

# Equal elements may come in any order: compared is what lies at the positions. The number says where `dim` stands.
ANY_ORDER = {"argsort": 0, "sort": 0, "topk": 1}

# With samples for many seconds: a test for each dtype and each of so many parts.
LARGE = {"nn.functional.max_pool2d": 2}


def ours(name: str) -> Callable[..., Any] | None:
    """What minidl has under the name, or None."""
    if name in CALLS:
        return CALLS[name]
    if name.startswith("nn.functional."):
        return getattr(F, name.removeprefix("nn.functional."), None)
    return getattr(Tensor, name, None) or getattr(minidl, name, None)


def at_positions(call: Callable[..., Any], place: int) -> Callable[..., Any]:
    """The op, with what lies at the positions that it finds in place of the positions."""

    def called(x: Any, *args: Any, **kwargs: Any) -> Any:
        found = call(x, *args, **kwargs)
        if kwargs.get("stable"):
            return found
        dim = kwargs.get("dim", args[place] if len(args) > place else -1)
        indices = found[1] if isinstance(found, tuple) else found
        return found[:1] if isinstance(found, tuple) else (), x.gather(dim, indices), indices * 0

    return called


def on_a_copy(call: Callable[..., Any]) -> Callable[..., Any]:
    """A change in place of a copy, which is no leaf."""
    return lambda x, *args, **kwargs: call(x.clone(), *args, **kwargs)


class Case(NamedTuple):
    """PyTorch's description of an op that minidl has, the op in both, the dtypes of its samples, and which of them: part,
    part + parts, ..."""

    info: Any
    mine: Callable[..., Any]
    theirs: Callable[..., Any]
    dtypes: list[Any]
    part: int = 0
    parts: int = 1


def _cases() -> Iterator[tuple[str, Case]]:
    """Label -> what is tested at once."""
    for info in op_db:
        label = f"{info.name} {info.variant_test_name}".strip()
        dtypes = [dtype for dtype in DTYPES if dtype in info.dtypes]
        mine, theirs = ours(info.name), info.op
        if mine is not None and info.name in LARGE:
            for dtype, part in itertools.product(dtypes, range(LARGE[info.name])):
                name = f"{label} {dtype}".replace("torch.", "")
                yield f"{name} {part}", Case(info, mine, theirs, [dtype], part, LARGE[info.name])
        elif mine is not None and dtypes:
            if info.name in ANY_ORDER:
                mine, theirs = (at_positions(call, ANY_ORDER[info.name]) for call in (mine, theirs))
            yield label, Case(info, mine, theirs, dtypes)
        if info.inplace_variant and hasattr(Tensor, f"{info.name}_"):
            yield (
                f"{label} in place",
                Case(info, *map(on_a_copy, (getattr(Tensor, f"{info.name}_"), info.inplace_variant)), dtypes),
            )


CASES = dict(_cases())
MISSING = sorted({info.name for info in op_db if ours(info.name) is None})


def verdicts(label: str) -> Iterator[Verdict]:
    """Of each sample."""
    info, mine, theirs, dtypes, part, parts = CASES[label]
    for dtype in dtypes:
        torch.manual_seed(0)
        samples = info.sample_inputs("cpu", dtype, requires_grad=info.supports_autograd and dtype.is_floating_point)
        for sample in itertools.islice(samples, part, None, parts):
            yield judge(
                mine,
                theirs,
                (sample.input, *sample.args),
                sample.kwargs,
                random=info.name in RANDOM,
                floor=float(info.name in CANCELS),
            )


REFUSED = {
    "memory_format": "memory has one order, channels-last for images: to and the casts take no other",
    "of floats": "pools and normalisations are of floats, and batches have 2 axes or more",
    "x must be floats": "pools and normalisations are of floats, and batches have 2 axes or more",
    "mode must be 'constant'": "pad pads with a constant",
    "p must be 'fro'": "norms have a p of at least 1, none is of singular values",
    "negative integer powers": "an integer has no negative power",
    "index must": "an index has int32 or int64, and x's axes",
    "stride must": "a stride is an int or two",
}
"""Words of the errors: why. Nothing is refused for another reason."""

COUNTS = counts_of("op_db")


def test_what_there_is():
    """PyTorch's table has the ops that are counted."""
    assert sorted(CASES) == sorted(COUNTS), "`make samples` counts those of what is new"


@pytest.mark.parametrize("label", COUNTS)
def test_samples(label):
    found = list(verdicts(label))
    assert not [verdict for verdict in found if verdict.result == "wrong"]
    reasons = {verdict.why for verdict in found if verdict.result == "refused"}
    assert not [why for why in reasons if not any(words in why for words in REFUSED)]
    assert count(found) == COUNTS[label]


# Of PyTorch's errors, the words of those that minidl does not raise: it takes a number for either operand.
ACCEPTED = re.compile(r"got \(int, Tensor\)|must be Tensor, not int|doesn't apply to a 'int' object")


@pytest.mark.parametrize("label", [label for label in COUNTS if CASES[label].info.error_inputs_func and CASES[label].part == 0])
def test_errors(label):
    """What PyTorch refuses minidl refuses."""
    info = CASES[label].info
    for error in info.error_inputs("cpu"):
        sample = error.sample_input
        args = (sample.input, *sample.args)
        try:
            mine, settings = Converter()(args), Converter()(sample.kwargs)
        except NotThereError:
            continue
        theirs = error_of(info.op, args, sample.kwargs)
        if theirs and not ACCEPTED.search(theirs):
            assert error_of(ours(info.name), mine, settings), f"accepted, PyTorch has {theirs}"
