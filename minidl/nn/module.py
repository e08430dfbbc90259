"""Module: a tree of layers that knows its parameters.

Assigning a `Parameter`, a `Module` or a registered buffer to an attribute files it in one of three dicts, in the order
of assignment. Everything else follows from walking the tree: names ("features.0.weight"), moving to a device, saving,
loading.

    class Net(Module):
        def __init__(self):
            super().__init__()
            self.conv1 = Conv2d(3, 96, 11, stride=4)        # parameters conv1.weight, conv1.bias

        def forward(self, x):
            return relu(self.conv1(x))

A parameter is a leaf that requires a gradient. A buffer is a tensor that is saved and moved with the module but not
trained. Parameters keep their identity through `to`, `float` and `load_state_dict`, so an optimizer made before still
holds them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, ParamSpec, Protocol, Self, TypeVar, overload

import numpy as np

from minidl.device import Device, transfer
from minidl.grad_mode import is_grad_enabled
from minidl.nn.init import copy_
from minidl.observer import inside
from minidl.tensor import Function, HookHandle, Tensor, clear_grads

_STORES = ("_parameters", "_buffers", "_modules")
_FLOATS = ("float16", "float32", "float64")

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class _HasForward(Protocol[P, R]):
    """By this a call of a module has the types of its forward."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


