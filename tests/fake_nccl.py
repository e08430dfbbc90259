"""NCCL for the stand-in for CuPy (fake_cupy.py): cupy.cuda.nccl, whose ranks are threads of one process.

An exchange is done when all ranks have asked for it; until then it is in flight: an event behind it is not done, and what is to
come is NaN. What NCCL would get wrong, or would hang on, raises: a communicator, a stream or memory of another GPU than the
current one, the null stream, memory that another stream wrote with no event in between, memory of another dtype or that ends
too early, ranks that ask for different things, two ranks with one GPU, and whatever comes after `abort`.

`calls` lists what was asked for: (name, rank, count, stream's name).
"""

import sys
import threading
import types

import fake_cublas
import numpy as np

PATIENCE = 20.0  # seconds, for a test that would hang
NAMES = ["INT8", "UINT8", "INT32", "UINT32", "INT64", "UINT64", "FLOAT16", "FLOAT32", "FLOAT64"]
DTYPES = {number: np.dtype(name.lower()) for number, name in enumerate(NAMES)}
OPS = {"SUM": np.add, "PROD": np.multiply, "MAX": np.maximum, "MIN": np.minimum}
UNIQUE_ID_BYTES = 128

calls: list[tuple] = []
_meetings: dict[bytes, "_Meeting"] = {}
_in_flight: list[tuple] = []  # (stream, time)


class NcclError(RuntimeError):
    pass


def get_unique_id():
    """128 bytes, with zeros among them."""
    return (b"\0id\0" + len(_meetings).to_bytes(4, "little") + threading.get_ident().to_bytes(8, "little")).ljust(
        UNIQUE_ID_BYTES, b"\0"
    )


def in_flight(seen):
    """Is there an exchange that somebody who knows of these times of streams would have to wait for?"""
    return any(time <= seen.get(stream, -1) for stream, time in list(_in_flight))


class _Meeting:
    """The ranks of one unique id, and what they ask for."""

    def __init__(self, size):
        self.size, self.gpus, self.error = size, {}, None
        self.barrier, self.lock = threading.Barrier(size, timeout=PATIENCE), threading.Lock()
        self.asked = [[] for _ in range(size)]
        self.done = 0

    def ask(self, rank, request):
        with self.lock:
            self.asked[rank].append(request)
            while all(len(asked) > self.done for asked in self.asked):
                self._perform([asked[self.done] for asked in self.asked])
                self.done += 1

    def _perform(self, requests):
        kinds = [request["kind"] for request in requests]
        if len(set(kinds)) > 1:
            self.error = f"ranks ask for different things: {sorted(set(kinds))}"
            raise NcclError(self.error)
        name, _, _, op_or_root = kinds[0]
        values = [request["values"] for request in requests]
        if name == "allReduce":
            result = values[0].copy()
            for other in values[1:]:
                OPS[list(OPS)[op_or_root]](result, other, out=result)
        else:
            result = values[op_or_root]
        for request in requests:
            request["into"][...] = result
            _in_flight.remove(request["moment"])


class NcclCommunicator:
    def __init__(self, ndev, commId, rank):
        if not isinstance(commId, bytes) or len(commId) != UNIQUE_ID_BYTES:
            raise TypeError(f"Argument 'commId' has incorrect type (expected bytes, got {type(commId).__name__})")
        self.rank, self.gpu, self._aborted = rank, _cupy._here.device, False
        self._meeting = meeting = _meetings.setdefault(commId, _Meeting(ndev))
        if meeting.size != ndev or not 0 <= rank < ndev or rank in meeting.gpus:
            raise NcclError(f"NCCL_ERROR_INVALID_ARGUMENT: rank {rank} of {ndev}")
        meeting.gpus[rank] = self.gpu
        meeting.barrier.wait()
        if len(set(meeting.gpus.values())) < ndev:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: two ranks have one GPU")

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):  # noqa: N802
        self._ask("allReduce", sendbuf, recvbuf, count, datatype, op, stream)

    def broadcast(self, sendbuff, recvbuff, count, datatype, root, stream):
        self._ask("broadcast", sendbuff, recvbuff, count, datatype, root, stream)

    def check_async_error(self):
        if self._meeting.error:
            raise NcclError(self._meeting.error)

    def abort(self):
        self._aborted = True
        for request in self._meeting.asked[self.rank][self._meeting.done :]:
            if request["moment"] in _in_flight:
                _in_flight.remove(request["moment"])

    def destroy(self):
        pass

    def _ask(self, name, sent, received, count, datatype, op_or_root, pointer):
        if self._aborted:
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: the communicator was aborted")
        if _cupy._here.device != self.gpu:
            raise NcclError(f"a communicator of GPU {self.gpu} is used while GPU {_cupy._here.device} is current")
        stream = _cupy._streams.get(pointer)
        if stream is None or stream.device_id != self.gpu:
            raise NcclError(f"a stream of another GPU than {self.gpu}, or the null stream")
        values, into = (self._memory(address, count, DTYPES[datatype]) for address in (sent, received))
        stream.time += 1
        values[1].use(stream, write=False)
        into[1].use(stream, write=True)
        calls.append((name, self.rank, count, stream.name))
        moment = stream, stream.time
        _in_flight.append(moment)
        request = {"kind": (name, count, datatype, op_or_root), "values": values[0].copy(), "into": into[0], "moment": moment}
        into[0].view(np.uint8)[...] = 0xFF
        self._meeting.ask(self.rank, request)

    def _memory(self, address, count, dtype):
        """The elements there, and the buffer that they lie in."""
        whole, buffer = (reference() for reference in fake_cublas._memory.get(address, (lambda: None, lambda: None)))
        if whole is None or buffer is None or buffer.device != self.gpu:
            raise NcclError(f"memory of another GPU than {self.gpu}, or that was freed")
        if whole.dtype != dtype and dtype != np.uint8:
            raise NcclError(f"{whole.dtype} is read as {dtype}")
        left = whole.ctypes.data + whole.nbytes - address
        if count * dtype.itemsize > left:
            raise NcclError(f"{count} of {dtype} are read, the memory ends after {left} bytes")
        flat = whole.ravel(order="K").view(np.uint8)[whole.nbytes - left :]
        return flat[: count * dtype.itemsize].view(dtype), buffer


def install(cupy, monkeypatch):
    """Give the module `cupy` (fake_cupy) its NCCL, until the test ends."""
    global _cupy
    _cupy = cupy
    for kept in (calls, _meetings, _in_flight):
        kept.clear()
    module = types.ModuleType("cupy.cuda.nccl")
    module.available, module.NcclError, module.NcclCommunicator = True, NcclError, NcclCommunicator
    module.get_unique_id = get_unique_id
    for number, name in enumerate(NAMES):
        setattr(module, f"NCCL_{name}", number)
    for number, name in enumerate(OPS):
        setattr(module, f"NCCL_{name}", number)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", module)
    monkeypatch.setattr(cupy._Event, "done", property(lambda event: not in_flight(event.seen)), raising=False)
    monkeypatch.setattr(cupy._Device, "pci_bus_id", property(lambda gpu: f"0000:{gpu.id:02X}:00.0"), raising=False)
    return module
