"""A stand-in for CuPy on NumPy: it computes nothing faster, but refuses what a GPU would refuse or get wrong.

  * Its arrays are no NumPy arrays. NumPy functions, NumPy operands and `np.asarray` on them raise TypeError.
  * Functions and methods have CuPy 14's signatures, which lack some of NumPy's arguments.
  * Work needs the array's GPU to be the current one and a stream of its own (not the null stream).
  * Streams run side by side: reading or writing what another stream wrote, and freeing what another one still reads, needs
    an event in between. `errors` holds what was noticed where nothing can be raised.
  * A copy from or to page-locked memory ends when the host has waited for it, and no sooner: what is on its way to the host is
    NaN until then, and what is on its way to a GPU must stay as it is.
  * What CuPy does in silence: an index array's positions out of range are taken modulo the axis, of values assigned to one
    element any may stay, `add.at` adds in any order, and elementwise functions take float32 numbers below 1.2e-38 for 0.
  * Memory that was freed comes back with what was in it, or full of NaN where `stale` is False.
  * A RawModule's kernels run on the CPU, one CUDA thread after the other (tests/emulator), in the order that `order` says.

`history` lists what happened, in order: ("h2d", stream), ("record", stream), ("wait", stream), ... `launches` lists the
kernels of RawModules by name.
"""

import inspect
import itertools
import os
import sys
import threading
import weakref
from collections import Counter
from types import SimpleNamespace

import fake_cublas
import numpy as np
from emulator import emulator

from minidl.device import Device, _check_libraries

float32, float64, int64, bool_ = np.float32, np.float64, np.int64, np.bool_
__version__ = "14.2.0"
inf, nan, pi, newaxis = np.inf, np.nan, np.pi, None

history: list[tuple] = []
in_flight: list["_Copy"] = []  # between page-locked memory and a GPU
errors: list[str] = []
launches: list[str] = []
devices = 1  # how many GPUs this machine has
memory = 1 << 40  # bytes of each
in_use: Counter[int] = Counter()  # bytes of arrays on each GPU
stale = True  # what new memory holds: what was there before, where memory of that size was freed, else NaN
fused = False  # do kernels round a product before something is added to it, or not, as on a GPU?
order = "forward"  # or "reverse", or "shuffled": how a kernel's threads and blocks run


def install(monkeypatch, gpus=1):
    """`import cupy` gives this module until the test ends, and no GPU is known yet."""
    module = sys.modules[__name__]
    monkeypatch.setattr(Device, "_made", {n: d for n, d in Device._made.items() if not n.startswith("cuda")})
    _check_libraries.cache_clear()
    monkeypatch.setattr(module, "devices", gpus)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(module, "in_use", Counter())
    monkeypatch.setattr(module, "_pool", _Pool())
    for seen in (history, errors, launches, in_flight):
        seen.clear()
    fake_cublas.install(module)
    return module


# ------------------------------------------------------------------------------------------------- devices and streams


class _Here(threading.local):
    def __init__(self):
        self.device, self.streams, self.hooks = 0, [None], []


_here = _Here()


class _Device:
    def __init__(self, index=None):
        self.id = _here.device if index is None else index
        self._before = []

    def __enter__(self):
        if not 0 <= self.id < devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._before.append(_here.device)
        _here.device = self.id
        return self

    def __exit__(self, *exc):
        _here.device = self._before.pop()

    @property
    def mem_info(self):
        return memory - in_use[self.id], memory


_streams = weakref.WeakValueDictionary()  # by their addresses


