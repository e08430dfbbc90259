"""Grade a student's backward, and name its mistake where the mutation gallery knows it.

    python -m minidl.study grade examples/assignments/03_linear.py

The file says `ASSIGNMENT = "linear"` and defines

    forward(*inputs, **settings)     -> y, saved
    backward(gy, saved)              -> a gradient for each input; for one input the array itself will do

For each example, in float64, the gradients are compared with minidl's; a wrong one gets gradcheck's diagnosis too. A
mistake is named if a mutation of the gallery gives the student's gradient, to rounding, on all examples that it can run.

Grading runs the student's file, with all that the one who grades may do.
"""

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minidl.gradcheck import GradcheckError, gradcheck
from minidl.kernels import plain_kernels
from minidl.study.gallery.mutation_checks import CASES, Case
from minidl.study.gallery.mutations import GALLERY, Mutation, mutation
from minidl.study.models import module_from
from minidl.tensor import Function, Tensor

PAGE = "docs/mutations.md"


@dataclass(frozen=True)
class Example:
    """A case, the settings that the student's forward gets with its inputs, and whether there are slopes to check."""

    case: Case
    settings: dict[str, Any] = field(default_factory=dict)
    smooth: bool = True


@dataclass(frozen=True)
class Assignment:
    """The file of minidl with the mistakes, the names of the inputs, and examples."""

    op: str
    inputs: tuple[str, ...]
    examples: tuple[Example, ...]


def _pool(case: str, kernel: Any, stride: Any, padding: Any) -> Example:
    return Example(CASES[case], {"kernel": kernel, "stride": stride, "padding": padding}, smooth=not CASES[case].whole)


def _conv(shapes: Any, stride: tuple[int, int], padding: tuple[int, int]) -> Example:
    case = replace(CASES["conv2d"], function=lambda F, *a: F.conv2d(*a, stride, padding), shapes=shapes)
    return Example(case, {"stride": stride, "padding": padding})


def _lrn(case: str, size: int, alpha: float, k: float) -> Example:
    return Example(CASES[case], {"size": size, "alpha": alpha, "beta": 0.75, "k": k})


def _kept() -> np.ndarray:
    """The mask that dropout draws in its case: where an input of ones is not 0."""
    return CASES["dropout"].run(Tensor(np.ones(CASES["dropout"].shapes[0]))).numpy() > 0


ASSIGNMENTS = {
    "relu": Assignment("relu", ("x",), (Example(CASES["relu"]),)),
    "add": Assignment("arithmetic", ("x", "y"), (Example(CASES["add"]), Example(CASES["add, broadcast"]))),
    "linear": Assignment(
        "linear",
        ("x", "w", "b"),
        (Example(CASES["linear"]), Example(replace(CASES["linear"], shapes=((4, 3), (3, 3), (3,))))),
    ),
    "softmax": Assignment("softmax", ("x",), (Example(CASES["softmax"]),)),
    "cross_entropy": Assignment(
        "cross_entropy",
        ("x",),
        (
            Example(CASES["cross_entropy"], {"labels": np.array([1, 0, 4, 2])}),
            Example(CASES["cross_entropy, ignored"], {"labels": np.array([1, -100, 4, 2])}),
        ),
    ),
    "dropout": Assignment("dropout", ("x",), (Example(CASES["dropout"], {"mask": _kept(), "p": 0.1}),)),
    "max_pool2d": Assignment(
        "max_pool2d",
        ("x",),
        (
            _pool("max_pool2d", (3, 2), (2, 1), (1, 1)),
            _pool("max_pool2d, 2 x 2", (2, 2), (2, 2), (0, 0)),
            _pool("max_pool2d, ties", (2, 2), (2, 2), (0, 0)),
        ),
    ),
    "conv2d": Assignment(
        "conv2d",
        ("x", "w", "b"),
        (_conv(((5, 2, 3, 4), (4, 2, 3, 2), (4,)), (2, 1), (1, 0)), _conv(((2, 2, 4, 5), (3, 2, 3, 3), (3,)), (1, 1), (0, 0))),
    ),
    "batch_norm": Assignment("batch_norm", ("x", "w", "b"), (Example(CASES["batch_norm"]),)),
    "local_response_norm": Assignment(
        "local_response_norm", ("x",), (_lrn("lrn", 5, 1.0, 1.0), _lrn("lrn, even", 4, 1.0, 1.0))
    ),
}


class GradeError(RuntimeError):
    """The student's file can't be graded, or breaks a rule. The text names the rule, and the student's line if there is one."""


