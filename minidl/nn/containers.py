"""Modules that hold others as lists and dicts do: Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict.

They are Python's lists and dicts whose content is registered. What a list holds is named by its position, "0", "1", ...
"""

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, ValuesView
from itertools import chain, zip_longest
from typing import Any, Self, SupportsIndex, overload

from minidl.nn.module import Module, Parameter
from minidl.observer import observers
from minidl.tensor import Tensor

# two kinds of modules whose outputs one op computes -> what Sequential calls in place of the one and the other
ONE_OP: dict[tuple[type[Module], type[Module]], Callable[[Any, Any, Tensor], Tensor]] = {}

# -------------------------------------------------------------------------------------------------------------- modules


class _ModuleSequence(Module):
    """What Sequential and ModuleList share: modules in order, named "0", "1", ..."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Module:
        """One module, or for a slice a container of the same modules. IndexError out of range."""
        if isinstance(index, slice):
            return self._part(index)
        return self._modules[self._key(index)]

    def __setitem__(self, index: SupportsIndex, module: Module) -> None:
        """Put another module in the place of one."""
        self.add_module(self._key(index), module)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        """Take out one module or a slice; those behind move up."""
        modules = list(self)
        del modules[index if isinstance(index, slice) else list(self._modules).index(self._key(index))]
        self._hold(modules)

    @overload
    def pop(self, key: SupportsIndex) -> Module: ...
    @overload
    def pop(self, key: slice) -> Self: ...
    def pop(self, key: SupportsIndex | slice) -> Module:
        """Take out one module or a slice, and return it."""
        taken: Module = self[key]
        del self[key]
        return taken

    def append(self, module: Module) -> Self:
        """Add a module at the end, under the first free number from its position on; returns self."""
        number = len(self)
        while str(number) in self._modules:  # a slice of a Sequential keeps its names
            number += 1
        self.add_module(str(number), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Append each module of a list, or of a container; returns self. TypeError for what can't be iterated."""
        if not isinstance(modules, Iterable):
            raise TypeError(f"{type(self).__name__}: extend takes modules one after the other, got {type(modules).__name__}")
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before the one at the index; returns self. IndexError out of range."""
        n = len(self)
        if not -n <= index <= n:
            raise IndexError(f"{type(self).__name__}: index must be in [{-n}, {n}], got {index}")
        if not isinstance(module, Module):
            raise self._wrong_type("module", str(index), "Module", module)
        modules = list(self)
        modules.insert(index, module)
        self._hold(modules)
        return self

    def _hold(self, modules: list[Module]) -> None:
        self._modules.clear()
        for i, module in enumerate(modules):
            self._modules[str(i)] = module

    def _key(self, index: SupportsIndex) -> str:
        n, i = len(self), operator.index(index)
        if not -n <= i < n:
            raise IndexError(f"{type(self).__name__}: index must be in [{-n}, {n - 1}], got {i}")
        return list(self._modules)[i]

    def _part(self, index: slice) -> Module:
        raise NotImplementedError(f"{type(self).__name__}: _part is missing")


def _as_one_op(first: Module, second: Module) -> Callable[[Any, Any, Tensor], Tensor] | None:
    """What computes both modules' outputs, unless somebody would miss the first one's."""
    both = ONE_OP.get((type(first), type(second)))
    return None if both is None or first.has_hooks() or second.has_hooks() or observers() else both


class Sequential(_ModuleSequence):
    """Modules called one after the other, each on the output of the one before.

    Sequential(first, second, ...) names them "0", "1", ...; Sequential(OrderedDict(conv1=..., relu1=...)) by its keys. `+`
    joins two, `* n` repeats the same modules n times.

    A Conv2d and the ReLU after it run as one op, conv2d_relu, which gives the same numbers: unless one of them has hooks, or
    somebody observes the ops.
    """

    def __init__(self, *modules: "Module | OrderedDict[str, Module]") -> None:
        super().__init__()
        for name, module in _named(modules):
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        modules = list(self._modules.values())
        both = None
        for module, following in zip_longest(modules, modules[1:]):
            if both is not None:  # the one before has computed this one's output
                both = None
                continue
            both = None if following is None else _as_one_op(module, following)
            x = module(x) if both is None else both(module, following, x)
        return x

    def __add__(self, other: "Sequential") -> "Sequential":
        self._check_joined(other)
        return Sequential(*self, *other)

    def __iadd__(self, other: "Sequential") -> Self:
        self._check_joined(other)
        return self.extend(other)

    def __mul__(self, times: int) -> "Sequential":
        self._check_times(times)
        return Sequential(*list(self) * times)

    def __rmul__(self, times: int) -> "Sequential":
        return self * times

    def __imul__(self, times: int) -> Self:
        self._check_times(times)
        return self.extend(list(self) * (times - 1))

    def _check_joined(self, other: Any) -> None:
        if not isinstance(other, Sequential):
            raise ValueError(f"Sequential: + joins it to a Sequential, got {type(other).__name__}; extend takes a list")

    def _check_times(self, times: Any) -> None:
        if not isinstance(times, int):
            raise TypeError(f"Sequential: * takes an int, got {type(times).__name__}")
        if times < 1:
            raise ValueError(f"Sequential: * takes an int of at least 1, got {times}")

    def _part(self, index: slice) -> Module:
        """The same modules under the names that they have here."""
        return type(self)(OrderedDict(list(self._modules.items())[index]))


class ModuleList(_ModuleSequence):
    """A list of modules that are registered; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(() if modules is None else modules)

    def __add__(self, other: Iterable[Module]) -> "ModuleList":
        return ModuleList(chain(self, other))

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def _part(self, index: slice) -> Module:
        return type(self)(list(self)[index])

    def __repr__(self) -> str:
        """Equal neighbours are shown once, with their number."""
        blocks: list[tuple[int, int, str]] = []
        for i, module in enumerate(self):
            text = repr(module)
            if blocks and blocks[-1][2] == text:
                blocks[-1] = blocks[-1][0], i, text
            else:
                blocks.append((i, i, text))
        lines = [
            (f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}").replace("\n", "\n  ")
            for first, last, text in blocks
        ]
        name = type(self).__name__
        return "\n  ".join([f"{name}(", *lines]) + "\n)" if lines else f"{name}()"


