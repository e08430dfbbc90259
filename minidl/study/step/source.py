"""Which lines of an op truly ran, forward and backward; and its equations, from the docstring beside them.

    with SourceLines() as lines, plain_kernels():
        y = model(images)
        node = y._node
        y.sum().backward()
    forward, backward = lines.of(node)

Lines are recorded by Python's trace function, while an op's method runs and no longer: one that was set before, a debugger's
say, is put aside for that time only. Python traces one thread: what `minidl.parallel` does on other threads is not seen.
Without `plain_kernels()` an op's replacement may run; then its lines are the ones recorded.
"""

import ast
import inspect
import linecache
import re
import sys
import textwrap
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from minidl.device import Array
from minidl.observer import Observer
from minidl.tensor import Function

_PACKAGE = Path(__file__).parents[2]
_FOLDERS = tuple(_PACKAGE.joinpath(*parts) for parts in (("ops",), ("kernels", "cpu"), ("kernels", "cuda")))


@dataclass(frozen=True)
class Passage:
    """A function and which of its lines ran.

    file       : "minidl/ops/conv2d.py"; of a file elsewhere its name alone
    function   : "conv2d_forward", or "Conv2dFunction.forward" for a method
    first_line : the number of lines[0] in the file, decorators included
    lines      : the function's source, dedented, without line ends
    ran        : numbers, in the file, of the lines that ran. A statement that did counts with all of its lines, an `if` or a
                 loop with its head; the signature, the docstring and comments between statements never do.
    """

    file: str
    function: str
    first_line: int
    lines: list[str]
    ran: frozenset[int]


class SourceLines(Observer):
    """Records the lines of every op that runs inside the block: those of the file in which the op's class is, and of
    minidl/ops and minidl/kernels."""

    def __init__(self) -> None:
        self._forward: weakref.WeakKeyDictionary[Any, _Recording] = weakref.WeakKeyDictionary()
        self._backward: weakref.WeakKeyDictionary[Any, _Recording] = weakref.WeakKeyDictionary()
        self._running: _Recording | None = None

    def of(self, node: Function) -> tuple[list[Passage], list[Passage]]:
        """What ran in a node's forward and backward: its own method, then the functions called, each once, in that order.

        Empty for what did not run inside the block, and for functions without a source file.
        """
        return _passages(self._forward.get(node)), _passages(self._backward.get(node))

    def forward_begins(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any]) -> None:
        self._running = self._forward[node] = _Recording(node.forward)

    def forward_ends(self, node: Any, inputs: Sequence[Any], settings: Mapping[str, Any], out: Any) -> None:
        self._stop()

    def backward_begins(self, node: Any, gy: Array) -> None:
        self._running = self._backward[node] = _Recording(node.backward)

    def backward_ends(self, node: Any, gy: Array, gradients: Sequence[Array | None]) -> None:
        self._stop()

    def __exit__(self, *exc: object) -> None:
        self._stop()
        super().__exit__(*exc)

    def _stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None


class _Recording:
    """The lines that run until the method returns or raises. `lines`: code -> line numbers, in order of first call."""

    def __init__(self, method: Any) -> None:
        self._method: CodeType | None = getattr(method, "__code__", None)
        self._own_file = self._method.co_filename if self._method else None
        self.lines: dict[CodeType, set[int]] = {}
        self._before = sys.gettrace()
        sys.settrace(self._trace_call)

    def stop(self) -> None:
        if sys.gettrace() == self._trace_call:
            sys.settrace(self._before)

    def _trace_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code.co_filename != self._own_file and not _is_op_file(code.co_filename):
            return None
        self.lines.setdefault(code, set())
        return self._trace_line

    def _trace_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self.lines[frame.f_code].add(frame.f_lineno)
        elif event == "return" and frame.f_code is self._method:  # also on the way of an exception, which nobody else tells of
            self.stop()
        return self._trace_line


@cache
def _is_op_file(name: str) -> bool:
    return Path(name).parent in _FOLDERS


def _passages(recording: _Recording | None) -> list[Passage]:
    if recording is None:
        return []
    found: dict[tuple[str, _Def], set[int]] = {}
    for code, ran in recording.lines.items():
        outermost = _outermost(code, recording.lines)
        if outermost is not None:
            found.setdefault((code.co_filename, outermost), set()).update(ran)
    return [_passage(file, function, ran) for (file, function), ran in found.items()]


@dataclass(frozen=True)
class _Def:
    """A function or method in a file: its name, "Class.method" for the latter, and its lines, decorators included."""

    name: str
    first: int
    last: int


def _outermost(code: CodeType, ran: Iterable[CodeType]) -> _Def | None:
    """The function that the code is of. An inner function or a comprehension is part of the one around it, if that ran too."""
    starts = {other.co_firstlineno for other in ran if other.co_filename == code.co_filename}
    functions = _functions(_source(code.co_filename))
    around = (f for f in functions if f.first in starts and f.first <= code.co_firstlineno <= f.last)
    return min(around, key=lambda f: f.first, default=None)


