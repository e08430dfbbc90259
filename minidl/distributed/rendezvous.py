"""Where ranks meet that no MPI started: rank 0 listens at MASTER_ADDR and MASTER_PORT, and the others call, as torchrun's
variables tell them. All that they say later goes through rank 0, so it is for short messages: the numbers go by NCCL.

A frame is `M` for a message or `F` for a fault that ends all, the length in 8 bytes, and what message.py writes. Before
anything else a rank says GREETING; whoever does not, a program that looks for open ports, is no rank and hears nothing.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from minidl.distributed.group import NOBODY, ROLL, DistributedError
from minidl.distributed.message import decode, encode

GREETING = b"minidl's rank 1\n"  # with a version
_MESSAGE, _FAULT = b"M", b"F"
_HEAD = 8  # bytes of a length
_LONGEST_HELLO = 4096  # bytes
_PATIENCE = 5.0  # seconds for a caller to say who it is
_AGAIN = 0.05  # seconds between two calls
_BESIDE = "TORCHELASTIC_USE_AGENT_STORE"  # torchrun itself listens at MASTER_PORT, so the ranks take the port after it


class Place(NamedTuple):
    """Which rank this process is, and where rank 0 listens."""

    host: str
    port: int
    rank: int
    size: int

    def __str__(self) -> str:
        return f"MASTER_ADDR {self.host}, port {self.port}"


def is_asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Has torchrun, or somebody like it, said which rank this is?"""
    return "RANK" in environment or "WORLD_SIZE" in environment


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """What the variables say. ValueError that names the one that is missing, no number or out of range."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE") if not environment.get(name)]
    if missing:
        raise ValueError(
            f"init_process_group: without MPI it needs the variable {' and '.join(missing)}, as torchrun sets them"
        )
    size = _number(environment, "WORLD_SIZE", 1, 1 << 20)
    port = _number(environment, "MASTER_PORT", 1, 65534) + (environment.get(_BESIDE) == "True")
    return Place(environment["MASTER_ADDR"], port, _number(environment, "RANK", 0, size - 1), size)


def _number(environment: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = environment[name]
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"init_process_group: {name} must be a whole number in [{least}, {most}], got {text!r}")
    return int(text)


class Rendezvous:
    """All ranks, connected with rank 0.

    names : each rank's host, as it was given

    DistributedError: somebody did not come in time, or does not fit. All that have come get the same one.
    """

    def __init__(self, place: Place, name: str, timeout: float) -> None:
        self.place, self.names = place, [name]
        self._sockets: dict[int, socket.socket] = {}  # rank 0 has all others', they have rank 0's
        until = time.monotonic() + timeout
        try:
            if place.rank == 0:
                self._wait_for_others(until, timeout)
            else:
                self._call(until, timeout)
        except BaseException:
            self.close()
            raise

    def exchange(self, what: str, payload: bytes, timeout: float) -> list[bytes]:
        """Every rank's payload, by rank. what: names the exchange, and must be the same on all ranks."""
        until = time.monotonic() + timeout
        if self.place.rank:
            self._send(0, _MESSAGE, encode((what, payload)), until)
            return decode(self._receive(0, until + ROLL, what, timeout))
        told = [payload]
        for rank in sorted(self._sockets):
            theirs, data = decode(self._receive(rank, until, what, timeout))
            if theirs != what:
                self._fail(f"{what}: every rank must do the same, {self._name(rank)} does {theirs}", [rank])
            told.append(data)
        for rank in self._sockets:
            self._send(rank, _MESSAGE, encode(told), time.monotonic() + timeout)
        return told

    def notice(self, what: str) -> None:
        """DistributedError if a rank has ended, or told of a fault."""
        for rank, connection in self._sockets.items():
            connection.setblocking(False)
            try:
                first = connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError:
                first = b""
            if first != _MESSAGE:  # b"" where it has hung up
                self._receive(rank, time.monotonic() + _PATIENCE, what, _PATIENCE)

    def close(self) -> None:
        """Hang up. The others, if they still wait for something, hear that this rank has ended."""
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()

    # -------------------------------------------------------------------------------------------------- at the start

    def _wait_for_others(self, until: float, timeout: float) -> None:
        size = self.place.size
        names = {0: self.names[0]}
        try:
            listener = _listen(self.place)
        except OSError as error:
            raise DistributedError(
                f"init_process_group: RANK 0 can't listen at {self.place}: {error}; is another rank 0 there?"
            ) from error
        with listener:
            while len(names) < size:
                listener.settimeout(max(until - time.monotonic(), 1e-3))
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    missing = [rank for rank in range(size) if rank not in names]
                    what = f"RANK {', '.join(map(str, missing))} of WORLD_SIZE {size} did not come to {self.place}"
                    self._fail(f"init_process_group: within {timeout:g} s {what}", missing)
                hello = _hello(connection)
                if hello is None:
                    connection.close()
                    continue
                rank, theirs, name = hello
                fault = ""
                if theirs != size:
                    fault = f"WORLD_SIZE must be the same on all ranks, RANK {rank} on {name} has {theirs} and RANK 0 {size}"
                elif rank in names:
                    fault = f"each rank must have a RANK of its own, {name} and {names[rank]} both have RANK {rank}"
                if fault:
                    self._sockets[-1] = connection  # is told too
                    self._fail(f"init_process_group: {fault}", [rank])
                names[rank], self._sockets[rank] = name, connection
        self.names = [names[rank] for rank in range(size)]
        for rank in self._sockets:
            self._send(rank, _MESSAGE, encode(self.names), until + ROLL)

    def _call(self, until: float, timeout: float) -> None:
        rank, size = self.place.rank, self.place.size
        while True:
            connection = None
            try:
                left = max(until - time.monotonic(), 1e-3)
                connection = socket.create_connection((self.place.host, self.place.port), left)
                _write(connection, GREETING + _frame(_MESSAGE, encode((rank, size, self.names[0]))), until)
                kind, data = _read_frame(connection, until + ROLL)
                break
            except OSError as error:
                if connection is not None:
                    connection.close()
                if time.monotonic() > until:
                    raise DistributedError(
                        f"init_process_group: RANK {rank} did not reach rank 0 at {self.place} within {timeout:g} s: {error}; "
                        f"is rank 0 there, or has it met its {size} ranks already, another RANK {rank} among them?",
                        [0],
                        NOBODY,
                    ) from error
                time.sleep(_AGAIN)
        self._sockets[0] = connection
        if kind == _FAULT:
            raise _fault(data)
        self.names = decode(data)

    # -------------------------------------------------------------------------------------------------------- frames

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self.names[rank]}"

    def _send(self, rank: int, kind: bytes, data: bytes, until: float) -> None:
        """To a rank; if it is gone, its own last words may say why, and are read soon."""
        with suppress(OSError):
            _write(self._sockets[rank], _frame(kind, data), until)

    def _receive(self, rank: int, until: float, what: str, timeout: float) -> bytes:
        try:
            kind, data = _read_frame(self._sockets[rank], until)
        except TimeoutError:
            self._fail(f"{what}: every rank must come within {timeout:g} s, {self._name(rank)} did not", [rank])
        except OSError:
            self._fail(f"{what}: {self._name(rank)} has ended, or died", [rank])
        if kind == _FAULT:
            error = _fault(data)
            self._fail(str(error), error.ranks, error.speaker)
        return data

    def _fail(self, text: str, ranks: Sequence[int], speaker: int | None = None) -> NoReturn:
        """Raise it, here and on all ranks that this one can tell."""
        speaker = self.place.rank if speaker is None else speaker
        for rank in self._sockets:
            self._send(rank, _FAULT, encode((text, list(ranks), speaker)), time.monotonic() + _PATIENCE)
        raise DistributedError(text, ranks, speaker)