class _Stream:
    made = itertools.count()

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.device_id, self.non_blocking = _here.device, non_blocking
        self.time, self.seen = 0, {}  # how far it has run; how far each other stream had when this one waited for it
        number = next(_Stream.made)
        self.name, self.ptr = f"stream{number}", 1 + number
        _streams[self.ptr] = self

    def __enter__(self):
        if self.device_id != _here.device:
            raise RuntimeError("The device that the stream is created on does not match the current device")
        _here.streams.append(self)
        return self

    def __exit__(self, *exc):
        _here.streams.pop()

    def record(self, event=None):
        history.append(("record", self.name))
        return _Event({**self.seen, self: self.time})

    def wait_event(self, event):
        history.append(("wait", self.name))
        for stream, time in event.seen.items():
            self.seen[stream] = max(time, self.seen.get(stream, 0))

    def synchronize(self):
        history.append(("synchronize", self.name))
        _waited_for({**self.seen, self: self.time})

    def knows(self, stream, time):
        return stream is self or self.seen.get(stream, 0) >= time


class _Event:
    """A moment of a stream, and of those that it had waited for by then."""

    def __init__(self, seen):
        self.seen = seen

    def synchronize(self):
        history.append(("synchronize event", *sorted(stream.name for stream in self.seen)))
        _waited_for(self.seen)


class _PageLocked(bytearray):
    """Host memory that a GPU copies from and to by itself."""


def _is_page_locked(host):
    while isinstance(host, np.ndarray):
        host = host.base
    return isinstance(host.obj if isinstance(host, memoryview) else host, _PageLocked)


class _Copy:
    """One that a stream has begun: `host` on the one side, and what it held or will hold then."""

    def __init__(self, stream, host, values, to_host):
        self.stream, self.time, self.host, self.values, self.to_host = stream, stream.time, host, values, to_host
        if to_host:
            host.reshape(-1).view(np.uint8)[...] = 0xFF

    def check(self):
        if not self.to_host and self.host.tobytes() != self.values.tobytes():
            errors.append(f"page-locked memory was overwritten while {self.stream.name} copied from it")
            self.values = self.host.copy()  # said once

    def end(self):
        if self.to_host:
            self.host[...] = self.values


def _waited_for(seen):
    """The host knows that these streams have come to these times."""
    for copy in list(in_flight):
        copy.check()
        if copy.time <= seen.get(copy.stream, -1):
            copy.end()
            in_flight.remove(copy)


class _MemoryHook:
    """Is told of memory that is taken and given back, while it is entered."""

    def __enter__(self):
        if any(hook.name == self.name for hook in _here.hooks):
            raise KeyError(f"memory hook {self.name} already exists")
        _here.hooks.append(self)
        return self

    def __exit__(self, *exc):
        _here.hooks.remove(self)


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class _Pool:
    """Freed memory of every GPU, by the stream that asked for it and its size: the last that was freed comes back first."""

    def __init__(self):
        self.blocks = {}

    def take(self, device, stream, size):
        blocks = self.blocks.get((device, stream, size))
        return blocks.pop() if blocks else None

    def give(self, device, stream, array):
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if owner.flags.c_contiguous and owner.flags.owndata:
            self.blocks.setdefault((device, stream, owner.nbytes), []).append(owner)

    def kept(self, device):
        return sum(len(blocks) * size for (where, _, size), blocks in self.blocks.items() if where == device)


_pool = _Pool()


def get_default_memory_pool():
    """The current GPU's pool."""
    device = _here.device
    return SimpleNamespace(used_bytes=lambda: in_use[device], free_bytes=lambda: _pool.kept(device))


cuda = SimpleNamespace(
    Device=_Device,
    Stream=_Stream,
    get_current_stream=lambda device_id=-1: _here.streams[-1],
    MemoryHook=_MemoryHook,
    alloc_pinned_memory=_PageLocked,
    set_allocator=lambda allocator: None,  # there is no pool to go round
    runtime=SimpleNamespace(
        getDeviceCount=lambda: devices,
        getDeviceProperties=lambda index: {"name": b"a stand-in"},
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13020,
        CUDARuntimeError=CUDARuntimeError,
    ),
)