class ModuleDict(Module):
    """A dict of modules that are registered under its keys; it has no forward of its own."""

    def __init__(self, modules: "Mapping[str, Module] | Iterable[tuple[str, Module]] | ModuleDict | None" = None) -> None:
        super().__init__()
        self.update({} if modules is None else modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> ValuesView[Module]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """(name, module) of each."""
        return self._modules.items()

    def pop(self, key: str) -> Module:
        """Take out the module of a name, and return it."""
        return self._modules.pop(key)

    def clear(self) -> None:
        """Take out all."""
        self._modules.clear()

    def update(self, modules: "Mapping[str, Module] | Iterable[tuple[str, Module]] | ModuleDict") -> None:
        """Add the modules of a dict, or of (name, module) pairs, over those of the same names."""
        for key, module in _pairs(type(self).__name__, modules):
            self[key] = module


def _named(modules: tuple[Any, ...]) -> list[tuple[str, Any]]:
    if len(modules) == 1 and isinstance(modules[0], dict):
        return list(modules[0].items())
    return [(str(i), module) for i, module in enumerate(modules)]


def _pairs(name: str, entries: Any) -> list[tuple[str, Any]]:
    """What dict(entries) would hold. TypeError or ValueError for what is no dict and no pairs."""
    if isinstance(entries, (Mapping, ModuleDict, ParameterDict)):
        return list(entries.items())
    if not isinstance(entries, Iterable):
        raise TypeError(f"{name}: a dict or pairs of a name and a value are needed, got {type(entries).__name__}")
    pairs = list(entries)
    for i, pair in enumerate(pairs):
        if not isinstance(pair, Iterable):
            raise TypeError(f"{name}: entry {i} must be a pair of a name and a value, got {type(pair).__name__}")
        if len(list(pair)) != 2:
            raise ValueError(f"{name}: entry {i} must be a pair of a name and a value, got {len(list(pair))} things")
    return [(key, value) for key, value in pairs]


# ----------------------------------------------------------------------------------------------------------- parameters


class _Parameters(Module):
    """What ParameterList and ParameterDict share: a Tensor becomes a Parameter; they are not called."""

    def _file(self, name: str, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise self._wrong_type("parameter", name, "Parameter or Tensor", value)
        self.register_parameter(name, value if isinstance(value, Parameter) else Parameter(value))

    def extra_repr(self) -> str:
        return "\n".join(f"  ({name}): {_described(p)}" for name, p in self._parameters.items() if p is not None)


def _described(p: Tensor) -> str:
    place = "" if p.device.kind == "cpu" else f" ({p.device})"
    return f"Parameter containing: [{p.dtype} of size {'x'.join(map(str, p.shape))}{place}]"


class ParameterList(_Parameters):
    """A list of parameters that are registered. TypeError for a value that is no Tensor; PyTorch holds it, unregistered."""

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        self.extend(() if values is None else values)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return (p for p in self._parameters.values() if p is not None)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Parameter: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Parameter | Self:
        """One parameter, or for a slice a list of the same parameters. IndexError out of range."""
        parameters = list(self)
        return type(self)(parameters[index]) if isinstance(index, slice) else parameters[self._position(index)]

    def __setitem__(self, index: SupportsIndex, value: Tensor) -> None:
        """Put another parameter in the place of one."""
        self._file(str(self._position(index)), value)

    def append(self, value: Tensor) -> Self:
        """Add a parameter at the end; returns self."""
        self._file(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Tensor]) -> Self:
        """Append each; returns self. TypeError for what can't be iterated, and for one tensor."""
        if not isinstance(values, Iterable) or isinstance(values, Tensor):
            raise TypeError(f"ParameterList: extend takes tensors one after the other, got {type(values).__name__}")
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Tensor]) -> Self:
        return self.extend(values)

    def _position(self, index: SupportsIndex) -> int:
        n, i = len(self), operator.index(index)
        if not -n <= i < n:
            raise IndexError(f"ParameterList: index must be in [{-n}, {n - 1}], got {i}")
        return i % n


