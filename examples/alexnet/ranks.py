"""One run by several processes: what they tell one another, and how they end together.

Every rank runs train.py, on its share of each batch. Rank 0 alone speaks and writes. Before each step all tell what they have:
how many images, which could not be read, whether somebody pressed Ctrl-C; so all stop at the same step, for the same reason.
What only one rank knows of, a fault of the program's or a full disk, ends all at once.
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import supervisor
from guards import RankError

import minidl
from minidl import distributed as dist
from minidl import nn, random

T = TypeVar("T")

_TO_BEGIN = 600.0  # seconds for rank 0 to measure the images, at least
_PATIENCE = 5.0  # seconds for the rank that speaks to do so, before a silent one ends


class Alone:
    """One process: everything it would tell the others it knows."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Is this rank 0, which speaks and writes?"""
        return self.rank == 0

    def share(self, own: T) -> list[T]:
        """What each rank told, by rank."""
        return [own]

    def from_first(self, action: Callable[[], T]) -> T:
        """What the action returns on rank 0, where alone it is done."""
        return action()

    def jointly(self, action: Callable[[], T]) -> T:
        """Do it on each rank. If it failed on one, all get that error: RankError, which names the rank."""
        return action()

    def agree(self, **facts: Any) -> None:
        """ValueError, on all ranks, unless these are the same on all."""

    def parallel(self, model: nn.Module) -> nn.Module:
        """The network to train: its gradients are the mean over the ranks."""
        return model

    def alone(self, network: nn.Module) -> AbstractContextManager[None]:
        """Inside the block a backward of that network tells the others nothing."""
        return nullcontext()

    def own_devices(self, names: str) -> str:
        """Of "cuda:0,cuda:1", what rank 0 of each machine computes on, this rank's: the next two for each rank before it."""
        return names

    def about(self) -> str:
        """For the head of the run."""
        return ""

    def command(self, program: str) -> str:
        """How to start this program on as many ranks."""
        return f"python {program}"

    def begin_steps(self) -> None:
        """From now on the ranks are as fast as each other."""

    def leave(self, code: int) -> int:
        """All ranks are done, with rank 0's exit code."""
        return code


class Ranks(Alone):
    """The ranks that mpiexec started.

    timeout : seconds that a rank waits for the others while they train
    """

    def __init__(self, group: dist.ProcessGroup, timeout: float) -> None:
        self.rank, self.size = group.rank, group.size
        self.group, self.timeout, self.agreed = group, timeout, False

    def share(self, own: T) -> list[T]:
        return dist.gather(own, self.group)

    def from_first(self, action: Callable[[], T]) -> T:
        return self.jointly(lambda: action() if self.first else None, of_first=True)  # type: ignore[return-value]

    def jointly(self, action: Callable[[], T], of_first: bool = False) -> T:
        result, error = None, None
        try:
            result = action()
        except Exception as caught:
            error = caught
        told = dist.gather((describe(error), result if of_first else None), self.group)
        failures = [failure for failure, _ in told]
        failed = [rank for rank, failure in enumerate(failures) if failure is not None]
        if failed:
            self.fail(failed[0], failures[failed[0]], everywhere=len({str(failure) for failure in failures}) == 1, error=error)
        return told[0][1] if of_first else result  # type: ignore[return-value]

    def fail(self, rank: int, failure: Any, everywhere: bool = False, error: Exception | None = None) -> NoReturn:
        """All ranks know of this failure of one, or of all: only rank 0 says it."""
        self.silence_others()
        text, mendable = failure
        if everywhere and error is not None:
            raise error
        raise RankError(f"{self.group.name(rank)}: {text}", mendable) from error

    def silence_others(self) -> None:
        """From now on rank 0 alone says what goes wrong: all know it, and all end."""
        self.agreed = True
        if not self.first:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115  to the process's end

    def agree(self, **facts: Any) -> None:
        told = self.share(facts)
        for rank, theirs in enumerate(told):
            for name in facts:
                if theirs[name] != told[0][name]:
                    self.silence_others()
                    raise ValueError(
                        f"all ranks must have the same {name.replace('_', ' ')}, "
                        f"{self.group.name(rank)} has another than rank 0{_difference(told[0][name], theirs[name])}"
                    )

    def parallel(self, model: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model, process_group=self.group)

    def alone(self, network: nn.Module) -> AbstractContextManager[None]:
        assert isinstance(network, nn.parallel.DistributedDataParallel)
        return network.no_sync()

    def own_devices(self, names: str) -> str:
        kinds = [name.strip().partition(":") for name in names.split(",")]
        gpus = [int(index or 0) for kind, _, index in kinds if kind == "cuda"]
        shift = self.group.local_rank * (max(gpus) - min(gpus) + 1) if gpus else 0
        return ",".join(
            f"cuda:{int(index or 0) + shift}" if kind == "cuda" else kind + colon + index for kind, colon, index in kinds
        )

    def about(self) -> str:
        hosts = dict.fromkeys(self.group.hosts)
        where = ", ".join(f"{self.group.hosts.count(host)} on {host}" for host in hosts)
        return f"{self.size} ranks, {where}; {minidl.get_num_threads()} threads each\n"

    def command(self, program: str) -> str:
        return f"mpiexec -n {self.size} python {program}"

    def begin_steps(self) -> None:
        self.group.timeout = self.timeout

    def leave(self, code: int) -> int:
        code = self.share(code)[0]
        dist.destroy_process_group()
        return code

    def end_all(self, code: int) -> NoReturn:
        """This rank has said why: all end at once."""
        sys.stdout.flush()
        sys.stderr.flush()
        dist.abort(code)
        os._exit(code)