class _Buffer:
    """A piece of a GPU's memory: who wrote it last, who has read it since."""

    size = 0

    def __init__(self, device, stream, size, array):
        self.device, self.owner, self.written, self.readers = device, stream, (stream, stream.time), {}
        self.array, self.pool = array, _pool
        if in_use[device] + size > memory:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {in_use[device]:,} bytes).")
        self.size, self.counter = size, in_use
        in_use[device] += size
        self.call = {"device_id": device, "mem_size": -(-size // 512) * 512, "mem_ptr": id(self), "pmem_id": id(self)}
        for hook in _here.hooks:
            hook.malloc_postprocess(size=size, **self.call)

    def use(self, stream, write):
        if _here.device != self.device:
            raise RuntimeError(f"an array of GPU {self.device} is used while GPU {_here.device} is current")
        if not stream.knows(*self.written):
            raise RuntimeError(f"{stream.name} uses what {self.written[0].name} wrote, with no event in between")
        if not write:
            self.readers[stream] = stream.time
            return
        if not all(stream.knows(*reader) for reader in self.readers.items()):
            raise RuntimeError(f"{stream.name} writes what another stream still reads, with no event in between")
        self.written, self.readers = (stream, stream.time), {}

    def __del__(self):
        if self.size:
            self.counter[self.device] -= self.size
            self.pool.give(self.device, self.owner, self.array)
            for hook in _here.hooks:
                hook.free_postprocess(**self.call)
        if not all(self.owner.knows(*use) for use in (self.written, *self.readers.items())):
            errors.append(f"memory of {self.owner.name} was freed while another stream used it")


def _launch(inputs=(), outputs=()):
    """One kernel on the current stream."""
    stream = _here.streams[-1]
    if stream is None or stream.device_id != _here.device:
        raise RuntimeError("a kernel on the null stream: enter the device first")
    stream.time += 1
    for array in inputs:
        array._buffer.use(stream, write=False)
    for array in outputs:
        array._buffer.use(stream, write=True)
    return stream


def _new(host, stream):
    host = np.asarray(host)
    return ndarray(host, _Buffer(_here.device, stream, host.nbytes, host))


# --------------------------------------------------------------------------------------------------------------- arrays


def _host(value, index=False):
    """What NumPy computes with: a fake array's memory, a number as it is; TypeError for a NumPy array."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, (tuple, list)):
        return type(value)(_host(v, index) for v in value)
    if isinstance(value, np.ndarray) and not index:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def _arrays(values):
    for value in values:
        if isinstance(value, ndarray):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _arrays(value)


def _compute(function, *args, index=False, **settings):
    """function(*args) on NumPy arrays; a view costs nothing, a new array is a kernel's."""
    inputs = list(_arrays(args))
    result = function(*(_host(a, index) for a in args), **settings)
    for x in inputs:
        if isinstance(result, np.ndarray) and (np.may_share_memory(result, x._array) or not result.size):
            return x if result is x._array else ndarray(result, x._buffer, x if x.base is None else x.base)
    return _new(result, _launch(inputs))


def _into(target, function, *args):
    """function(target, *args) on NumPy arrays, which changes the target."""
    function(target._array, *(_host(a) for a in args))
    _launch([a for a in _arrays(args) if a is not target], [target])
    return target


def _operator(name):
    def method(self, *others):
        if any(hasattr(o, OVERRIDE) for o in others):
            return _numpys(name)(self, *others)  # CuPy hands what it does not know to NumPy, which asks that
        if not all(isinstance(o, (ndarray, int, float, np.generic)) for o in others):
            raise TypeError(f"Unsupported type {[type(o) for o in others]}")
        return _compute(_in_c_order(lambda x, *ys: getattr(x, name)(*ys)), self, *others)

    return method


OVERRIDE = "__cupy_override_elementwise_kernel__"  # what CuPy asks of an operand that is no array


def _numpys(name):
    """NumPy's ufunc for an operator: np.subtract for __sub__ and __isub__."""
    name = name.strip("_")
    return getattr(np, OPERATORS.get(name) or OPERATORS[name[1:]])


def _in_c_order(function):
    """An elementwise function as CuPy has it: its result is in C order, whatever its operands' memory, and its kernel, compiled
    with -ftz=true, reads and writes zeros for numbers that are too small for float32's usual form."""
    return lambda *args: _flushed(np.array(function(*map(_flushed, args)), order="C"))


def _flushed(x):
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        return x
    small = np.abs(x) < np.finfo(np.float32).tiny
    if not (small & (x != 0)).any():
        return x
    return np.where(small, np.copysign(np.float32(0), x), x)


def _in_place(name):
    def method(self, other):
        if hasattr(other, OVERRIDE):
            return getattr(other, OVERRIDE)(ufunc(_numpys(name).__name__), self, other, self)
        if not isinstance(other, (ndarray, int, float, np.generic)):
            raise TypeError(f"Unsupported type {type(other)}")
        return _into(self, lambda x, y: _changed(x, getattr(np.array(_flushed(x)), name), _flushed(y)), other)

    return method


def _changed(x, change, *others):
    x[...] = _flushed(change(*others))


class ndarray:  # noqa: N801  CuPy's name
    __module__ = "cupy"
    __hash__ = None

    def __init__(self, array, buffer, base=None):
        self._array, self._buffer, self.base = array, buffer, base

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, **settings):
        if any(hasattr(x, OVERRIDE) for x in inputs):
            return NotImplemented
        raise TypeError("a NumPy ufunc was called on a GPU's array")

    def __array_function__(self, *args, **kwargs):
        raise TypeError("a NumPy function was called on a GPU's array")

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    nbytes = property(lambda self: self._array.nbytes)
    strides = property(lambda self: self._array.strides)
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._array.flags.c_contiguous))
    T = property(lambda self: self.transpose())

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return _compute(lambda x, *i: x[_place(x, i if isinstance(index, tuple) else i[0])], self, *_parts(index), index=True)

    def __setitem__(self, index, value):
        if not isinstance(value, (ndarray, int, float, np.generic)):
            raise TypeError(f"Unsupported type {type(value)}")
        parts = tuple(_host(part, index=True) for part in _parts(index))
        place = _place(self._array, parts if isinstance(index, tuple) else parts[0])
        _into(self, lambda x, v: _assign(x, place, v), value)

    def _scalar(self):
        return asnumpy(self).item()

    def item(self):
        return self._scalar()

    def __float__(self):
        return float(self._scalar())

    def __int__(self):
        return int(self._scalar())

    def __bool__(self):
        return bool(self._scalar())

    def get(self, stream=None, order="C", out=None, blocking=True):
        return asnumpy(self, stream, order, out, blocking=blocking)

    def view(self, dtype=None):
        return _compute(lambda x: x.view(dtype), self)

    def transpose(self, *axes):
        return _compute(lambda x: x.transpose(*axes), self)

    def swapaxes(self, axis1, axis2):
        return _compute(lambda x: x.swapaxes(axis1, axis2), self)

    def reshape(self, *shape, order="C", copy=None):
        return _compute(lambda x: x.reshape(*shape, order=order), self)

    def squeeze(self, axis=None):
        return _compute(lambda x: x.squeeze(axis), self)

    def copy(self, order="C"):
        return _compute(lambda x: x.copy(order), self)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        return _compute(lambda x: x.astype(dtype, order, copy=copy), self)

    def sum(self, axis=None, dtype=None, out=None, keepdims=False):
        return _compute(lambda x: x.sum(axis, dtype, keepdims=keepdims), self)

    def mean(self, axis=None, dtype=None, out=None, keepdims=False):
        return _compute(lambda x: x.mean(axis, dtype, keepdims=keepdims), self)

    def max(self, axis=None, out=None, keepdims=False):
        return _compute(lambda x: x.max(axis, keepdims=keepdims), self)

    def min(self, axis=None, out=None, keepdims=False):
        return _compute(lambda x: x.min(axis, keepdims=keepdims), self)

    def argmax(self, axis=None, out=None, dtype=None, keepdims=False):
        return _compute(lambda x: x.argmax(axis, keepdims=keepdims), self)

    def argmin(self, axis=None, out=None, dtype=None, keepdims=False):
        return _compute(lambda x: x.argmin(axis, keepdims=keepdims), self)

    def clip(self, min=None, max=None, out=None):
        return _compute(_in_c_order(lambda x: x.clip(min, max)), self)

    def any(self, axis=None, out=None, keepdims=False):
        return _compute(lambda x: x.any(axis, keepdims=keepdims), self)

    def all(self, axis=None, out=None, keepdims=False):
        return _compute(lambda x: x.all(axis, keepdims=keepdims), self)


