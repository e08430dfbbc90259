"""The ledger of a step: what each op took, kept and gave back, and who held the memory when it was fullest.

    with Ledger() as ledger:
        F.cross_entropy(model(images), labels).backward()
    print(ledger)              as wide as the terminal
    print(ledger.text(None))   all columns, however wide

Memory here is what ops hand over: the batch, outputs, gradients, what is saved for backward, and the parameters that were used.
An op's workspace is not in it (`summary` measures that), nor are an optimizer's buffers.
"""

from dataclasses import dataclass

from minidl.study.step.table import aligned, fitted, number, shape, terminal_width, tight, wrapped
from minidl.study.step.trace import Piece, Trace

_BAR = 40  # characters at most
_OWNERS = 10  # lines
_EXPENDABLE = ("kept until the end of", "device", "saved B", "output")  # the first to go where the terminal is too narrow


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

    def operations(self, width: int | None = None) -> str:
        """A line for each op: times in milliseconds, bytes, and until when what it saved was kept.

        width : in characters; columns that do not fit are left out, and a note says which. None: all of them
        """
        rows = [["op", "layer", "device", "output", "fwd ms", "bwd ms", "saved B", "kept until the end of"]]
        for r in self.records:
            until = "" if r.freed_event is None else self.events[r.freed_event]
            backward = "" if r.backward_event is None else f"{1e3 * r.backward_seconds:.3f}"
            times = [f"{1e3 * r.forward_seconds:.3f}", backward]
            rows.append([r.op, r.layer or "", r.device, shape(r.output), *times, number(r.saved_bytes), until])
        found = fitted(rows, (4, 5, 6), _EXPENDABLE, width, names=["layer"], compact={"output": tight})
        return "\n".join([*found.lines, *found.note])

    def memory(self, width: int | None = None) -> str:
        """A line for each event: bytes alive at its end, as a number and as a bar; then what was alive at the peak.

        width : in characters; the bars get what room there is. None: bars of full length
        """
        if not self.events:
            return "no op ran"
        peak = self.peak
        rows = [["event", "bytes alive"], *([event, f"{nbytes:,}"] for event, nbytes in self.timeline)]
        lines = aligned(rows, right=(1,))
        bar = _BAR if width is None else max(min(_BAR, width - len(lines[0]) - 2), 0)
        bars = ["", *("#" * round(bar * nbytes / max(peak.nbytes, 1)) for _, nbytes in self.timeline)]
        lines = [f"{line}  {bar}".rstrip() for line, bar in zip(lines, bars, strict=True)]
        owners = [["", f"{p.nbytes:,}", p.owner] for p in peak.pieces[:_OWNERS]]
        rest = sum(p.nbytes for p in peak.pieces[_OWNERS:])
        if rest:
            owners.append(["", f"{rest:,}", f"{len(peak.pieces) - _OWNERS} more"])
        head = f"at the peak, {peak.event}, {peak.nbytes:,} bytes were alive:"
        return "\n".join([*lines, "", wrapped(head, width), *(wrapped(line, width) for line in aligned(owners, right=(1,)))])

    def text(self, width: int | None = None) -> str:
        """Operations and memory, in lines of at most `width` characters; None: all there is."""
        return f"{self.operations(width)}\n\n{self.memory(width)}"

    def __str__(self) -> str:
        return self.text(terminal_width())