class ParameterDict(_Parameters):
    """A dict of parameters that are registered under its keys. TypeError for a value that is no Tensor."""

    def __init__(self, parameters: "Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | ParameterDict | None" = None) -> None:
        super().__init__()
        self.update({} if parameters is None else parameters)

    def __getitem__(self, key: str) -> Parameter:
        parameter = self._parameters[key]
        assert parameter is not None  # only tensors are filed
        return parameter

    def __setitem__(self, key: str, value: Tensor) -> None:
        self._file(key, value)

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._parameters)

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._parameters.keys()

    def values(self) -> Iterable[Parameter]:
        """The parameters."""
        return (self[key] for key in self)

    def items(self) -> Iterable[tuple[str, Parameter]]:
        """(name, parameter) of each."""
        return ((key, self[key]) for key in self)

    def get(self, key: str, default: Tensor | None = None) -> Tensor | None:
        """The parameter of a name, or the default."""
        return self._parameters.get(key, default)

    def setdefault(self, key: str, default: Tensor) -> Parameter:
        """The parameter of a name, which is the default from now on if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Parameter:
        """Take out the parameter of a name, and return it."""
        parameter = self[key]
        del self[key]
        return parameter

    def popitem(self) -> tuple[str, Parameter]:
        """Take out the last, and return its name and it. KeyError if there is none."""
        if not self:
            raise KeyError("ParameterDict: popitem of an empty dict")
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """Take out all."""
        self._parameters.clear()

    def copy(self) -> "ParameterDict":
        """Another dict of the same parameters."""
        return ParameterDict(self)

    def update(self, parameters: "Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | ParameterDict") -> None:
        """Add the parameters of a dict, or of (name, parameter) pairs, over those of the same names.

        A dict that is no OrderedDict is taken in the alphabetical order of its keys, as PyTorch does.
        """
        pairs = _pairs(type(self).__name__, parameters)
        in_order = isinstance(parameters, Mapping) and not isinstance(parameters, OrderedDict)
        for key, value in sorted(pairs, key=operator.itemgetter(0)) if in_order else pairs:
            self[key] = value

    def __or__(self, other: "Mapping[str, Tensor] | ParameterDict") -> "ParameterDict":
        joined = self.copy()
        joined.update(other)
        return joined

    def __ior__(self, other: "Mapping[str, Tensor] | ParameterDict") -> Self:
        self.update(other)
        return self