def _parts(index):
    return index if isinstance(index, tuple) else (index,)


def _is_list(part):
    return isinstance(part, (np.ndarray, list)) and np.ndim(part) > 0


def _place(x, index):
    """An index of x whose arrays' positions are taken modulo their axes, as CuPy takes them."""
    parts = _parts(index)
    if not any(_is_list(part) and np.asarray(part).dtype.kind in "iu" for part in parts):
        return index
    taken = [0 if part is None or part is Ellipsis else np.ndim(part) if _is_mask(part) else 1 for part in parts]
    placed, axis = [], 0
    for part, axes in zip(parts, taken, strict=True):
        if part is Ellipsis:
            axis += x.ndim - sum(taken)
        elif _is_list(part) and np.asarray(part).dtype.kind in "iu" and x.shape[axis]:
            part = np.asarray(part) % x.shape[axis]
        placed.append(part)
        axis += axes
    return tuple(placed) if isinstance(index, tuple) else placed[0]


def _is_mask(part):
    return getattr(part, "dtype", None) == np.bool_ or isinstance(part, bool)


def _positions(x, place):
    """Where in x the elements of x[place] are, counted in C order."""
    return np.arange(x.size).reshape(x.shape)[place]


def _assign(x, place, values):
    """x[place] = values; of several for one element the first stays, where NumPy keeps the last."""
    if not any(_is_list(part) for part in _parts(place)):
        x[place] = values
        return
    where = _positions(x, place)
    x.put(where.reshape(-1)[::-1], np.broadcast_to(values, where.shape).reshape(-1)[::-1])