def _difference(first: Any, other: Any) -> str:
    """What differs between two dicts of arguments; nothing of other things."""
    if not isinstance(first, dict):
        return ""
    names = sorted(name for name in {*first, *other} if first.get(name) != other.get(name))
    return ": " + ", ".join(f"{name} {other.get(name)!r} and not {first.get(name)!r}" for name in names)


def describe(error: Exception | None) -> tuple[str, bool] | None:
    """What the others are told of an error: its text, and whether the user can mend it."""
    from run import is_mendable

    if error is None:
        return None
    mendable = is_mendable(error) or isinstance(error, minidl.DeviceError)
    text = "; ".join([str(error), *getattr(error, "__notes__", ())])
    return (text if mendable else f"{type(error).__name__}: {text}"), mendable


@contextmanager
def joined(timeout: float, on_gpus: bool) -> Iterator[Alone]:
    """Inside the block the ranks that mpiexec started work together. An exception that one rank alone has ends all.

    on_gpus : what they send one another goes by NCCL, where all have it
    """
    if supervisor.launched_ranks() == 1:
        yield Alone()
        return
    dist.init_process_group(None if on_gpus else "mpi", max(timeout, _TO_BEGIN))
    ranks = Ranks(dist.get_group(), timeout)
    if not ranks.first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  to the process's end
    try:
        yield ranks
    except dist.DistributedError as error:
        if error.speaker != ranks.rank:
            time.sleep(_PATIENCE)  # who speaks ends all
        print(f"train.py: stopped: {error}; {advice()}", file=sys.stderr)
        ranks.end_all(1)
    except SystemExit as end:
        if not ranks.agreed:  # this one has said why
            print(f"train.py: stopped: {ranks.group.name(ranks.rank)} ended the run; {advice()}", file=sys.stderr)
            ranks.end_all(end.code if isinstance(end.code, int) else 1)
        dist.destroy_process_group()
        raise
    except BaseException:
        import traceback

        print(f"train.py: stopped: {ranks.group.name(ranks.rank)} failed; {advice()}", file=sys.stderr)
        traceback.print_exc()
        ranks.end_all(1)


_said = "nothing is saved yet"


def advice() -> str:
    """What is saved, and how to go on."""
    return _said


def advise(text: str) -> None:
    """What is to be said if a rank dies from now on."""
    global _said
    _said = text
    supervisor.advise(text)


def places(rank: int, size: int, lost: Sequence[int], images: int) -> Sequence[int] | None:
    """Where a rank's images stand in the whole batch when the lost ones are left out; None if none was lost."""
    if not lost:
        return None
    gone = set(lost)
    own = [place for place in range(rank, rank + size * (images + len(gone)), size) if place not in gone][:images]
    return [place - sum(other < place for other in gone) for place in own]


def placed(where: Sequence[int] | None) -> AbstractContextManager[None]:
    """Inside the block a forward's images stand there."""
    return nullcontext() if where is None else random.placed(where)


def code_digest() -> str:
    """The SHA-256 of minidl's files and of this example's."""
    digest = hashlib.sha256()
    for folder in (Path(minidl.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
