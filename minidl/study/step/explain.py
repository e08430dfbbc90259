"""Why an op keeps what it keeps: a sentence for each array that it saves for backward.

The reasons stand under "Saved" in the op's docstring, or in its file's where that has one op. A test compares their names with
what every op's source saves and reads back, so neither can change alone.
"""

import ast
import inspect
import re
import sys
import textwrap

from minidl.study.step.source import find_op
from minidl.tensor import Function


def saved_because(op: str | type[Function]) -> dict[str, str]:
    """Each array that the op, given by name or class, saves -> why its backward needs it, in the order of `ctx.save`.

    {} if it saves nothing. The arrays of an op that is not minidl's have the names that its backward unpacks `ctx.saved` into,
    and "" for a reason. ValueError: no op of this name.
    """
    cls = find_op(op) if isinstance(op, str) else op
    if cls.__module__.startswith("minidl.ops."):
        return _reasons(cls.__doc__) or _reasons(sys.modules[cls.__module__].__doc__)
    return dict.fromkeys(_unpacked_names(cls), "")


def _reasons(docstring: str | None) -> dict[str, str]:
    """The rows of a docstring's section "Saved": an indented name, two spaces or more, and a reason of one line or more."""
    section = re.search(r"^Saved\n((?:[ ]+.*\n?)*)", inspect.cleandoc(docstring or ""), re.MULTILINE)
    rows = re.findall(r"^(\w+)[ ]{2,}(.*(?:\n[ ]+.*)*)", textwrap.dedent(section.group(1)) if section else "", re.MULTILINE)
    return {name: " ".join(reason.split()) for name, reason in rows}


def _unpacked_names(cls: type[Function]) -> list[str]:
    """The names on the left of `x, w = ctx.saved` in an op's backward; [] if there is no such line, or no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls.backward)))
    except (OSError, TypeError, SyntaxError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and node.value.attr == "saved":
            return [name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name)]
    return []
