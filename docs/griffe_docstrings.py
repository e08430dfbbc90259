"""A griffe extension: what the API reference shows, and the docstrings' plain prose as Markdown.

A docstring of minidl is prose with three forms in it, each of which becomes what it means:

    name : what it is            a row; more lines of it are indented. Rows become a list.
    ValueError: when             a line of its own, as "Source: ..." and "Attributes: ..." are
        indented lines           code, or a formula

All else is shown as it stands: an asterisk is a product, an underscore part of a name.
"""

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import griffe

import minidl

DOCS = Path(__file__).parent

ROW = re.compile(r'^("?[\w*.]+"?(?:, "?[\w*.]+"?)*) *: (.*)$')
ROW_HEAD = re.compile(r'^"?[\w*.]+"?(?:, "?[\w*.]+"?)* +: ')
OWN_LINE = re.compile(r"^(?:\w+Error|Source|Attributes)\b[^.]*?:")
ERROR = re.compile(r"(`[^`]*`)|\b([A-Z]\w*Error)\b")
SPECIAL = re.compile(r"(`[^`]*`)|([\\*_\[\]{}#|])|([<>&])")


class PlainDocstrings(griffe.Extension):
    """See the top of this file."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Once minidl is read: the names that its packages take from elsewhere are public, Tensor has the methods that
        minidl/ops/operators.py gives it, and docstrings are Markdown."""
        if pkg.path != "minidl":
            return
        bind_methods(pkg)
        for module in (pkg["cfg"], pkg["nn"], pkg["nn.functional"], pkg["study"], pkg):
            publish(module)
        for obj in objects(pkg):
            if obj.docstring:
                obj.docstring.value = shown(obj)


def publish(module: griffe.Module) -> None:
    """Make what a module imports from minidl public, unless it says by __all__ what is. A function that has the name of a
    module, as gradcheck and tensor, is the package's member of that name, as it is for Python."""
    ours = {name: path for name, path in module.imports.items() if path.startswith("minidl.") and not name.startswith("_")}
    members = {name: module.members[name] for name in ours}
    for name, member in members.items():
        if member.is_alias:
            member.resolve_target()
        elif ours[name] != member.path:
            line = next(n for n, line in enumerate(module.lines, 1) if re.search(rf"\b{name}\b", line))
            function = module.modules_collection[ours[name]]
            members[name] = griffe.Alias(name, function, lineno=line, parent=module)
    for name, member in members.items():
        module.set_member(name, member)
        if module.exports is None:
            member.public = True


def bind_methods(pkg: griffe.Module) -> None:
    """Give griffe's Tensor, which it has from the class's source, the methods that are bound to the class elsewhere: with the
    signatures that type checkers see, and the docstrings that Python sees."""
    cls, declared = pkg["tensor.Tensor"], pkg["ops.operators.Operators"]
    for name, member in vars(minidl.Tensor).items():
        function = member.fget if isinstance(member, property) else member
        if name[0] != "_" and name not in cls.members and inspect.isfunction(function):
            method = declared.members[name]
            method.docstring = griffe.Docstring(function.__doc__, parent=method) if function.__doc__ else None
            cls.set_member(name, method)


def objects(obj: Any) -> Any:
    """Everything that is defined in an object, itself first."""
    yield obj
    for member in obj.members.values():
        if not member.is_alias:
            yield from objects(member)


def shown(obj: Any) -> str:
    """An object's docstring as Markdown; of a module the first paragraph, as the rest is for those who read the file."""
    text = inspect.cleandoc(obj.docstring.value)
    if obj.is_module:
        return markdown(text.split("\n\n")[0])
    here = re.sub(r"\bthis (file|module)\b", r"its \1", text)
    return "\n\n".join([markdown(here), *where(obj)])


def where(obj: Any) -> list[str]:
    """Links from what stands in a module to the page about it, if it is an op's, and to its file."""
    if not obj.parent.is_module:
        return []
    file = obj.filepath.relative_to(DOCS.parent).as_posix()
    page = f"{obj.filepath.stem}.md"
    about = [f"[How it works](../{page})"] if file.startswith("minidl/ops/") and (DOCS / page).exists() else []
    return [" · ".join([*about, f"[{file}](../source/{file}.md)"])]


# ------------------------------------------------------------------------------------------------------------- markdown


def markdown(text: str) -> str:
    """A docstring's text as Markdown."""
    return "\n\n".join(block for block in map(_block, _blocks(text.split("\n"))) if block)


def _blocks(lines: list[str]) -> list[list[str]]:
    """Lines that belong together: a paragraph, the rows of a list, an example with its empty lines."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        block = blocks[-1]
        if _is_code(block):
            ends = bool(line) and not line.startswith("    ")
        elif block and ROW_HEAD.match(block[0]):
            ends = not line or not (line.startswith(" ") or ROW_HEAD.match(line))
        else:
            ends = not line or bool(block and (OWN_LINE.match(line) or ROW_HEAD.match(line)))
        if ends:
            blocks.append([])
        if line or _is_code(blocks[-1]):
            blocks[-1].append(line)
    return blocks


def _is_code(block: list[str]) -> bool:
    return bool(block) and block[0].startswith("    ")


def _block(lines: list[str]) -> str:
    if not lines:
        return ""
    if _is_code(lines):
        code = textwrap.dedent("\n".join(lines)).strip("\n")
        return f"```{'python' if _is_python(code) else ''}\n{code}\n```"
    if ROW_HEAD.match(lines[0]):
        return "\n".join(_row(line) for line in lines)
    return _prose("\n".join(lines))


def _row(line: str) -> str:
    """A row's first line as an item of a list, another one as its continuation."""
    row = ROW_HEAD.match(line) and ROW.match(line)
    if not row:
        return f"    {_prose(line.strip())}"
    names = ", ".join(f"`{name}`" for name in row[1].split(", "))
    return f"- {names}: {_prose(row[2])}"


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def _prose(text: str) -> str:
    """Text in which nothing but what stands in backquotes means something to Markdown; errors' names are code."""
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    plain = SPECIAL.sub(lambda m: m[1] or (m[2] and f"\\{m[2]}") or entities[m[3]], text)
    return ERROR.sub(lambda m: m[1] or f"`{m[2]}`", plain)
