"""The autograd engine: Tensor, Function, and backward().

A `Tensor` is an array with a memory of where it came from. Each op is a `Function`: it computes its output from arrays and
remembers what its backward will need. The object that ran the forward is itself the node of the graph:

    x ──▶ [Conv2d] ──▶ y ──▶ [ReLU] ──▶ z            forward: arrays flow right
    x ◀── [Conv2d] ◀──────── [ReLU] ◀── dL/dz        backward: gradients flow left

`backward` visits every node once, after all of its consumers (their number is counted first), so a tensor used twice
receives the sum of both gradients before it passes them on. Neither recursion nor sorting is needed.

Rules about gradients. An op's backward gets a read-only gradient and may return it, or a view of it. Where several
gradients meet, the first is kept by reference, the second makes a new array (unless the first was one that nobody else
holds), later ones are added to that in place. A leaf's `.grad` is a Tensor on an array of its own, which the next backward
adds to in place. Backward works on arrays, first order only: a gradient has no graph.

Rules about changes in place (`x += y`; minidl/ops/in_place.py). Backward raises if an array that a node saved was changed
since, and so does an op on a view of memory that was changed behind it: the gradient would be wrong (minidl/changes.py).
"""

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from minidl import changes
from minidl.device import Array, Device, array_module
from minidl.grad_mode import is_grad_enabled
from minidl.left_out import REASONS
from minidl.memory import Lease, owner
from minidl.observer import NOWHERE, Observer, observers, present_layer

if TYPE_CHECKING:
    from minidl.ops.operators import Operators
else:
    Operators = object  # the ops need Tensor first: minidl/ops/operators.py binds its list onto the finished class

Hook = Callable[["Tensor"], "Tensor | None"]

_REFLECTED = {  # what NumPy calls for `array * tensor` -> what Python would call then
    **{"add": "__radd__", "subtract": "__rsub__", "multiply": "__rmul__", "power": "__rpow__", "matmul": "__rmatmul__"},
    **{"divide": "__rtruediv__", "true_divide": "__rtruediv__", "floor_divide": "__rfloordiv__", "remainder": "__rmod__"},
    **{"equal": "__eq__", "not_equal": "__ne__", "less": "__gt__", "less_equal": "__ge__"},
    **{"greater": "__lt__", "greater_equal": "__le__"},
    **{"bitwise_and": "__rand__", "bitwise_or": "__ror__", "bitwise_xor": "__rxor__"},
}


