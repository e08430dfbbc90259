"""Pickles read as data: nothing in them is called.

A pickle is a list of instructions for a machine with a stack, and loading it may run any program that its author chose. So it
is never loaded here. `PickleMachine` follows the few instructions that build numbers, texts, lists and dictionaries. One that
would call something is only noted, as a `Call` with the name of what it calls, and only names on a list may be noted. Anything
else is refused.

Source: the documentation of Python's pickletools.
"""

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidl.data.errors import BadFileError


class RefusedError(ValueError):
    """An instruction that the file does not need, or in a place where it means nothing."""


@dataclass
class Name:
    """Something that a pickle names in order to call it."""

    name: str


@dataclass
class Call:
    """What a pickle would call, with what, and what it would then set on the result. Nothing is called."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


def read_pickle(path: Path, content: bytes | bytearray, machine: "PickleMachine") -> dict[Any, Any]:
    """The dictionary in a pickle, as the machine makes it. BadFileError: anything else, or what the machine refuses."""
    where = "at its end"
    try:
        for count, (opcode, arg, position) in enumerate(pickletools.genops(content)):
            where = f"{opcode.name} at byte {position}"
            if count >= machine.most_instructions:
                raise RefusedError(f"{machine.what} has at most {machine.most_instructions} instructions")
            machine.step(opcode.name, arg)
        result = machine.pop()
    except RefusedError as error:
        raise BadFileError(path, len(content), f"pickle instruction {where}: {error}") from error
    except (ValueError, OverflowError) as error:  # genops: an unknown instruction, or the end before STOP
        raise BadFileError(path, len(content), f"not a whole pickle, after {where}: {error}") from error
    if not isinstance(result, dict):
        raise BadFileError(path, len(content), f"a dictionary must be pickled in it, got {kind_of(result)}")
    return result


def kind_of(value: Any) -> str:
    """The name of a value's type."""
    return type(value).__name__


class PickleMachine:
    """The stack machine of the pickle format, without the instructions that run something.

    A list, tuple or dictionary is made by pushing a mark, then its items, then the instruction that takes all down to the
    mark. `memo` holds what is used again. What a file needs beside numbers, texts and containers, a subclass says.
    """

    what = "a file"  # in errors
    most_instructions = 200_000
    names: Collection[str] = ()  # what may be named
    known_as = "a way to write data"  # what these names are

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, arg: Any) -> None:
        if opcode in _PUSHED:
            self.stack.append(_PUSHED[opcode](arg))
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, arg)
        else:
            raise RefusedError(f"holds more than data, or what no {self.what.partition(' ')[2]} needs; nothing of it was run")

    def pop(self, kind: type = object) -> Any:
        """The top of the stack, which must be of a kind and above the last mark."""
        top = self._top(kind)
        self.stack.pop()
        return top

    def _top(self, kind: type) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise RefusedError("needs something on the stack")
        if not isinstance(self.stack[-1], kind):
            raise RefusedError(f"needs a {kind.__name__}, got a {kind_of(self.stack[-1])}")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise RefusedError("needs a mark")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, arg: None) -> None:
        self.marks.append(len(self.stack))

    def append(self, arg: None) -> None:
        item = self.pop()
        self._top(list).append(item)

    def appends(self, arg: None) -> None:
        items = self.pop_to_mark()
        self._top(list).extend(items)

    def set_item(self, arg: None) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def set_items(self, arg: None) -> None:
        self._set(self.pop_to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise RefusedError("needs pairs of a text and a value")
        target.update(zip(self.keys(items[::2]), items[1::2], strict=True))

    def keys(self, keys: list[Any]) -> list[Any]:
        """A dictionary's keys: texts and numbers."""
        for key in keys:
            if not isinstance(key, (str, int, float)):
                raise RefusedError(f"needs texts or numbers as keys, got a {kind_of(key)}")
        return keys

    def make_tuple(self, arg: None) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def make_short_tuple(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self.stack.append(tuple(items[::-1]))

    def name(self, name: str) -> None:
        if name not in self.names:
            raise RefusedError(f"names {name[:80]!r}, which is not {self.known_as}; nothing of it was run")
        self.stack.append(Name(name))

    def stack_name(self, arg: None) -> None:
        name, module = self.pop(str), self.pop(str)
        self.name(f"{module} {name}")

    def call(self, arg: None) -> None:
        args, name = self.pop(tuple), self.pop(Name)
        self.stack.append(self.called(name.name, args))

    def called(self, name: str, args: tuple[Any, ...]) -> Any:
        """What stands for a call of something that may be named."""
        return Call(name, args)

    def build(self, arg: None) -> None:
        self.attributes(self.pop())

    def attributes(self, state: Any) -> None:
        """What a pickle would set on the top of the stack."""
        self._top(Call).state = state

    def persistent(self, arg: None) -> None:
        self.stack.append(self.stored(self.pop(tuple)))

    def stored(self, args: tuple[Any, ...]) -> Any:
        """What stands for something that the file keeps outside the pickle."""
        raise RefusedError(f"asks for something outside the pickle, which no {self.what.partition(' ')[2]} needs")

    def put(self, key: int) -> None:
        self.memo[key] = self._top(object)

    def memoize(self, arg: None) -> None:
        self.put(len(self.memo))

    def get(self, key: int) -> None:
        if key not in self.memo:
            raise RefusedError(f"needs what was stored as {key}, got nothing")
        self.stack.append(self.memo[key])


def latin1(text: str) -> bytes:
    """Python 2's texts are bytes; pickletools gives them as text, byte for byte."""
    return text.encode("latin-1")


def _itself(value: Any) -> Any:
    return value


_PUSHED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"], _itself),
    **dict.fromkeys(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"], _itself),
    **dict.fromkeys(["BINSTRING", "SHORT_BINSTRING"], latin1),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
}

_ACTIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP"], lambda machine, arg: None),
    "MARK": PickleMachine.mark,
    "APPEND": PickleMachine.append,
    "APPENDS": PickleMachine.appends,
    "SETITEM": PickleMachine.set_item,
    "SETITEMS": PickleMachine.set_items,
    "TUPLE": PickleMachine.make_tuple,
    "TUPLE1": lambda machine, arg: machine.make_short_tuple(1),
    "TUPLE2": lambda machine, arg: machine.make_short_tuple(2),
    "TUPLE3": lambda machine, arg: machine.make_short_tuple(3),
    "GLOBAL": PickleMachine.name,
    "STACK_GLOBAL": PickleMachine.stack_name,
    "REDUCE": PickleMachine.call,
    "BUILD": PickleMachine.build,
    "BINPERSID": PickleMachine.persistent,
    "BINPUT": PickleMachine.put,
    "LONG_BINPUT": PickleMachine.put,
    "MEMOIZE": PickleMachine.memoize,
    "BINGET": PickleMachine.get,
    "LONG_BINGET": PickleMachine.get,
}
