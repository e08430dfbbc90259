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

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, ParamSpec, Protocol, Self, TypeVar, cast

import numpy as np

from minidl.destination import destination
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
        self._forward_pre_hooks: dict[int, _ForwardHook] = {}
        self._forward_hooks: dict[int, _ForwardHook] = {}
        self._backward_hooks: dict[int, Callable[..., Any]] = {}
        self.training = True

    # --------------------------------------------------------------------------------------------------- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._forget(name, "_parameters")
            self.register_parameter(name, value)
        elif name in self.__dict__.get("_parameters", ()):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._forget(name, "_modules")
            self.add_module(name, value)
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
        """File a parameter under a name; None reserves it.

        TypeError for anything else. KeyError for a name that is "", has a dot, or is that of another attribute.
        """
        if param is not None and not isinstance(param, Parameter):
            raise self._wrong_type("parameter", name, "Parameter or None", param)
        self._check_name("parameter", "_parameters", name)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """File a tensor that is moved with the module but not trained; it is in `state_dict` if persistent.

        None reserves the name. Errors as for `register_parameter`.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise self._wrong_type("buffer", name, "Tensor or None", tensor)
        self._check_name("buffer", "_buffers", name)
        self._buffers[name] = tensor
        if persistent:
            self._not_saved.discard(name)
        else:
            self._not_saved.add(name)

    def add_module(self, name: str, module: "Module | None") -> None:
        """File a submodule under a name, as assigning it does. None reserves it. Errors as for `register_parameter`."""
        if module is not None and not isinstance(module, Module):
            raise self._wrong_type("module", name, "Module or None", module)
        self._check_name("module", "_modules", name)
        self._modules[name] = module

    def register_module(self, name: str, module: "Module | None") -> None:
        """add_module."""
        self.add_module(name, module)

    def _wrong_type(self, kind: str, name: str, wanted: str, value: Any) -> TypeError:
        return TypeError(f"{type(self).__name__}: {kind} {name!r} must be a {wanted}, got {type(value).__name__}")

    def _check_name(self, kind: str, store: str, name: str) -> None:
        owner = type(self).__name__
        if store not in self.__dict__:
            raise AttributeError(f"{owner}: call super().__init__() before assigning {kind} {name!r}")
        if not isinstance(name, str):
            raise TypeError(f"{owner}: the name of a {kind} must be a string, got {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(f'{owner}: the name of a {kind} must be non-empty and without ".", got {name!r}')
        if name not in self.__dict__[store] and hasattr(self, name):
            raise KeyError(f"{owner}: a {kind} needs a name of its own, got {name!r}, an attribute that already exists")

    def _forget(self, name: str, store: str) -> None:
        """Take a name out of everything that holds it but this store."""
        for holder in (self.__dict__, *(self.__dict__.get(s, {}) for s in _STORES if s != store)):
            holder.pop(name, None)

    # ------------------------------------------------------------------------------------------------------- walking

    def get_submodule(self, target: str) -> "Module":
        """The module of a name as `named_modules` gives it ("features.0"); "" is this one. AttributeError without one."""
        module: Module = self
        for name in target.split(".") if target else ():
            child = getattr(module, name, None)
            if not isinstance(child, Module):
                fault = "is not a Module" if hasattr(module, name) else "is no attribute"
                raise AttributeError(f"{type(self).__name__}: {name!r} of {target!r} {fault} of a {type(module).__name__}")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a name as `named_parameters` gives it. AttributeError without one."""
        return cast(Parameter, self._get_member("_parameters", "parameter", target))

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of a name as `named_buffers` gives it. AttributeError without one."""
        return self._get_member("_buffers", "buffer", target)

    def _get_member(self, store: str, kind: str, target: str) -> Tensor:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        tensor: Tensor | None = module.__dict__[store].get(name)
        if tensor is None:
            raise AttributeError(f"{type(self).__name__}: {target!r} is not a {kind}")
        return tensor

    def named_modules(
        self, memo: "set[Module] | None" = None, prefix: str = "", remove_duplicate: bool = True
    ) -> "Iterator[tuple[str, Module]]":
        """(name, module) of this module and all below it, parents first; each once if remove_duplicate.

        memo   : modules that are left out; those found are added to it.
        prefix : stands before each name.
        """
        seen: set[Module] = set() if memo is None else memo
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
        modules = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
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

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> LoadResult:
        """Copy arrays into the parameters and persistent buffers of the same names.

        state_dict : {name: array}; NumPy's arrays, Tensors, and whatever NumPy can read through `__array__` or DLPack:
                     PyTorch's tensors too, on any device. Floats that NumPy has not, bfloat16, are read as float32.
        strict     : missing and unexpected keys are errors. Otherwise they are only returned.
        assign     : put the arrays themselves in the place of the parameters and buffers. Their dtype, device and memory
                     layout are the new ones; an optimizer made before holds the old parameters.

        Without assign, tensors keep their identity, device, dtype and memory layout. A float is cast to another float dtype,
        any other change of dtype is an error, as is another shape. Every error is collected, and nothing is changed, before one
        RuntimeError lists them all. TypeError if state_dict is no mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict: state_dict must be a mapping, got {type(state_dict).__name__}")
        own = dict(self._named_state())
        result = LoadResult([k for k in own if k not in state_dict], [k for k in state_dict if k not in own])
        given = {key: _read(state_dict[key]) for key in own if key in state_dict}
        errors = [
            *_key_errors("Missing", result.missing_keys if strict else []),
            *_key_errors("Unexpected", result.unexpected_keys if strict else []),
            *filter(None, (_mismatch(key, own[key], value, assign) for key, value in given.items())),
        ]
        if errors:
            raise RuntimeError("\n\t".join([f"Error(s) in loading state_dict for {type(self).__name__}:", *errors]))
        for key, value in given.items():
            if assign:
                self._put_in_place(key, value)
            else:
                copy_(own[key], _host_array(value), by="load_state_dict")
        return result

    def _put_in_place(self, key: str, value: np.ndarray | Tensor) -> None:
        path, _, name = key.rpartition(".")
        module = self.get_submodule(path)
        old = module._parameters.get(name)
        if old is None:
            module._buffers[name] = value if isinstance(value, Tensor) else Tensor(value)
        else:
            module._parameters[name] = value if isinstance(value, Parameter) else Parameter(value, old.requires_grad)

    # --------------------------------------------------------------------------------------------- moving, switching

    def to(self, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False) -> Self:
        """Move parameters, their gradients and buffers to a device, cast the floats among them to a dtype, or both, in place.

        to("cpu:1"), to(0), to(np.float64), to("cuda", np.float16), to(tensor), to(device=..., dtype=...): a number is that of
        a GPU, a tensor stands for its device and dtype. `non_blocking` is PyTorch's, and makes no difference.

        DeviceError: no such device. TypeError: a dtype that is not of floats.
        """
        target, dtype, _ = destination(args, device, dtype)
        changes = [] if target is None else [_move_to(target)]
        changes += [] if dtype is None else [_cast_to(dtype)]
        for tensor in (*self.parameters(), *self.buffers()):
            for change in changes:
                change(tensor)
        return self

    def cpu(self) -> Self:
        """Move to cpu:0."""
        return self.to("cpu:0")

    def cuda(self, device: Any = None) -> Self:
        """Move to a GPU: a number, a name, or the first one. DeviceError if it is not there."""
        return self.to(0 if device is None else device)

    def half(self) -> Self:
        """Cast all floats to float16."""
        return self.to(np.float16)

    def float(self) -> Self:
        """Cast all floats to float32."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Cast all floats to float64."""
        return self.to(np.float64)

    def train(self, mode: bool = True) -> Self:
        """Set `training` on this module, and call train(mode) of those below it: dropout acts.

        ValueError unless mode is a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool, got {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
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
        if not module.has_hooks():
            with inside(module):
                return cast(R, module.forward(*args, **kwargs))
        call = _Call(module, args, kwargs)
        try:
            return cast(R, call.run())
        except Exception:
            call.run_what_is_always_called()
            raise

    def has_hooks(self) -> bool:
        """Is something called before or after its forward or backward?"""
        return bool(self._forward_pre_hooks or self._forward_hooks or self._backward_hooks)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call hook(module, inputs) before forward; what it returns, unless None, replaces the positional inputs.

        prepend     : before the hooks that are there already.
        with_kwargs : hook(module, inputs, kwargs), which returns None or (inputs, kwargs); RuntimeError otherwise.
        """
        return HookHandle(self._forward_pre_hooks, _ForwardHook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> HookHandle:
        """Call hook(module, inputs, output) after forward; what it returns, unless None, replaces the output.

        prepend     : before the hooks that are there already.
        with_kwargs : hook(module, inputs, kwargs, output).
        always_call : also if forward or another hook raises; output is then what there is of it, or None. What this hook
                      itself raises becomes a warning then.
        """
        return HookHandle(self._forward_hooks, _ForwardHook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> HookHandle:
        """Call hook(module, grad_input, grad_output) in backward, when the gradients of the module's inputs are known.

        grad_output : a tuple with a Tensor for each output that a gradient has reached, else None.
        grad_input  : a tuple with a Tensor for each positional input that requires a gradient, else None.
        prepend     : before the hooks that are there already.

        The hook may return another grad_input for what lies below, if the module has one tensor that requires a
        gradient among its inputs; RuntimeError otherwise. It runs when each such input has its gradient (when each
        output has, if no input requires one), so never if forward ignores one of them.
        """
        return HookHandle(self._backward_hooks, hook, prepend)

    # ------------------------------------------------------------------------------------------------------- showing

    def extra_repr(self) -> str:
        """What stands between the parentheses of this module's own line: its settings."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()]
        name, settings = type(self).__name__, self.extra_repr()
        shown = settings.split("\n") if settings else []
        if not lines and len(shown) < 2:
            return f"{name}({settings})"
        return "\n  ".join([f"{name}(", *shown, *lines]) + "\n)"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


# ---------------------------------------------------------------------------------------------------- loading checks


def _key_errors(kind: str, keys: list[str]) -> list[str]:
    quoted = ", ".join(f'"{key}"' for key in keys)
    return [f"{kind} key(s) in state_dict: {quoted}."] if keys else []


def _read(given: Any) -> Any:
    """A Tensor, or what NumPy makes of anything that it can read; otherwise as it is given."""
    if isinstance(given, (Tensor, np.ndarray)) or not (hasattr(given, "__array__") or hasattr(given, "__dlpack__")):
        return given
    refused = (AttributeError, TypeError, ValueError, RuntimeError, BufferError)
    try:
        for step in ("detach", "cpu"):  # of PyTorch's tensors: NumPy reads neither those with a gradient nor those on a GPU
            given = getattr(given, step, lambda given=given: given)()
        try:
            array = _as_numpy(given)
        except refused:
            array = _as_numpy(given.float())  # bfloat16, which NumPy has not
    except refused:
        return given
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _as_numpy(given: Any) -> np.ndarray:
    return np.asarray(given) if hasattr(given, "__array__") else np.from_dlpack(given)


def _mismatch(key: str, own: Tensor, given: Any, assign: bool) -> str | None:
    """Why `given` can't be copied into `own`, or put in its place; None if it can."""
    if not isinstance(given, (np.ndarray, Tensor)):
        kind = f"{type(given).__name__} of {given.dtype}" if hasattr(given, "dtype") else type(given).__name__
        return f"type mismatch for {key}: a Tensor or an array that NumPy can read can be copied, got {kind}."
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
    if assign and isinstance(given, Tensor) and not given.is_leaf:
        return f"graph mismatch for {key}: a leaf can be assigned, got a tensor of a graph."
    return None


def _host_array(given: np.ndarray | Tensor) -> np.ndarray:
    return given.device.to_host(given.data) if isinstance(given, Tensor) else given


# ------------------------------------------------------------------------------------------------------------ moving


def _move_to(target: Device) -> Callable[[Tensor], None]:
    def move(tensor: Tensor) -> None:
        if tensor.device is target:
            return
        moved = transfer(tensor.data, tensor.device, target)
        tensor.device = target
        tensor.data = moved
        if tensor.grad is not None:
            _move_to(target)(tensor.grad)

    return move


def _cast_to(dtype: Any) -> Callable[[Tensor], None]:
    if np.dtype(dtype).name not in _FLOATS:
        raise TypeError(f"to: dtype must be one of {', '.join(_FLOATS)}, got {dtype}")

    def cast(tensor: Tensor) -> None:
        if tensor.dtype.kind != "f":
            return
        with tensor.device.active():
            tensor.data = tensor.data.astype(dtype, copy=False)
            if tensor.grad is not None:
                tensor.grad.data = tensor.grad.data.astype(dtype, copy=False)

    return cast


# ------------------------------------------------------------------------------------------------------------- calling


class _ForwardHook(NamedTuple):
    """A hook before or after forward, and how it is called."""

    hook: Callable[..., Any]
    with_kwargs: bool
    always: bool = False


class _Call:
    """One call of a module: the hooks before forward, forward, the hooks after it."""

    def __init__(self, module: Module, args: Any, kwargs: Any) -> None:
        self.module, self.args, self.kwargs, self.output = module, args, kwargs, None
        self.done: list[_ForwardHook] = []  # the hooks after forward that have begun

    def run(self) -> Any:
        module = self.module
        for hook in tuple(module._forward_pre_hooks.values()):
            self.run_before(hook)
        watch = _GradientWatch(module) if module._backward_hooks and is_grad_enabled() else None
        if watch is not None:
            self.args = watch.watch_inputs(self.args)
        with inside(module):
            self.output = module.forward(*self.args, **self.kwargs)
        for hook in tuple(module._forward_hooks.values()):
            self.run_after(hook)
        return self.output if watch is None else watch.watch_outputs(self.output)

    def run_before(self, hook: _ForwardHook) -> None:
        if not hook.with_kwargs:
            replaced = hook.hook(self.module, self.args)
            if replaced is not None:
                self.args = replaced if isinstance(replaced, tuple) else (replaced,)
            return
        replaced = hook.hook(self.module, self.args, self.kwargs)
        if replaced is not None:
            if not (isinstance(replaced, tuple) and len(replaced) == 2):
                raise RuntimeError(
                    f"register_forward_pre_hook: {type(self.module).__name__}'s hook with kwargs must return None or a tuple "
                    f"(inputs, kwargs), got {type(replaced).__name__}"
                )
            self.args, self.kwargs = replaced

    def run_after(self, hook: _ForwardHook) -> None:
        self.done.append(hook)
        kwargs = (self.kwargs,) if hook.with_kwargs else ()
        replaced = hook.hook(self.module, self.args, *kwargs, self.output)
        self.output = self.output if replaced is None else replaced

    def run_what_is_always_called(self) -> None:
        """After an error, the hooks that are for that too and have not run."""
        for hook in tuple(self.module._forward_hooks.values()):
            if hook.always and not any(hook is begun for begun in self.done):
                try:
                    self.run_after(hook)
                except Exception as error:
                    warnings.warn(
                        f"register_forward_hook: a hook with always_call raised {error!r} after another error",
                        stacklevel=3,
                    )


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


class Identity(Module):
    """y = x. Takes and ignores any arguments, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input