def _listen(place: Place) -> socket.socket:
    """On this machine alone if MASTER_ADDR is that, else for all networks: its name may be another one here than for others."""
    if place.host == "localhost" or place.host.startswith("127."):
        return socket.create_server((place.host, place.port), backlog=place.size)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", place.port), family=socket.AF_INET6, backlog=place.size, dualstack_ipv6=True)
    return socket.create_server(("", place.port), backlog=place.size)


def _hello(connection: socket.socket) -> tuple[int, int, str] | None:
    """Rank, world size and host of who calls; None if it is no rank."""
    until = time.monotonic() + _PATIENCE
    try:
        if _read(connection, len(GREETING), until) != GREETING:
            return None
        rank, size, name = decode(_read_frame(connection, until, _LONGEST_HELLO)[1])
        return rank, size, name
    except (OSError, ValueError):
        return None


def _fault(data: bytes) -> DistributedError:
    text, ranks, speaker = decode(data)
    return DistributedError(text, ranks, speaker)


def _frame(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(_HEAD, "little") + data


def _write(connection: socket.socket, data: bytes, until: float) -> None:
    connection.settimeout(max(until - time.monotonic(), 1e-3))
    connection.sendall(data)


def _read_frame(connection: socket.socket, until: float, longest: int | None = None) -> tuple[bytes, bytes]:
    head = _read(connection, 1 + _HEAD, until)
    length = int.from_bytes(head[1:], "little")
    if longest is not None and length > longest:
        raise OSError(f"a message of {length} bytes")
    return head[:1], _read(connection, length, until)


def _read(connection: socket.socket, size: int, until: float) -> bytes:
    """So many bytes. TimeoutError; OSError if the other side has hung up."""
    data = bytearray(size)
    rest: Any = memoryview(data)
    while len(rest):
        connection.settimeout(max(until - time.monotonic(), 1e-3))
        come = connection.recv_into(rest)
        if come == 0:
            raise ConnectionResetError("the other side has hung up")
        rest = rest[come:]
    return bytes(data)
