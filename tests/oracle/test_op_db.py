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

from .samples import DTYPES, Converter, NotThereError, Verdict, count, error_of, internal, judge, torch

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

# Of the samples: right, refused.
COUNTS = {
    "fill in place": (12, 0),
    "abs": (3, 0),
    "abs in place": (3, 0),
    "add": (44, 0),
    "add in place": (28, 0),
    "item": (16, 0),
    "arange": (81, 0),
    "mul": (36, 0),
    "mul in place": (20, 0),
    "sub": (33, 0),
    "sub in place": (21, 0),
    "bitwise_not": (6, 0),
    "chunk": (12, 0),
    "clone": (8, 0),
    "contiguous": (8, 0),
    "clamp": (21, 0),
    "clamp in place": (21, 0),
    "cos": (12, 0),
    "cumsum": (12, 0),
    "div no_rounding_mode": (36, 0),
    "div no_rounding_mode in place": (10, 0),
    "div trunc_rounding": (27, 0),
    "div trunc_rounding in place": (15, 0),
    "div floor_rounding": (27, 0),
    "div floor_rounding in place": (15, 0),
    "exp": (12, 0),
    "exp in place": (6, 0),
    "expand": (36, 0),
    "expand_as": (12, 0),
    "eq": (40, 0),
    "remainder": (27, 0),
    "flip": (40, 0),
    "floor_divide": (27, 0),
    "ge": (36, 0),
    "gt": (36, 0),
    "le": (36, 0),
    "linspace": (186, 0),
    "linspace tensor_overload": (546, 0),
    "log": (12, 0),
    "log in place": (6, 0),
    "lt": (36, 0),
    "masked_fill": (32, 0),
    "masked_fill in place": (24, 0),
    "matmul": (45, 0),
    "max reduction_with_dim": (16, 0),
    "max reduction_no_dim": (8, 0),
    "min reduction_with_dim": (16, 0),
    "min reduction_no_dim": (8, 0),
    "max binary": (36, 0),
    "maximum": (36, 0),
    "min binary": (36, 0),
    "minimum": (36, 0),
    "bitwise_and": (18, 0),
    "bitwise_or": (18, 0),
    "bitwise_xor": (18, 0),
    "softmax": (14, 0),
    "softmax with_dtype": (28, 0),
    "nn.functional.cross_entropy": (42, 0),
    "nn.functional.adaptive_avg_pool2d": (20, 0),
    "nn.functional.binary_cross_entropy_with_logits": (52, 0),
    "nn.functional.relu": (12, 0),
    "nn.functional.conv_transpose2d": (36, 0),
    "nn.functional.conv2d": (90, 0),
    "nn.functional.layer_norm": (12, 0),
    "nn.functional.local_response_norm": (22, 11),
    "nn.functional.pad constant": (204, 0),
    "nn.functional.pad reflect": (0, 36),
    "nn.functional.pad replicate": (0, 36),
    "nn.functional.pad replicate_negative": (0, 18),
    "nn.functional.pad circular": (0, 26),
    "nn.functional.leaky_relu": (18, 0),
    "nn.functional.avg_pool2d": (12, 9),
    "nn.functional.max_pool2d float32 0": (720, 0),
    "nn.functional.max_pool2d float32 1": (720, 0),
    "nn.functional.max_pool2d float64 0": (720, 0),
    "nn.functional.max_pool2d float64 1": (720, 0),
    "nn.functional.max_pool2d int64 0": (0, 720),
    "nn.functional.max_pool2d int64 1": (0, 720),
    "nn.functional.linear": (54, 0),
    "nn.functional.elu": (6, 0),
    "nn.functional.silu": (6, 0),
    "to": (0, 96),
    "topk": (42, 0),
    "nn.functional.batch_norm": (20, 4),
    "nn.functional.gelu": (16, 0),
    "ne": (36, 0),
    "neg": (3, 0),
    "neg in place": (3, 0),
    "permute": (16, 0),
    "pow": (27, 0),
    "pow in place": (15, 0),
    "roll": (68, 0),
    "sin": (4, 0),
    "split": (8, 0),
    "split list_args": (12, 0),
    "__radd__": (36, 0),
    "__rmul__": (36, 0),
    "__rand__": (18, 0),
    "__ror__": (18, 0),
    "__rxor__": (18, 0),
    "__rmatmul__": (45, 0),
    "__rmod__": (27, 0),
    "__rpow__": (19, 8),
    "__rsub__": (27, 0),
    "tanh": (4, 0),
    "tanh in place": (2, 0),
    "sqrt": (4, 0),
    "sqrt in place": (2, 0),
    "reshape": (28, 0),
    "view": (28, 0),
    "view_as": (16, 0),
    "flatten": (24, 0),
    "gather": (16, 12),
    "__getitem__": (64, 0),
    "sort": (232, 0),
    "bool": (8, 12),
    "double": (8, 12),
    "float": (8, 12),
    "half": (8, 12),
    "int": (8, 12),
    "long": (8, 12),
    "empty_like": (28, 0),
    "zeros_like": (28, 0),
    "ones_like": (28, 0),
    "randn": (4, 0),
    "randn_like": (14, 0),
    "rand_like": (14, 0),
    "randint": (42, 0),
    "full_like": (29, 0),
    "ones": (8, 0),
    "zeros": (8, 0),
    "full": (16, 0),
    "empty": (24, 0),
    "eye": (360, 0),
    "stack": (36, 0),
    "cat": (36, 0),
    "repeat": (128, 0),
    "squeeze": (32, 0),
    "squeeze multiple": (24, 0),
    "unsqueeze": (36, 0),
    "zero_": (12, 0),
    "transpose": (32, 0),
    "T": (8, 0),
    "mT": (20, 0),
    "sigmoid": (12, 0),
    "sigmoid in place": (6, 0),
    "nn.functional.smooth_l1_loss": (16, 0),
    "nn.functional.l1_loss": (12, 0),
    "log_softmax": (14, 0),
    "log_softmax with_dtype": (28, 0),
    "where": (24, 0),
    "nonzero": (96, 0),
    "norm": (60, 24),
    "norm nuc": (0, 4),
    "norm fro": (6, 0),
    "norm inf": (6, 2),
    "t": (12, 0),
    "nn.functional.dropout": (38, 0),
    "nn.functional.dropout2d": (26, 0),
    "nn.functional.embedding": (6, 0),
    "nn.functional.softplus": (6, 0),
    "nn.functional.mse_loss": (12, 0),
    "all": (80, 0),
    "any": (80, 0),
    "amax": (80, 0),
    "amin": (80, 0),
    "argmax": (39, 0),
    "argmin": (39, 0),
    "mean": (40, 0),
    "std": (28, 0),
    "std unbiased": (4, 0),
    "var": (28, 0),
    "var unbiased": (4, 0),
    "sum": (80, 0),
    "nn.functional.nll_loss": (122, 0),
    "argsort": (232, 0),
}


def test_what_there_is():
    """PyTorch's table has the ops that are counted."""
    assert sorted(CASES) == sorted(COUNTS)


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