OPERATORS = {
    **{"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide"},
    **{"mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"},
    **{"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"},
}
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__"))
    setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


# ------------------------------------------------------------------------------------------------------------ functions


class ufunc:  # noqa: N801  CuPy's name
    """An elementwise function; unlike NumPy's it knows neither `where` nor `initial`."""

    def __init__(self, name):
        self._ufunc, self.__name__ = getattr(np, name), f"cupy_{name}"

    def __call__(self, *args, out=None, casting="same_kind", dtype=None):
        *args, out = args if len(args) > self._ufunc.nin else (*args, out)
        if not any(isinstance(a, ndarray) for a in args):
            raise TypeError("a GPU's ufunc was called without a GPU's array")
        if out is not None:
            return _into(
                out, lambda o, *xs: _changed(o, lambda *ys: self._ufunc(*ys, casting=casting), *map(_flushed, xs)), *args
            )
        return _compute(_in_c_order(lambda *xs: self._ufunc(*xs, casting=casting, dtype=dtype)), *args)

    def at(self, a, indices, b=None):
        parts = tuple(_host(part, index=True) for part in _parts(indices))
        place = _place(a._array, parts if isinstance(indices, tuple) else parts[0])
        _into(a, lambda x, v: self._in_some_order(x, _positions(x, place), v), b)

    calls_of_at = 0

    def _in_some_order(self, x, where, values):
        """Atomic operations come in another order each time."""
        ufunc.calls_of_at += 1
        turned = np.random.default_rng(ufunc.calls_of_at).permutation(where.size)
        flat = x.reshape(-1).copy()
        self._ufunc.at(flat, where.reshape(-1)[turned], np.broadcast_to(values, where.shape).reshape(-1)[turned])
        x[...] = flat.reshape(x.shape)


NOT_CUPYS = {"isnat", "matmul", "matvec", "spacing", "vecdot", "vecmat"}  # CuPy has none of these, or as another function
UFUNCS = [name for name, f in vars(np).items() if isinstance(f, np.ufunc) and f.nout == 1 and name not in NOT_CUPYS]
for _name in UFUNCS:
    globals()[_name] = ufunc(_name)