@dataclass(frozen=True)
class Grade:
    """right, and what is said of the file."""

    right: bool
    text: str


def grade(path: Path) -> Grade:
    """The grade of one file. FileNotFoundError if there is none; whatever else is wrong with it stands in the text."""
    if not path.is_file():
        raise FileNotFoundError(f"grade: {path} is not a file")
    try:
        module = _called(path, lambda: module_from(path))
        assignment = _assignment(module, path)
        rows = [_graded(module, path, assignment, example) for example in assignment.examples]
    except _NotWrittenError as error:
        return Grade(False, f"{path}: not written yet: {error}")
    except GradeError as error:
        return Grade(False, f"{path}: {error}")
    name = module.ASSIGNMENT
    lines, right = [f"{path}: {name}"], True
    for i, x in enumerate(assignment.inputs):
        wrong = [k for k, (given, wanted) in enumerate(rows) if _differs(given[i], wanted[i])]
        if not wrong:
            lines.append(f"  g{x}: right, on {len(rows)} example{'s' if len(rows) > 1 else ''}")
            continue
        right = False
        given, wanted = rows[wrong[0]]
        about = _about(assignment.examples[wrong[0]])
        lines.append(f"  g{x}: wrong, on {len(wrong)} of {len(rows)} examples; {about}: {_difference(given[i], wanted[i])}")
        lines += [f"     gradcheck: {said}" for said in _diagnosis(module, name, assignment, wrong[0], i, given[i], wanted[i])]
        for each in _mistakes(assignment, i, [given[i] for given, _ in rows]):
            lines.append(f"     the mistake is {each.name}: {each.mistake} See {PAGE}#{each.name}")
    return Grade(right, "\n".join(lines))


# ---------------------------------------------------------------------------------------------------- the student's code


class _NotWrittenError(Exception):
    """The student's function raises NotImplementedError."""


def _called(path: Path, call: Callable[[], Any]) -> Any:
    """What the student's code returns; an exception in it becomes a GradeError that points at the line."""
    try:
        return call()
    except NotImplementedError as error:
        raise _NotWrittenError(str(error) or "it raises NotImplementedError") from error
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError):
            raise GradeError(f"line {error.lineno} is not Python: {error.msg}: {(error.text or '').strip()}") from error
        here = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path.resolve()]
        where = f"line {here[-1].lineno}, in {here[-1].name}: {here[-1].line}\n  " if here else ""
        raise GradeError(f"{where}{type(error).__name__}: {error}") from error


def _assignment(module: ModuleType, path: Path) -> Assignment:
    name = getattr(module, "ASSIGNMENT", None)
    if not isinstance(name, str) or name not in ASSIGNMENTS:
        raise GradeError(f"ASSIGNMENT must be one of {', '.join(ASSIGNMENTS)}, got {name!r}")
    for function in ("forward", "backward"):
        if not callable(getattr(module, function, None)):
            raise GradeError(f"{function} must be a function of the file, got {getattr(module, function, None)!r}")
    sys.modules.pop(module.__name__, None)
    return ASSIGNMENTS[name]