class Parameter(Tensor):
    """A tensor that a module trains: assigned to a module's attribute it is registered under that name.

    data : array-like or Tensor; an array is not copied. RuntimeError unless floats, or requires_grad is False.
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class LoadResult(NamedTuple):
    """What `load_state_dict` returns: the keys that only the module has, and those that only the checkpoint has."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base of every layer and network: call `super().__init__()`, assign layers to attributes, write `forward`."""

    training: bool

    def __init__(self) -> None:
        for store in _STORES:
            object.__setattr__(self, store, {})
        self._not_saved: set[str] = set()
        self._forward_pre_hooks: dict[int, Callable[..., Any]] = {}
        self._forward_hooks: dict[int, Callable[..., Any]] = {}
        self._backward_hooks: dict[int, Callable[..., Any]] = {}
        self.training = True

    # --------------------------------------------------------------------------------------------------- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._file("_parameters", name, value)
        elif isinstance(value, Module):
            self._file("_modules", name, value)
        elif name in self.__dict__.get("_parameters", ()):
            self.register_parameter(name, value)
        elif name in self.__dict__.get("_buffers", ()):
            self.register_buffer(name, value, name not in self._not_saved)
        elif name in self.__dict__.get("_modules", ()):
            self.add_module(name, value)
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        for store in _STORES:
            if name in self.__dict__.get(store, ()):
                return self.__dict__[store][name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for store in _STORES:
            if name in self.__dict__.get(store, ()):
                del self.__dict__[store][name]
                return
        object.__delattr__(self, name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """File a parameter under a name; None reserves it. TypeError for anything else, ValueError for a name."""
        if param is not None and not isinstance(param, Parameter):
            raise self._wrong_type("parameter", name, "Parameter or None", param)
        self._file("_parameters", name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """File a tensor that is moved with the module but not trained; it is in `state_dict` if persistent."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise self._wrong_type("buffer", name, "Tensor or None", tensor)
        self._file("_buffers", name, tensor)
        if persistent:
            self._not_saved.discard(name)
        else:
            self._not_saved.add(name)

    def add_module(self, name: str, module: "Module | None") -> None:
        """File a submodule under a name, as assigning it does."""
        if module is not None and not isinstance(module, Module):
            raise self._wrong_type("module", name, "Module or None", module)
        self._file("_modules", name, module)

    def _wrong_type(self, kind: str, name: str, wanted: str, value: Any) -> TypeError:
        return TypeError(f"{type(self).__name__}: {kind} {name!r} must be a {wanted}, got {type(value).__name__}")

    def _file(self, store: str, name: str, value: Any) -> None:
        """Put the value into one of the three dicts, and take the name out of everything else that holds it."""
        owner = type(self).__name__
        if store not in self.__dict__:
            raise AttributeError(f"{owner}: call super().__init__() before assigning {type(value).__name__} {name!r}")
        if not name or "." in name:
            raise ValueError(f'{owner}: a name must be non-empty and without ".", got {name!r}')
        if hasattr(type(self), name):
            raise ValueError(f"{owner}: a name must differ from the class's own attributes, got {name!r}")
        for holder in (self.__dict__, *(self.__dict__[s] for s in _STORES if s != store)):
            holder.pop(name, None)
        self.__dict__[store][name] = value

    # ------------------------------------------------------------------------------------------------------- walking

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> "Iterator[tuple[str, Module]]":
        """(name, module) of this module and all below it, parents first; each once if remove_duplicate."""
        seen: set[Module] = set()
        waiting: list[tuple[str, Module]] = [(prefix, self)]
        while waiting:
            name, module = waiting.pop()
            if module in seen:
                continue
            if remove_duplicate:
                seen.add(module)
            yield name, module
            children = [(_join(name, key), child) for key, child in module._modules.items() if child is not None]
            waiting += reversed(children)

    def modules(self) -> "Iterator[Module]":
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> "Iterator[tuple[str, Module]]":
        """(name, module) of the direct submodules, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> "Iterator[Module]":
        """The direct submodules, each once."""
        return (module for _, module in self.named_children())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of this module and, if recurse, of all below it; each once if remove_duplicate."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once: what an optimizer takes."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(name, buffer), as `named_parameters`."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named_members(self, store: str, prefix: str, recurse: bool, remove_duplicate: bool) -> Iterator[tuple[str, Any]]:
        modules = self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]
        seen: set[Tensor] = set()
        for module_name, module in modules:
            for key, tensor in module.__dict__[store].items():
                if tensor is None or tensor in seen:
                    continue
                if remove_duplicate:
                    seen.add(tensor)
                yield _join(module_name, key), tensor

    def apply(self, fn: "Callable[[Module], Any]") -> Self:
        """Call fn(module) on every module below this one, children first, then on this one; returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ------------------------------------------------------------------------------------------------ saving, loading

    def _named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of everything that is saved; a shared tensor under each of its names."""
        for module_name, module in self.named_modules(remove_duplicate=False):
            saved = {key: buffer for key, buffer in module._buffers.items() if key not in module._not_saved}
            for key, tensor in (module._parameters | saved).items():
                if tensor is not None:
                    yield _join(module_name, key), tensor

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: NumPy array} of all parameters and persistent buffers: copies on the host, in C order."""
        return {name: np.asarray(t.device.to_host(t.data), order="C") for name, t in self._named_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy arrays (NumPy's or Tensors) into the parameters and persistent buffers of the same names.

        strict : missing and unexpected keys are errors. Otherwise they are only returned.

        Tensors keep their identity, device, dtype and memory layout. A float is cast to another float dtype, any other
        change of dtype is an error, as is another shape. Every error is collected, and nothing is changed, before one
        RuntimeError lists them all. TypeError if state_dict is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: state_dict must be a mapping, got {type(state_dict).__name__}")
        own = dict(self._named_state())
        result = LoadResult([k for k in own if k not in state_dict], [k for k in state_dict if k not in own])
        shared = [key for key in own if key in state_dict]
        errors = [
            *_key_errors("Missing", result.missing_keys if strict else []),
            *_key_errors("Unexpected", result.unexpected_keys if strict else []),
            *filter(None, (_mismatch(key, own[key], state_dict[key]) for key in shared)),
        ]
        if errors:
            raise RuntimeError("\n\t".join([f"Error(s) in loading state_dict for {type(self).__name__}:", *errors]))
        for key in shared:
            copy_(own[key], _host_array(state_dict[key]), by="load_state_dict")
        return result

    # --------------------------------------------------------------------------------------------- moving, switching

    def to(self, target: Any) -> Self:
        """Move parameters, their gradients and buffers to a device, or cast the floats among them to a dtype, in place.

        target : "cpu:1", a Device, np.float64 or "float64". DeviceError or TypeError for anything else.
        """
        is_device = isinstance(target, Device) or (isinstance(target, str) and target not in _FLOATS)
        move = _move_to(Device(target)) if is_device else _cast_to(target)
        for tensor in (*self.parameters(), *self.buffers()):
            move(tensor)
        return self

    def float(self) -> Self:
        """Cast all floats to float32."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Cast all floats to float64."""
        return self.to(np.float64)

    def train(self, mode: bool = True) -> Self:
        """Set `training` on this module and all below it: dropout acts. ValueError unless mode is a bool."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """train(False)."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop every parameter's gradient, or fill it with zeros."""
        clear_grads(self.parameters(), set_to_none)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    # ------------------------------------------------------------------------------------------------------- calling

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module does when it is called. Every module has its own."""
        raise NotImplementedError(f"{type(self).__name__}: forward is missing")

    def __call__(self: "_HasForward[P, R]", *args: P.args, **kwargs: P.kwargs) -> R:
        """What forward returns, with the hooks before and after it; it takes what forward takes."""
        module: Any = self
        inputs: Any = args
        for hook in tuple(module._forward_pre_hooks.values()):
            replaced = hook(module, inputs)
            if replaced is not None:
                inputs = replaced if isinstance(replaced, tuple) else (replaced,)
        watch = _GradientWatch(module) if module._backward_hooks and is_grad_enabled() else None
        if watch is not None:
            inputs = watch.watch_inputs(inputs)
        with inside(module):
            output: Any = module.forward(*inputs, **kwargs)
        for hook in tuple(module._forward_hooks.values()):
            replaced = hook(module, inputs, output)
            output = output if replaced is None else replaced
        return output if watch is None else watch.watch_outputs(output)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call hook(module, inputs) before forward; what it returns, unless None, replaces the positional inputs."""
        return HookHandle(self._forward_pre_hooks, hook)

    def register_forward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call hook(module, inputs, output) after forward; what it returns, unless None, replaces the output."""
        return HookHandle(self._forward_hooks, hook)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call hook(module, grad_input, grad_output) in backward, when the gradients of the module's inputs are known.

        grad_output : a tuple with a Tensor for each output that a gradient has reached, else None.
        grad_input  : a tuple with a Tensor for each positional input that requires a gradient, else None.

        The hook may return another grad_input for what lies below, if the module has one tensor that requires a
        gradient among its inputs; RuntimeError otherwise. It runs when each such input has its gradient (when each
        output has, if no input requires one), so never if forward ignores one of them.
        """
        return HookHandle(self._backward_hooks, hook)

    # ------------------------------------------------------------------------------------------------------- showing

    def extra_repr(self) -> str:
        """What stands between the parentheses of this module's own line: its settings."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        name, settings = type(self).__name__, self.extra_repr()
        if not lines:
            return f"{name}({settings})"
        return "\n  ".join([f"{name}(", *filter(None, [settings]), *lines]) + "\n)"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


# ---------------------------------------------------------------------------------------------------- loading checks


def _key_errors(kind: str, keys: list[str]) -> list[str]:
    quoted = ", ".join(f'"{key}"' for key in keys)
    return [f"{kind} key(s) in state_dict: {quoted}."] if keys else []


def _mismatch(key: str, own: Tensor, given: Any) -> str | None:
    """Why `given` can't be copied into `own`; None if it can."""
    if not isinstance(given, (np.ndarray, Tensor)):
        return f"type mismatch for {key}: a NumPy array or a Tensor can be copied, got {type(given).__name__}."
    if given.shape != own.shape:
        return (
            f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, "
            f"the shape in current model is {own.shape}."
        )
    if given.dtype != own.dtype and not given.dtype.kind == own.dtype.kind == "f":
        return (
            f"dtype mismatch for {key}: copying a param of {given.dtype} from checkpoint, "
            f"the dtype in current model is {own.dtype}."
        )
    return None


def _host_array(given: np.ndarray | Tensor) -> np.ndarray:
    return given.device.to_host(given.data) if isinstance(given, Tensor) else given


# ------------------------------------------------------------------------------------------------------------ moving


def _move_to(target: Device) -> Callable[[Tensor], None]:
    def move(tensor: Tensor) -> None:
        if tensor.device is target:
            return
        tensor.data = transfer(tensor.data, tensor.device, target)
        if tensor.grad is not None:
            tensor.grad = transfer(tensor.grad, tensor.device, target)
        tensor.device = target

    return move


def _cast_to(dtype: Any) -> Callable[[Tensor], None]:
    if dtype is None or np.dtype(dtype).name not in _FLOATS:
        raise TypeError(f"to: dtype must be one of {', '.join(_FLOATS)}, got {dtype}")

    def cast(tensor: Tensor) -> None:
        if tensor.dtype.kind != "f":
            return
        with tensor.device.active():
            tensor.data = tensor.data.astype(dtype, copy=False)
            if tensor.grad is not None:
                tensor.grad = tensor.grad.astype(dtype, copy=False)

    return cast


# ---------------------------------------------------------------------------------------------------- backward hooks


class _Pass(Function):
    """y = x: a place in the graph whose gradient can be watched."""

    name = "identity"

    def forward(ctx, x: Any) -> Any:
        return x

    def backward(ctx, gy: Any) -> Any:
        return (gy,)


class _GradientWatch:
    """Collects the gradients of one call of a module, and runs the module's full backward hooks when they are complete.

    Inputs and outputs pass through an identity op, each with a tensor hook. So a tensor that is used outside the module
    too shows only the gradient of this use.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.inputs: list[int] = []  # the positions of those that require a gradient
        self.outputs: list[int] = []
        self.grad_input: list[Tensor | None] = []
        self.grad_output: list[Tensor | None] = []

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, with watched tensors in place of those that require a gradient."""
        self.grad_input = [None] * len(args)
        self.inputs = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
        return tuple(_watched(x, self.input_hook(i)) if i in self.inputs else x for i, x in enumerate(args))

    def watch_outputs(self, output: Any) -> Any:
        """The output with watched tensors. TypeError unless it is a tensor or a tuple."""
        outputs = output if isinstance(output, tuple) else (output,)
        if not all(isinstance(y, Tensor) for y in outputs):
            raise TypeError(
                f"register_full_backward_hook: {type(self.module).__name__} must return a Tensor or a tuple of "
                f"Tensors, got {type(output).__name__}"
            )
        self.grad_output = [None] * len(outputs)
        self.outputs = [i for i, y in enumerate(outputs) if y.requires_grad]
        watched = tuple(_watched(y, self.output_hook(i)) if i in self.outputs else y for i, y in enumerate(outputs))
        return watched if isinstance(output, tuple) else watched[0]

    def output_hook(self, i: int) -> Callable[[Tensor], Tensor | None]:
        def hook(gy: Tensor) -> None:
            self.grad_output[i] = gy
            if not self.inputs and all(self.grad_output[j] is not None for j in self.outputs):
                self.run_hooks()

        return hook

    def input_hook(self, i: int) -> Callable[[Tensor], Tensor | None]:
        def hook(gx: Tensor) -> Tensor | None:
            self.grad_input[i] = gx
            if all(self.grad_input[j] is not None for j in self.inputs):
                return self.run_hooks()
            return None

        return hook

    def run_hooks(self) -> Tensor | None:
        """Run the hooks one after the other, each on what the one before left; returns the only input's gradient."""
        grad_input, grad_output = tuple(self.grad_input), tuple(self.grad_output)
        self.grad_input, self.grad_output = [None] * len(grad_input), [None] * len(grad_output)
        for hook in tuple(self.module._backward_hooks.values()):
            replaced = hook(self.module, grad_input, grad_output)
            if replaced is not None:
                grad_input = self.check_replacement(replaced, grad_input)
        return grad_input[self.inputs[0]] if len(self.inputs) == 1 else None

    def check_replacement(self, replaced: Any, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        """A hook's result as a tuple of the length of grad_input. RuntimeError if it can't replace that."""
        replaced = replaced if isinstance(replaced, tuple) else (replaced,)
        name = f"register_full_backward_hook: {type(self.module).__name__}'s hook"
        if len(self.inputs) != 1:
            raise RuntimeError(f"{name} can replace grad_input only where 1 input requires a gradient, got {len(self.inputs)}")
        if len(replaced) != len(grad_input):
            raise RuntimeError(f"{name} must return {len(grad_input)} gradients, got {len(replaced)}")
        if not isinstance(replaced[self.inputs[0]], Tensor):
            raise TypeError(f"{name} must return a Tensor, got {type(replaced[self.inputs[0]]).__name__}")
        return replaced


def _watched(tensor: Tensor, hook: Callable[..., Any]) -> Tensor:
    passed = _Pass.apply(tensor)
    passed.register_hook(hook)
    return passed


# -------------------------------------------------------------------------------------------------------- containers


class _ModuleSequence(Module):
    """What Sequential and ModuleList share: modules in order, named "0", "1", ..."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Module:
        """One module, or for a slice a container of the same modules. IndexError out of range."""
        if isinstance(index, slice):
            return self._part(index)
        return self._modules[self._key(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        """Put another module in the place of one."""
        self.add_module(self._key(index), module)

    def append(self, module: Module) -> Self:
        """Add a module at the end, under the first free number from its position on; returns self."""
        number = len(self)
        while str(number) in self._modules:  # a slice of a Sequential keeps its names
            number += 1
        self.add_module(str(number), module)
        return self

    def _key(self, index: int) -> str:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"{type(self).__name__}: index must be in [{-n}, {n - 1}], got {index}")
        return list(self._modules)[index]

    def _part(self, index: slice) -> Module:
        raise NotImplementedError(f"{type(self).__name__}: _part is missing")


class Sequential(_ModuleSequence):
    """Modules called one after the other, each on the output of the one before.

    Sequential(first, second, ...) names them "0", "1", ...; Sequential(OrderedDict(conv1=..., relu1=...)) by its keys.
    """

    def __init__(self, *modules: "Module | OrderedDict[str, Module]") -> None:
        super().__init__()
        for name, module in _named(modules):
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x

    def _part(self, index: slice) -> Module:
        """The same modules under the names that they have here."""
        return Sequential(OrderedDict(list(self._modules.items())[index]))


class ModuleList(_ModuleSequence):
    """A list of modules that are registered; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        for module in modules:
            self.append(module)

    def _part(self, index: slice) -> Module:
        return ModuleList(list(self)[index])


def _named(modules: tuple[Any, ...]) -> list[tuple[str, Any]]:
    if len(modules) == 1 and isinstance(modules[0], dict):
        return list(modules[0].items())
    return [(str(i), module) for i, module in enumerate(modules)]


class Identity(Module):
    """y = x. Takes and ignores any arguments, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input