def empty(shape, dtype=float, order="C"):
    return _new(_uninitialised(shape, dtype, order), _launch())


def _uninitialised(shape, dtype, order):
    """Nobody may rely on what was there."""
    array = np.empty(shape, dtype, order)
    before = _pool.take(_here.device, _here.streams[-1], array.nbytes) if stale and array.nbytes else None
    if before is not None:
        return np.ndarray(array.shape, array.dtype, before.reshape(-1).view(np.uint8), order=order)
    array.fill(np.nan if array.dtype.kind == "f" else 113)
    return array


def zeros(shape, dtype=float, order="C"):
    return _new(np.zeros(shape, dtype, order), _launch())


def ones(shape, dtype=float, order="C"):
    return _new(np.ones(shape, dtype, order), _launch())


def full(shape, fill_value, dtype=None, order="C"):
    return _new(np.full(shape, _host(fill_value), dtype, order), _launch(_arrays([fill_value])))


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    like = np.empty_like(prototype._array, dtype, order, shape=shape)
    axes = sorted(range(like.ndim), key=lambda axis: -like.strides[axis])  # in memory order it is one run
    run = _uninitialised([like.shape[axis] for axis in axes], like.dtype, "C")
    return _new(run.transpose(np.argsort(axes)), _launch([prototype]))


def zeros_like(a, dtype=None, order="K", subok=None, shape=None):
    return _compute(lambda x: np.zeros_like(x, dtype, order, shape=shape), a)


def ones_like(a, dtype=None, order="K", subok=None, shape=None):
    return _compute(lambda x: np.ones_like(x, dtype, order, shape=shape), a)


def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    return _compute(lambda x, v: np.full_like(x, v, dtype, order, shape=shape), a, fill_value)


def arange(start, stop=None, step=1, dtype=None):
    return _new(np.arange(start, stop, step, dtype) if stop is not None else np.arange(0, start, step, dtype), _launch())


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray):
        return _compute(lambda x: np.asarray(x, dtype, order=order), a)
    stream = _launch()
    history.append(("h2d", stream.name))
    there = np.array(a, dtype, order=order or "K")
    if isinstance(a, np.ndarray) and _is_page_locked(a) and not blocking:
        for copy in in_flight:
            copy.check()
        in_flight.append(_Copy(stream, a, a.copy(), to_host=False))
    return _new(there, stream)


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    return obj.copy(order) if isinstance(obj, ndarray) and copy else asarray(obj, dtype)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    stream = _launch([a])
    history.append(("d2h" if blocking else "d2h begun", stream.name))
    values = np.array(a._array, order=order)
    if out is None and blocking:
        out = values
    if out is None or (not blocking and not _is_page_locked(out)):
        raise RuntimeError("a copy that is not waited for needs page-locked memory to go to")
    if (out.shape, out.dtype, out.flags.c_contiguous) != (a.shape, a.dtype, True) and out is not values:
        raise ValueError(f"out must have the array's shape and dtype in C order, got {out.shape} {out.dtype}")
    if blocking:
        out[...] = values
        _waited_for({**stream.seen, stream: stream.time})
    else:
        in_flight.append(_Copy(stream, out, values, to_host=True))
    return out


def ascontiguousarray(a, dtype=None):
    return _compute(lambda x: np.ascontiguousarray(x, dtype), a)


def nonzero(a):
    return tuple(_compute(lambda x, axis=axis: np.nonzero(x)[axis], a) for axis in range(a.ndim))


def where(condition, x=None, y=None):
    return _compute(np.where if x is None else _in_c_order(np.where), condition, x, y)


def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    return _compute(lambda *xs: np.concatenate(xs, axis), *tup)


def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    return _compute(lambda *xs: np.stack(xs, axis), *tup)


def copyto(dst, src, casting="same_kind", where=None):
    if isinstance(src, ndarray) and src._buffer.device != dst._buffer.device:
        return _copy_across(dst, src)
    return _into(dst, lambda d, s, w: np.copyto(d, s, casting, where=True if w is None else w), src, where)