class Tensor(Operators):
    """An array on a device that can take part in a graph.

    data          : array-like. Lists become float32, as PyTorch's `Tensor` has it (`minidl.tensor` keeps integers); an array
                    keeps its dtype and is not copied (a NumPy array meant for a GPU is). TypeError for an int without dtype,
                    which PyTorch takes for a size.
    requires_grad : record what is done with it and give it a gradient. Floats only; RuntimeError otherwise.
    device        : a Device or its name; "cpu:0" by default, or that of `data` if it is a Tensor.
    dtype         : convert to this dtype.

    Attributes: `data`, the device's array (NumPy's or CuPy's); `grad`, a Tensor of the same shape or None; `device`;
    `requires_grad`; `shape`, `dtype`, `ndim`. `==` compares elements; the hash is by identity, so that tensors can be keys.
    """

    device: Device
    requires_grad: bool
    _data: Array
    _is_view = False  # made by an op whose output may be a view of its input's memory
    _grad_hooks: "dict[int, Callable[[Tensor], None]] | None" = None

    def __init__(
        self,
        data: Any,
        requires_grad: bool = False,
        device: Device | str | None = None,
        dtype: Any = None,
    ) -> None:
        if isinstance(data, Tensor):
            device = data.device if device is None else device
            data = data._data
        self.device = device if isinstance(device, Device) else Device("cpu:0" if device is None else device)
        self._data = _as_array(data, dtype, self.device)
        self._grad: Tensor | None = None
        self._node: Function | None = None
        self._hooks: dict[int, Hook] | None = None
        if requires_grad and self._data.dtype.kind != "f":
            raise RuntimeError(f"Tensor: only floats can require a gradient, got {self._data.dtype}")
        self.requires_grad = requires_grad

    # ------------------------------------------------------------------------------------------------------ looking

    @property
    def data(self) -> Array:
        """The device's array, NumPy's or CuPy's. Assign an array of the device, or a tensor on it, whose array it then is."""
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        if isinstance(data, Tensor):
            common_device("data", (self, data))
            data = data._data
        self._data = _as_array(data, None, self.device)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        """NumPy's dtype of the elements."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def is_leaf(self) -> bool:
        """Made by the user, not by an op that recorded a graph: the kind whose `.grad` backward fills."""
        return self._node is None

    @overload
    def size(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        """The shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return int(self._data.size)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("Tensor: len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def item(self) -> float | int | bool:
        """The one element as a Python number. RuntimeError unless there is exactly one."""
        if self._data.size != 1:
            raise RuntimeError(f"item: a tensor of one element is needed, got {self._data.size} (x {self.shape})")
        with self.device.active():
            return self._data.item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __index__(self) -> int:
        """As a position in a list, or a range's end. TypeError unless it is one integer."""
        if self._data.size != 1 or self._data.dtype.kind not in "iu":
            raise TypeError(f"Tensor: only one integer can be an index, got {self.dtype} {self.shape}")
        return int(self.item())

    def __contains__(self, value: Any) -> bool:
        """Is an element equal to the value?"""
        return bool((self == value).any().item())

    def __format__(self, spec: str) -> str:
        """f"{loss:.4f}" of a 0-d tensor is that of its number."""
        return format(self.item(), spec) if spec and not self.shape else format(repr(self), spec)

    def tolist(self) -> float | list[Any]:
        """A number, or nested lists of numbers."""
        numbers: float | list[Any] = self.device.to_host(self._data).tolist()
        return numbers

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def nelement(self) -> int:
        """The number of elements."""
        return self.numel()

    def element_size(self) -> int:
        """The bytes of an element."""
        return int(self._data.dtype.itemsize)

    def is_floating_point(self) -> bool:
        """Is it of floats?"""
        return self._data.dtype.kind == "f"

    def is_contiguous(self) -> bool:
        """Is the memory in C order of the indices? Images in minidl are channels-last, so theirs is not."""
        return bool(self._data.flags.c_contiguous)

    @property
    def grad_fn(self) -> "Function | None":
        """The node of the graph that made it; None for a leaf."""
        return self._node

    @property
    def is_cuda(self) -> bool:
        """Is it on a GPU?"""
        return self.device.kind == "cuda"

    def numpy(self) -> np.ndarray:
        """A copy on the host. RuntimeError on a tensor that requires a gradient: `.detach().numpy()` says you know."""
        if self.requires_grad:
            raise RuntimeError("numpy: the tensor requires a gradient, which a NumPy array can't carry; use .detach().numpy()")
        return self.device.to_host(self._data)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **settings: Any) -> Any:
        """What NumPy asks when it meets a tensor: `array * tensor` is the tensor's own `*`, with its graph.

        `array -= tensor` changes the array, and np.sqrt(tensor) is a new tensor: NumPy's part is done outside any graph.
        RuntimeError if the tensor requires a gradient.
        """
        reflected = _REFLECTED.get(ufunc.__name__)
        if reflected is not None and method == "__call__" and out is None and not settings:
            return getattr(Tensor, reflected)(inputs[1], inputs[0])
        if out is None:
            result = self._on_values(ufunc.__name__, getattr(ufunc, method), inputs, settings)
            return result if isinstance(result, tuple) else Tensor(result, device=self.device)
        if any(isinstance(array, Tensor) for array in out):
            return NotImplemented
        return self._on_values(ufunc.__name__, getattr(ufunc, method), inputs, {**settings, "out": out})

    def __cupy_override_elementwise_kernel__(self, kernel: Any, *inputs: Any, **settings: Any) -> Any:
        """What CuPy asks when it meets a tensor, in `array -= tensor`."""
        return self._on_values(kernel.__name__, kernel, inputs, settings)

    def _on_values(self, name: str, function: Callable[..., Any], inputs: Sequence[Any], settings: dict[str, Any]) -> Any:
        """A function of NumPy or CuPy, with the arrays of tensors in their place."""
        if any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            raise RuntimeError(f"{name}: a tensor requires a gradient, which an array can't carry; use its .detach()")
        with common_device(name, inputs).active():
            return function(*(x.data if isinstance(x, Tensor) else x for x in inputs), **settings)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Tensor: a NumPy array of a tensor is always a copy, got copy=False")
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def detach(self) -> "Tensor":
        """The same data outside the graph: no gradient flows through it."""
        return Tensor(self._data, device=self.device)

    def __repr__(self) -> str:
        values = np.array2string(self.device.to_host(self._data), separator=", ", prefix="tensor(", threshold=100)
        notes = ["" if self.dtype == np.float32 else f", dtype={self.dtype}"]
        notes.append("" if self.device is Device("cpu:0") else f", device='{self.device}'")
        if self._node is not None:
            notes.append(f", made by {self._node.name}")
        elif self.requires_grad:
            notes.append(", requires_grad=True")
        return f"tensor({values}{''.join(notes)})"

    # ---------------------------------------------------------------------------------------------------- gradients

    @property
    def grad(self) -> "Tensor | None":
        """dL/dself, the sum over all backwards since it was None: a Tensor that requires no gradient, or None.

        Each backward adds to the same Tensor, in place. What is assigned must have this tensor's shape, dtype and device, or be
        None; it is not copied. TypeError: not a Tensor. RuntimeError: another shape, dtype or device, or this tensor itself.
        """
        return self._grad

    @grad.setter
    def grad(self, grad: "Tensor | None") -> None:
        if grad is not None:
            self._check_grad(grad)
        self._grad = grad

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    def _check_grad(self, grad: Any) -> None:
        if not isinstance(grad, Tensor):
            raise TypeError(f"grad: a gradient must be a Tensor or None, got {type(grad).__name__}; Tensor(array) makes one")
        if grad is self:
            raise RuntimeError(f"grad: a tensor can't be its own gradient, got the one of shape {self.shape} itself")
        for what, own, given in (
            ("dtype", self.dtype, grad.dtype),
            ("device", self.device, grad.device),
            ("shape", self.shape, grad.shape),
        ):
            if given != own:
                raise RuntimeError(f"grad: a gradient must have its tensor's {what}, {own}, got {given}")

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Set `requires_grad` on a leaf; returns the tensor."""
        if requires_grad and self.requires_grad:
            return self
        if self._node is not None:
            raise RuntimeError(f"requires_grad_: only a leaf can be switched, this tensor was made by {self._node.name}")
        if requires_grad and self.data.dtype.kind != "f":
            raise RuntimeError(f"requires_grad_: only floats can require a gradient, got {self.data.dtype}")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep `.grad` on a tensor inside the graph too (a leaf always does)."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad: the tensor does not require a gradient")
        if self._node is not None:
            self._node.retained = weakref.ref(self)

    def register_hook(self, hook: Hook) -> "HookHandle":
        """Call `hook(gradient)` when this tensor's whole gradient is known; what it returns, unless None, replaces it."""
        if not self.requires_grad:
            raise RuntimeError("register_hook: the tensor does not require a gradient")
        holder = self if self._node is None else self._node
        if holder._hooks is None:
            holder._hooks = {}
        return HookHandle(holder._hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: "Callable[[Tensor], None]") -> "HookHandle":
        """Call `hook(tensor)` whenever a backward has added to this leaf's `.grad`. RuntimeError: no leaf, or no gradient."""
        if not self.requires_grad:
            raise RuntimeError("register_post_accumulate_grad_hook: the tensor does not require a gradient")
        if self._node is not None:
            raise RuntimeError(f"register_post_accumulate_grad_hook: only a leaf has one, this was made by {self._node.name}")
        if self._grad_hooks is None:
            self._grad_hooks = {}
        return HookHandle(self._grad_hooks, hook)

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: "Tensor | Sequence[Tensor] | None" = None,
    ) -> None:
        """Add dL/dleaf to the `.grad` of every leaf that this tensor depends on.

        gradient     : dL/dself, of this tensor's shape; may be left out for one element (then 1).
        retain_graph : keep what was saved, so that backward can run once more. Otherwise it is freed on the way.
        create_graph : must be False: gradients of gradients are left out.
        inputs       : the tensors that get a `.grad`, in place of all leaves; also tensors inside the graph.

        RuntimeError: no graph, a gradient of another shape, a graph already freed. NotImplementedError: create_graph.
        """
        if create_graph:
            raise NotImplementedError(
                "backward: create_graph=True asks for gradients of gradients, which minidl leaves out: its backwards work on "
                "arrays and record nothing. gradcheck compares a gradient with differences"
            )
        wanted = None if inputs is None else [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if wanted is not None and not wanted:
            raise RuntimeError("backward: inputs must name at least 1 tensor, got none")
        if not self.requires_grad:
            raise RuntimeError("backward: the tensor does not require a gradient and has no graph")
        with self.device.active():
            if gradient is None:
                if self.data.size != 1:
                    raise RuntimeError(
                        f"backward: only a tensor of one element has an implied gradient, got shape {self.shape}; "
                        "pass gradient="
                    )
                gradient = array_module(self.data).ones_like(self.data)
            elif isinstance(gradient, Tensor) and gradient.device is not self.device:
                raise RuntimeError(
                    f"backward: the tensor is on {self.device}, gradient on {gradient.device}; move one with .to(device)"
                )
            gradient = Tensor(gradient, device=self.device, dtype=self.dtype).data
        if gradient.shape != self.shape:
            raise RuntimeError(f"backward: gradient must have the shape {self.shape}, got {gradient.shape}")
        if self._is_view:
            _check_view("backward", self)
        nodes = [(t._node, t._node.retained) for t in wanted or () if t._node is not None]
        for t in wanted or ():
            t.retain_grad()
        root, targets = self if self._node is None else self._node, None if wanted is None else set(wanted)
        with _to_its_end() as at_end:
            _run_backward(root, gradient, bool(retain_graph), targets)
            for callback in at_end:
                callback()
        for node, before in nodes:
            node.retained = before


def _as_array(data: Any, dtype: Any, device: Device) -> Array:
    """Any array-like -> the device's array."""
    if type(data) is np.ndarray and dtype is None and device.kind == "cpu" and data.dtype.kind in "fiub":
        return data  # what the ops make, with no detour
    if not hasattr(data, "dtype"):
        if isinstance(data, int) and dtype is None:
            raise TypeError(f"Tensor: PyTorch takes {data} for a size; minidl.tensor({data}) is a number, empty({data}) a size")
        data = np.asarray(data)
        if dtype is None and data.dtype.kind in "fiub":
            data = data.astype(np.float32)
    check_real("Tensor", data.dtype if dtype is None else np.dtype(dtype))
    if dtype is not None and data.dtype != dtype:
        with device.active():
            data = data.astype(dtype)
    if isinstance(data, (np.ndarray, np.generic)):
        return device.asarray(np.asarray(data))
    if device.kind == "cpu":
        raise TypeError(f"Tensor: {device} takes NumPy arrays, got {type(data).__name__}; copy it to the host first")
    return data


def check_real(op: str, dtype: np.dtype) -> None:
    """TypeError unless a tensor can have the dtype: floats, integers and bool."""
    if dtype.kind not in "fiub":
        reason = f": {REASONS['complex']}" if dtype.kind == "c" else ""
        raise TypeError(f"{op}: the dtype must be of real numbers, got {dtype}{reason}")


_hook_keys = itertools.count()


class HookHandle:
    """What registering a hook returns: `remove()` takes it off again, once or more often; so does the end of a `with` block."""

    def __init__(self, hooks: dict[int, Any], hook: Any, prepend: bool = False) -> None:
        self._hooks, self._key = hooks, next(_hook_keys)
        before = dict(hooks) if prepend else {}
        if prepend:
            hooks.clear()
        hooks[self._key] = hook
        hooks.update(before)

    def remove(self) -> None:
        self._hooks.pop(self._key, None)

    def __enter__(self) -> "HookHandle":
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


# ------------------------------------------------------------------------------------------------------------ functions


class Function:
    """One op: subclass it, write `forward` and `backward` on arrays, call `apply`.

        class Square(Function):
            name = "square"

            def forward(ctx, x):
                ctx.save(x)
                return x * x

            def backward(ctx, gy):
                (x,) = ctx.saved
                return (2 * x * gy,)

        y = Square.apply(x)

    `ctx` is the node itself. `backward` returns one gradient for each positional argument of `apply`, None for those
    without; `ctx.needs_grad[i]` tells which are asked for. Positional arguments are tensors or constants, keyword arguments
    are settings. If `forward` returns a tuple, its first array is the output and the rest are constants.
    """

    name: ClassVar[str]
    device = Device("cpu:0")  # the inputs', once it is applied

    # what the tools of minidl/study ask of an op
    kinked: ClassVar[bool] = False  # its slope jumps somewhere, as relu's at 0: there is no numeric slope to compare with
    rectifies: ClassVar[bool] = False  # a unit whose output is 0 is off, and passes no gradient
    relative_slope: ClassVar["staticmethod[[Array], Array] | None"] = None  # of units that saturate: y -> slope / steepest
    weighted: ClassVar[bool] = False  # its outputs are neurons: sums of products with the second input, a weight (O, ...)
    scores: ClassVar[bool] = False  # a loss: its first input (N, C) has a score for each class

    views: ClassVar[bool] = False  # its output may be a view of its first input's memory

    def __init__(self) -> None:
        self.needs_grad: tuple[bool, ...] = ()
        self.saved: tuple[Any, ...] = ()
        self._edges: tuple[Tensor | Function | None, ...] = ()
        self._inputs: tuple[tuple[tuple[int, ...], Any], ...] = ()  # shape and dtype of each input
        self._freed = False
        self._hooks: dict[int, Hook] | None = None
        self.time = 0  # changes.now() when forward had run
        self.layer = NOWHERE  # where it was called, if somebody observed that
        self.retained: weakref.ref[Tensor] | None = None

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        """Arrays and constants -> the output, an array, or a tuple of it and of constants. Every op has its own."""
        raise NotImplementedError(f"{type(self).__name__}: forward is missing")

    def backward(self, gy: Array) -> Sequence[Array | None]:
        """dL/doutput, not to be written to -> a gradient for each input, of its shape, or None. Every op has its own."""
        raise NotImplementedError(f"{type(self).__name__}: backward is missing")

    def save(self, *arrays: Any) -> None:
        """Keep arrays until backward has run. Settings and shapes can be plain attributes."""
        self.saved = arrays

    @classmethod
    def apply(cls, *inputs: Any, **settings: Any) -> Tensor:
        """Run the op on tensors (and constants), and record it if a gradient will be asked for.

        Returns the output; where forward returns a tuple, a tuple of tensors, which type checkers take for one Tensor: it too
        can be unpacked into tensors.
        RuntimeError if the tensors are on different devices.
        """
        node = cls()
        node.device = common_device(cls.name, inputs)
        recording = is_grad_enabled()
        node.needs_grad = tuple(recording and isinstance(x, Tensor) and x.requires_grad for x in inputs)
        if recording:
            for x, needed in zip(inputs, node.needs_grad, strict=True):
                if needed and x._is_view:
                    _check_view(cls.name, x)
        watching = observers()
        if watching:
            node.layer = present_layer()
        with node.device.active():
            for observer in watching:
                observer.forward_begins(node, inputs, settings)
            outputs = node.forward(*(x._data if isinstance(x, Tensor) else x for x in inputs), **settings)
        y, *constants = outputs if isinstance(outputs, tuple) else (outputs,)
        out = Tensor(y, device=node.device)
        if cls.views:
            out._is_view = True
        if any(node.needs_grad):
            out.requires_grad = True
            node.time = changes.now()
            out._node = node
            node._edges = tuple(
                (x if x._node is None else x._node) if needed else None
                for x, needed in zip(inputs, node.needs_grad, strict=True)
            )
            node._inputs = tuple((x._data.shape, x._data.dtype) if isinstance(x, Tensor) else ((), None) for x in inputs)
        if watching:
            with node.device.active():
                for observer in watching:
                    observer.forward_ends(node, inputs, settings, out)
        results: Any = (out, *(Tensor(c, device=node.device) for c in constants)) if constants else out
        return results


def _check_view(op: str, x: Tensor) -> None:
    """A view in a graph must not have been changed behind it: the graph knows nothing of the change."""
    node = x._node
    by = None if node is None else changes.changed_since(x.data, node.time)
    if node is not None and by is not None:
        raise RuntimeError(
            f"{op}: an input of shape {x.shape} is a view, made by {node.name}, of memory that {by} changed in place later; "
            "take the view again after the change"
        )


def common_device(op: str, inputs: Sequence[Any]) -> Device:
    """The device of all tensors among the inputs."""
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if not tensors:
        raise TypeError(f"{op}: at least 1 input must be a Tensor, got {', '.join(type(x).__name__ for x in inputs)}")
    first = tensors[0].device
    for x in tensors:
        if x.device is not first:
            names = ", ".join(f"{name} on {t.device}" for name, t in zip("xyzuvw", tensors, strict=False))
            raise RuntimeError(f"{op}: {names.replace(' on', ' is on', 1)}; move one with .to(device)")
    return first


# ------------------------------------------------------------------------------------------------------------- backward


def clear_grads(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """Forget gradients: each `.grad` becomes None, or zeros where there is one."""
    for tensor in tensors:
        if set_to_none:
            tensor._grad = None
        elif tensor.grad is not None:
            with tensor.device.active():
                tensor.grad.data[...] = 0
            changes.note(tensor.grad.data, "zero_grad")


class _Running(threading.local):
    at_end: "list[Callable[[], None]] | None" = None


_running = _Running()


@contextmanager
def _to_its_end() -> "Iterator[list[Callable[[], None]]]":
    """A backward runs; the list has what is to be called at its end."""
    before, _running.at_end = _running.at_end, []
    try:
        yield _running.at_end
    finally:
        _running.at_end = before


def at_end_of_backward(callback: Callable[[], None]) -> None:
    """Call it when the backward that runs now on this thread has reached every leaf. RuntimeError outside one."""
    if _running.at_end is None:
        raise RuntimeError("at_end_of_backward: must be called while a backward runs, from a hook")
    _running.at_end.append(callback)


def _run_backward(root: "Tensor | Function", gradient: Array, retain_graph: bool, wanted: set[Tensor] | None) -> None:
    """Carry the gradient from the root to every leaf (to those that are `wanted`), each node after all of its consumers."""
    waiting = _count_consumers(root)
    grads: dict[Tensor | Function, Array] = {root: gradient}
    owned: set[Tensor | Function] = set()  # those whose gradient nobody else holds: it may be written to, or kept
    ready = [root]
    while ready:
        target = ready.pop()
        grad = grads.pop(target, None)
        if isinstance(target, Tensor):
            if grad is not None and (wanted is None or target in wanted):
                _accumulate(target, _run_hooks(target, grad), target in owned and not target._hooks)
                for observer in observers():
                    with target.device.active():
                        observer.leaf_has_gradient(target)
                for hook in tuple((target._grad_hooks or {}).values()):
                    hook(target)
            continue
        edges = target._edges
        gradients, own = _run_node(target, grad, retain_graph)
        for edge, gx in zip(edges, gradients, strict=True):
            if edge is None:
                continue
            if gx is not None:
                _add(grads, owned, edge, gx, id(gx) in own)
            waiting[edge] -= 1
            if waiting[edge] == 0:
                ready.append(edge)


def _count_consumers(root: "Tensor | Function") -> "dict[Tensor | Function, int]":
    """How many edges lead from the root's graph to each node and leaf."""
    consumers: dict[Tensor | Function, int] = {root: 0}
    unseen = [root]
    while unseen:
        node = unseen.pop()
        if isinstance(node, Tensor):
            continue
        if node._freed:
            raise RuntimeError(
                f"backward: the graph behind {node.name} was freed by an earlier backward; call that one with "
                "retain_graph=True to run it twice"
            )
        for edge in node._edges:
            if edge is not None:
                if edge not in consumers:
                    consumers[edge] = 0
                    unseen.append(edge)
                consumers[edge] += 1
    return consumers


def _run_node(node: Function, grad: Array | None, retain_graph: bool) -> tuple[Sequence[Array | None], set[int]]:
    """A node's input gradients, checked, and the ids of those that only the caller holds.

    What the node saved is dropped unless the graph is retained.
    """
    gradients: Sequence[Array | None] = (None,) * len(node._edges)
    own: set[int] = set()
    watching = observers()
    if grad is not None:
        _check_saved(node)
        grad = _run_hooks(node, grad)
        kept = node.retained() if node.retained is not None else None
        if kept is not None:
            _retain(kept, grad)
        gradients = _observed_backward(node, grad, watching)
        own = _unshared(gradients, (grad, *node.saved, *vars(node).values()))
    if not retain_graph:
        for observer in watching:
            observer.saved_is_freed(node)
        node.saved, node._edges, node._freed = (), (), True
    return gradients, own


def _check_saved(node: Function) -> None:
    """What the node saved must be as forward left it."""
    if node.time == changes.now():
        return
    for array in node.saved:
        by = changes.changed_since(array, node.time) if hasattr(array, "base") else None
        if by is not None:
            raise RuntimeError(
                f"{node.name}: backward needs an array {array.shape} as forward saved it, but {by} changed it in place since: "
                "one of the variables needed for gradient computation has been modified by an inplace operation"
            )


def _observed_backward(node: Function, grad: Array, watching: Sequence[Observer]) -> Sequence[Array | None]:
    """What the node's backward returns, checked, before and after the observers' eyes."""
    with node.device.active():
        for observer in watching:
            observer.backward_begins(node, grad)
        gradients = [_checked(node, i, gx) for i, gx in enumerate(node.backward(grad))]
        if len(gradients) != len(node._edges):
            raise RuntimeError(f"{node.name}: backward must return {len(node._edges)} gradients, got {len(gradients)}")
        for observer in watching:
            observer.backward_ends(node, grad, gradients)
    return gradients


def _unshared(gradients: Sequence[Array | None], known: Sequence[Any]) -> set[int]:
    """The ids of gradients that are all of a memory of their own: returned once, not the incoming one's, nor the node's."""
    roots = [None if gx is None else _root(gx) for gx in gradients]
    shared = {id(_root(array)) for array in known if hasattr(array, "base")}
    return {
        id(gx)
        for gx, root in zip(gradients, roots, strict=True)
        if gx is not None and root is not None and id(root) not in shared and sum(other is root for other in roots) == 1
        # a part of an array keeps the rest alive, and an axis of stride 0 has one memory for many elements
        if gx is root or (gx.size == root.size and 0 not in gx.strides)
    }


def _root(array: Array) -> Array | None:
    """The array whose memory it is in; None if that is no array's own, a buffer's say."""
    root = owner(array)
    return root if root.base is None or isinstance(root.base, Lease) else None


def _checked(node: Function, i: int, gx: Array | None) -> Array | None:
    """The i-th gradient if it has its input's shape, in the input's dtype."""
    if gx is None or i >= len(node._edges) or node._edges[i] is None:
        return None
    shape, dtype = node._inputs[i]
    if gx.shape != shape:
        raise RuntimeError(f"{node.name}: gradient {i} must have its input's shape {shape}, got {gx.shape}")
    return gx if gx.dtype == dtype else gx.astype(dtype)


def _add(
    grads: dict[Tensor | Function, Array], owned: set[Tensor | Function], target: Tensor | Function, gx: Array, own: bool
) -> None:
    """One more gradient for the target."""
    if target not in grads:
        grads[target] = gx
        if own:
            owned.add(target)
    elif target in owned:
        with target.device.active():
            grads[target] += gx
    else:
        with target.device.active():
            grads[target] = grads[target] + gx
        owned.add(target)


def _run_hooks(holder: "Tensor | Function", grad: Array) -> Array:
    """The gradient after the hooks of a leaf, or of a node's output."""
    for hook in tuple((holder._hooks or {}).values()):
        replaced = hook(Tensor(grad, device=holder.device))
        if replaced is None:
            continue
        if replaced.shape != grad.shape:
            raise RuntimeError(f"register_hook: the hook must return the shape {grad.shape}, got {replaced.shape}")
        if replaced.device is not holder.device:
            raise RuntimeError(f"register_hook: the hook must return a tensor on {holder.device}, got one on {replaced.device}")
        grad = replaced.data
    return grad


def _accumulate(tensor: Tensor, grad: Array, owned: bool) -> None:
    """tensor.grad += grad, in an array of its own with the memory order of tensor.data."""
    with tensor.device.active():
        if tensor._grad is not None:
            tensor._grad.data += grad
            changes.note(tensor._grad.data, "a later backward")
            return
        if not (owned and grad.ndim and grad.strides == tensor._data.strides):
            copied = array_module(grad).empty_like(tensor._data)
            copied[...] = grad
            grad = copied
    tensor._grad = Tensor(grad, device=tensor.device)


def _retain(tensor: Tensor, grad: Array) -> None:
    """tensor.grad = tensor.grad + grad: inside the graph each backward makes a new Tensor, as PyTorch's does."""
    before, tensor.grad = tensor.grad, None
    with tensor.device.active():
        _accumulate(tensor, grad if before is None else before.data + grad, owned=before is not None)