def _passage(file: str, function: _Def, ran: set[int]) -> Passage:
    source = _source(file)
    heads = _statements(source)
    whole = frozenset(line for first in ran for line in heads.get(first, (first,)) if function.first <= line <= function.last)
    lines = textwrap.dedent("\n".join(source.split("\n")[function.first - 1 : function.last])).split("\n")
    return Passage(_shown_path(file), function.name, function.first, lines, whole)


def _source(file: str) -> str:
    return "".join(linecache.getlines(file))


def _shown_path(file: str) -> str:
    path = Path(file)
    return path.relative_to(_PACKAGE.parent).as_posix() if path.is_relative_to(_PACKAGE) else path.name


@lru_cache(maxsize=64)
def _functions(source: str) -> list[_Def]:
    """Every function and method in the source."""
    found = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(_Def(prefix + child.name, _first_line(child), child.end_lineno or child.lineno))
                visit(child, "")
            else:
                visit(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)

    visit(ast.parse(source), "")
    return found


@lru_cache(maxsize=64)
def _statements(source: str) -> dict[int, range]:
    """For each line the lines of the statement that it is in: all of a simple one's, the head's of one with a body."""
    lines = source.split("\n")
    found = {}
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.stmt):
            first, last = _first_line(statement), _last_of_head(statement, lines)
            found.update(dict.fromkeys(range(first, last + 1), range(first, last + 1)))
    return found


def _first_line(statement: ast.stmt) -> int:
    return min([statement.lineno, *(decorator.lineno for decorator in getattr(statement, "decorator_list", ()))])


def _last_of_head(statement: ast.stmt, lines: list[str]) -> int:
    """The last line before the body, comments and empty lines left out; the last of all where there is no body."""
    if isinstance(statement, ast.Match):
        last = statement.cases[0].pattern.lineno - 1
    elif isinstance(body := getattr(statement, "body", None), list):
        last = _first_line(body[0]) - 1
    else:
        return statement.end_lineno or statement.lineno
    while lines[last - 1].strip()[:1] in ("", "#"):
        last -= 1
    return last


# ------------------------------------------------------------------------------------------------------------ equations


@dataclass(frozen=True)
class Equations:
    """An op's formulas as its file states them, in plain text of one or more lines; "" for what it does not state.

    source : the reference (paper and section); file : as in `Passage`.
    """

    forward: str
    backward: str
    source: str
    file: str


def equations(op: str | type[Function]) -> Equations:
    """What the docstring beside an op says, the op given by its name or its class. ValueError: no op of this name.

    The docstring is the class's, or the file's, whichever states formulas in one of two forms:
      * sections "Forward" and "Backward", each a heading and indented lines. A line that begins with an op's name and two
        spaces holds for that op alone.
      * a row in a table of ops: name, forward, gradients, with two spaces or more between.
    Where neither has them, `forward` is the class's docstring as it is. A paragraph "Source: ..." gives the reference.
    """
    cls = find_op(op) if isinstance(op, str) else op
    file = _shown_path(cls.forward.__code__.co_filename)
    module = sys.modules[cls.__module__]
    own, around = inspect.cleandoc(cls.__doc__ or ""), inspect.cleandoc(module.__doc__ or "")
    others = {other.name for other in _ops() if other.__module__ == cls.__module__} - {cls.name}
    for text in (own, around):
        forward, backward = _sections(text, cls.name, others)
        if not forward:
            forward, backward = _table_row(text, cls.name)
        if forward:
            return Equations(forward, backward, _reference(text) or _reference(around), file)
    return Equations(own, "", _reference(around), file)


def find_op(name: str) -> type[Function]:
    """The op of this name: minidl's, or else the one defined last. ValueError if there is none."""
    found = [cls for cls in _ops() if getattr(cls, "name", None) == name]
    if not found:
        raise ValueError(f"find_op: no Function has the name {name!r}")
    return next((cls for cls in found if cls.__module__.startswith("minidl.ops.")), found[-1])


def _ops(base: type[Function] = Function) -> Iterator[type[Function]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _ops(cls)


def _sections(text: str, op: str, others: Iterable[str]) -> tuple[str, str]:
    """What stands under "Forward" and "Backward" for this op."""
    found = {"Forward": "", "Backward": ""}
    for heading, rest, body in re.findall(r"^(Forward|Backward)\b[,:]?[ ]*(.*)\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE):
        rows = [line for line in textwrap.dedent(body).rstrip().split("\n") if not _begins_with(line, others)]
        rows = [re.sub(rf"^{op}[ ]{{2,}}", "", line) for line in rows]
        found[heading] = "\n".join(line for line in (rest, *rows)).strip("\n")
    return found["Forward"], found["Backward"]


def _begins_with(line: str, names: Iterable[str]) -> bool:
    return any(line.startswith(name + "  ") for name in names)


def _table_row(text: str, op: str) -> tuple[str, str]:
    """The op's row in a table: its forward, and its gradients, one a line. A remark in brackets stays where it belongs."""
    row = re.search(rf"^[ ]*{op}[ ]{{2,}}(.+)$", text, re.MULTILINE)
    if row is None:
        return "", ""
    forward, *gradients = re.split(r"[ ]{2,}(?=[^ (])", row.group(1).strip())
    return forward, "\n".join(gradients)


def _reference(text: str) -> str:
    found = re.search(r"^Source: (.+(?:\n.+)*)", text, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""