def _copy_across(dst, src):
    stream = _launch((), [dst])
    if not stream.knows(*src._buffer.written):
        raise RuntimeError(f"{stream.name} copies what {src._buffer.written[0].name} wrote, with no event in between")
    src._buffer.readers[stream] = stream.time
    history.append(("p2p", stream.name))
    dst._array[...] = src._array


def moveaxis(a, source, destination):
    return _compute(lambda x: np.moveaxis(x, source, destination), a)


def expand_dims(a, axis):
    return _compute(lambda x: np.expand_dims(x, axis), a)


def swapaxes(a, axis1, axis2):
    return a.swapaxes(axis1, axis2)


def broadcast_to(array, shape):
    return _compute(lambda x: np.broadcast_to(x, shape), array)


def take_along_axis(a, indices, axis):
    return _compute(lambda x, i: np.take_along_axis(x, i, axis), a, indices)


def put_along_axis(arr, indices, values, axis):
    _into(arr, lambda x, i, v: np.put_along_axis(x, i, v, axis), indices, values)


def cumsum(a, axis=None, dtype=None, out=None):
    return _compute(lambda x: np.cumsum(x, axis, dtype), a)


def flip(a, axis=None):
    return _compute(lambda x: np.flip(x, axis), a)


def roll(a, shift, axis=None):
    return _compute(lambda x: np.roll(x, shift, axis), a)


def tile(A, reps):
    return _compute(lambda x: np.tile(x, reps), A)


def argsort(a, axis=-1, kind=None):
    return _compute(lambda x: np.argsort(x, axis, kind="stable"), a)


def _as_strided(x, shape=None, strides=None):
    return _compute(lambda a: np.lib.stride_tricks.as_strided(a, shape, strides), x)


lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))


# -------------------------------------------------------------------------------------------------------------- kernels


class RawModule:
    """The kernels of a CUDA source, compiled for the CPU when one is asked for."""

    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc"):
        if not all(isinstance(o, str) and o.startswith("-D") and "=" in o for o in options) or not isinstance(options, tuple):
            raise TypeError(f"options must be a tuple of -Dname=value, got {options!r}")
        self._source, self._defines = code, dict(option.removeprefix("-D").split("=", 1) for option in options)

    def get_function(self, name):
        program = emulator.compile(self._source, self._defines, sanitize=os.environ.get("MINIDL_EMULATOR"), fused=fused)
        if name not in program.parameters:
            raise CUDARuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found ({name})")
        return _Function(program, name)


class _Function:
    """A kernel. An array that it may write (a pointer that is not const) counts as written, any other as read."""

    def __init__(self, program, name):
        self._program, self._name, self._device = program, name, _here.device

    def __call__(self, grid, block, args, *, shared_mem=0):
        if self._device != _here.device:
            raise CUDARuntimeError(f"CUDA_ERROR_INVALID_HANDLE: {self._name} was loaded on GPU {self._device}")
        for a in args:
            if not isinstance(a, (ndarray, int, float)):
                raise TypeError(f"Unsupported type {type(a)}")
        if shared_mem:
            raise NotImplementedError("the emulator has no dynamic shared memory")
        launches.append(self._name)
        self._program.launch(self._name, grid, block, [_host(a) for a in args], order, seed=len(launches))
        pointers = [(t, a) for t, a in zip(self._program.parameters[self._name], args, strict=True) if isinstance(a, ndarray)]
        const = [a for t, a in pointers if t.startswith("const ")]
        _launch(const, [a for t, a in pointers if not t.startswith("const ")])


def signatures():
    """The parameters of every function here that CuPy writes in Python, by name."""
    functions = [empty, zeros, ones, full, empty_like, zeros_like, ones_like, full_like, arange, asarray, array, asnumpy]
    functions += [ascontiguousarray, where, concatenate, stack, copyto, moveaxis, expand_dims, swapaxes, broadcast_to]
    functions += [take_along_axis, put_along_axis, cumsum]
    return {f.__name__: list(inspect.signature(f).parameters) for f in functions}