def _graded(
    module: ModuleType, path: Path, assignment: Assignment, example: Example
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The student's gradients and the right ones."""
    wanted_y, gy, wanted = _gradients(example.case)
    inputs = example.case.arrays()
    made = _called(path, lambda: module.forward(*inputs, **example.settings))
    if not isinstance(made, tuple) or len(made) != 2:
        raise GradeError(f"forward must return y and saved, two things, got {type(made).__name__}")
    y, saved = made
    if np.shape(y) != wanted_y.shape or _differs(np.asarray(y), wanted_y):
        raise GradeError(f"forward was changed: y is not what it should be; {_difference(np.asarray(y), wanted_y)}")
    incoming = gy.copy()
    given = _called(path, lambda: module.backward(incoming, saved))
    for name, now, before in zip(("gy", *assignment.inputs), (incoming, *inputs), (gy, *example.case.arrays()), strict=True):
        if not np.array_equal(now, before):
            raise GradeError(f"{name} {before.shape} must not be changed in place, others hold it too; work on a copy")
    return _as_gradients(given, assignment), wanted


def _as_gradients(given: Any, assignment: Assignment) -> list[np.ndarray]:
    names = [f"g{x}" for x in assignment.inputs]
    gradients = list(given) if isinstance(given, (tuple, list)) else [given]
    if len(gradients) != len(names):
        raise GradeError(f"backward must return {len(names)}: {', '.join(names)}; got {len(gradients)}")
    for name, gradient in zip(names, gradients, strict=True):
        if not isinstance(gradient, (np.ndarray, np.floating)):
            raise GradeError(f"{name} must be an array of NumPy, got {gradient!r}"[:200])
        if gradient.dtype != np.float64:
            raise GradeError(f"{name} must be float64, as its input is, got {gradient.dtype}")
    return [np.asarray(gradient) for gradient in gradients]


# ------------------------------------------------------------------------------------------------------------ comparing


def _gradients(case: Case) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """minidl's output, the incoming gradient, and what backward returns for each input, its shape unchecked."""
    with plain_kernels():
        y = case.run(*case.tensors())
        gy = np.random.default_rng(1).normal(size=y.shape)
        node: Any = y._node
        grads = node.backward(gy.copy())
        while isinstance(node._edges[0], Function):  # as cross_entropy's mean, on top of its op
            node = node._edges[0]
            grads = node.backward(grads[0])
        return y.detach().numpy(), gy, [np.array(g) for g in grads[: len(case.shapes)]]


def _differs(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape != b.shape or not np.allclose(a, b, rtol=1e-7, atol=1e-10)


def _difference(given: np.ndarray, wanted: np.ndarray) -> str:
    if given.shape != wanted.shape:
        return f"its shape must be {wanted.shape}, got {given.shape}"
    apart = np.where(np.isfinite(given), np.abs(given - wanted), np.inf)
    worst = tuple(int(k) for k in np.unravel_index(int(apart.argmax()), apart.shape))
    count = int((~np.isclose(given, wanted, rtol=1e-7, atol=1e-10)).sum())
    at = f", [{', '.join(map(str, worst))}]," if worst else ""
    square = float((wanted * wanted).sum())
    factor = float((given * wanted).sum()) / square if square else 0.0
    if factor and not _differs(given, factor * wanted):
        return f"all numbers are {factor:.6g} times what they must be{at or ','} as {given[worst]:.6g} for {wanted[worst]:.6g}"
    return f"{count} of {given.size} numbers differ; at the worst{at} it must be {wanted[worst]:.6g}, got {given[worst]:.6g}"


def _about(example: Example) -> str:
    shapes = " and ".join(str(shape) for shape in example.case.shapes)
    settings = ", ".join(
        f"{k}={v.tolist() if isinstance(v, np.ndarray) else v}" for k, v in example.settings.items() if k != "mask"
    )
    return f"inputs {shapes}{', ' + settings if settings else ''}"


def _diagnosis(
    module: ModuleType, name: str, assignment: Assignment, k: int, i: int, given: np.ndarray, wanted: np.ndarray
) -> list[str]:
    """What gradcheck says of the student's op, as far as it can say something: shapes must fit, and there must be a slope."""
    example = assignment.examples[k]
    if given.shape != wanted.shape or not example.smooth:
        return []

    class Op(Function):
        def forward(ctx, *inputs: Any) -> Any:
            y, ctx.held = module.forward(*inputs, **example.settings)
            return np.asarray(y)

        def backward(ctx, gy: Any) -> list[np.ndarray]:
            return _as_gradients(module.backward(gy, ctx.held), assignment)

    Op.name = name
    tensors = [Tensor(x, requires_grad=j == i) for j, x in enumerate(example.case.arrays())]
    try:
        gradcheck(Op.apply, tensors)
    except GradcheckError as error:
        return [str(error).replace(f"input {i}", assignment.inputs[i])]
    except Exception as error:  # the student's code again, with other incoming gradients: the grade is made without it
        return [f"could not run: {type(error).__name__}: {error}"]
    return []


def _mistakes(assignment: Assignment, i: int, given: list[np.ndarray]) -> list[Mutation]:
    """The mutations that give the student's gradient for input i on all examples."""
    return [each for each in GALLERY if each.op == assignment.op and _explains(each, assignment, i, given)]


def _explains(each: Mutation, assignment: Assignment, i: int, given: list[np.ndarray]) -> bool:
    compared = False
    for example, gradient in zip(assignment.examples, given, strict=True):
        right = _gradients(example.case)[2][i]
        try:
            with mutation(each.name):
                made = _gradients(example.case)[2]
        except (ValueError, IndexError, TypeError):  # a mistake that stops here, as a shape does not fit
            continue
        if _differs(gradient, made[i]):
            return False
        compared |= _differs(gradient, right)
    return compared
