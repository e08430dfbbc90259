"""The ledger of a step: what each op took, kept and gave back, and who held the memory when it was fullest.

    with Ledger() as ledger:
        F.cross_entropy(model(images), labels).backward()
    print(ledger)

Memory here is what ops hand over: the batch, outputs, gradients, what is saved for backward, and the parameters that were used.
An op's workspace is not in it (`summary` measures that), nor are an optimizer's buffers.
"""

from dataclasses import dataclass

from minidl.study.step.table import aligned, number, shape
from minidl.study.step.trace import Piece, Trace

_BAR = 40  # characters
_OWNERS = 10  # lines


@dataclass(frozen=True)
class Peak:
    """The event at whose end most memory was alive, the bytes, and the pieces, largest first."""

    event: str
    nbytes: int
    pieces: list[Piece]


class Ledger(Trace):
    """A Trace that adds up: `timeline`, `peak`, and a table as its `str`."""

    @property
    def timeline(self) -> list[tuple[str, int]]:
        """(event, bytes alive) for every event, in order."""
        changes = [0] * (len(self.events) + 1)
        for piece in self.pieces:
            changes[piece.born] += piece.nbytes
            if piece.gone is not None:
                changes[piece.gone + 1] -= piece.nbytes
        alive, rows = 0, []
        for event, change in zip(self.events, changes, strict=False):
            alive += change
            rows.append((event, alive))
        return rows

    @property
    def peak(self) -> Peak:
        """ValueError if no op ran."""
        if not self.events:
            raise ValueError("Ledger: at least 1 op must have run, got 0")
        sizes = [nbytes for _, nbytes in self.timeline]
        at = sizes.index(max(sizes))
        pieces = sorted((p for p in self.pieces if p.alive(at)), key=lambda p: -p.nbytes)
        return Peak(self.events[at], sizes[at], pieces)

    def operations(self) -> str:
        """A line for each op: times in milliseconds, bytes, and until when what it saved was kept."""
        rows = [["op", "layer", "device", "output", "forward ms", "backward ms", "saved B", "kept until the end of"]]
        for r in self.records:
            until = "" if r.freed_event is None else self.events[r.freed_event]
            backward = "" if r.backward_event is None else f"{1e3 * r.backward_seconds:.3f}"
            times = [f"{1e3 * r.forward_seconds:.3f}", backward]
            rows.append([r.op, r.layer or "", r.device, shape(r.output), *times, number(r.saved_bytes), until])
        return "\n".join(aligned(rows, right=(4, 5, 6)))

    def memory(self) -> str:
        """A line for each event: bytes alive at its end, as a number and as a bar; then what was alive at the peak."""
        if not self.events:
            return "no op ran"
        peak = self.peak
        rows = [["event", "bytes alive", ""]]
        rows += [[e, f"{n:,}", "#" * round(_BAR * n / max(peak.nbytes, 1))] for e, n in self.timeline]
        owners = [["", f"{p.nbytes:,}", p.owner] for p in peak.pieces[:_OWNERS]]
        rest = sum(p.nbytes for p in peak.pieces[_OWNERS:])
        if rest:
            owners.append(["", f"{rest:,}", f"{len(peak.pieces) - _OWNERS} more"])
        head = f"at the peak, {peak.event}, {peak.nbytes:,} bytes were alive:"
        return "\n".join([*aligned(rows, right=(1,)), "", head, *aligned(owners, right=(1,))])

    def __str__(self) -> str:
        return f"{self.operations()}\n\n{self.memory()}"
