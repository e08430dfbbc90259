"""Training steps, one after the other, and what each says: its loss, how many images it got right, whether all was finite.

On GPUs a step is asked for and not waited for. What it says goes to the host in one copy, which is read when the next step has
been asked for: so the GPU always has something to do. Numbers that are not finite are noted on the GPUs themselves, and an
update asks that note (minidl/optim/finite.py): from the first such number on no weight is changed, though the host hears of it
later.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ranks import Alone, placed

from minidl import Device, Tensor, random
from minidl.device import Copying, transfer
from minidl.kernels import fastest
from minidl.optim import SGD
from minidl.optim.finite import note_not_finite


class Outcome(NamedTuple):
    """What a step said.

    fault     : "" or what was not finite; then the weights are those before the step
    generator : the random state before the step, with which it can be computed again
    of_all    : how many images all ranks had
    whose     : the rank whose loss was not finite, where several know
    """

    number: int
    loss: float
    right: int
    images: Any
    labels: np.ndarray
    fault: str
    generator: dict[str, int]
    of_all: int
    whose: int | None = None


class _Asked(NamedTuple):
    """A step that was asked for. `said`: its loss, the note of numbers that are not finite, and its scores."""

    number: int
    said: Copying
    images: Any
    labels: np.ndarray
    generator: dict[str, int]

    def outcome(self) -> Outcome:
        said = self.said.wait()
        loss, scores = float(said[0]), said[2:].reshape(len(self.labels), -1)
        right = int((scores.argmax(axis=1) == self.labels).sum())
        fault = f"the loss is {loss}" if not math.isfinite(loss) else "a gradient is not finite" if said[1] else ""
        return Outcome(self.number, loss, right, self.images, self.labels, fault, self.generator, len(self.labels))


class Steps:
    """Forward, backward and update of a model.

    model     : has `loss(scores, labels)`, a tensor.
    optimizer : its `found_inf` is set.
    late      : how many steps may be asked for before the first of them is read; where there is no GPU, none is late.
    """

    def __init__(self, model: Any, optimizer: SGD, late: int = 1) -> None:
        self.model, self.optimizer = model, optimizer
        self.devices = list(dict.fromkeys(p.device for p in model.parameters()))
        self.late = late if any(device.kind == "cuda" for device in self.devices) else 0
        self.found = {device: Tensor(np.zeros(1, np.int32), device=device) for device in self.devices}
        optimizer.found_inf = self.found
        self._asked: list[_Asked] = []

    def take(self, number: int, images: Any, labels: np.ndarray) -> Iterator[Outcome]:
        """Step `number` on a batch; the outcomes of those that are not late any more."""
        generator = random.default_generator.state()
        self.optimizer.zero_grad()
        scores = self.model(images)
        loss = self.model.loss(scores, labels)
        if loss.device.kind == "cuda" or math.isfinite(loss.item()):  # on the host it costs nothing to look
            loss.backward()
            self._note_not_finite(loss)
            self.optimizer.step()
        self._asked.append(_Asked(number, self._said(loss, scores), images, labels, generator))
        while len(self._asked) > self.late:
            yield self._asked.pop(0).outcome()

    def loss(self, images: Any, labels: np.ndarray) -> Tensor:
        """Of a batch, as the steps have it."""
        return self.model.loss(self.model(images), labels)

    def rest(self) -> Iterator[Outcome]:
        """The outcomes of all steps that were asked for."""
        while self._asked:
            yield self._asked.pop(0).outcome()

    def _note_not_finite(self, loss: Tensor) -> None:
        """Of the loss and all gradients, on every device."""
        for x in (loss, *(p.grad for p in self.model.parameters())):
            if x is not None:
                with x.device.active():
                    fastest(note_not_finite, x.data)(x.data, self.found[x.device].data)
        first, *others = self.devices
        for other in others:
            self._note_also(first, other)
        for other in others:
            self._note_also(other, first)

    def _note_also(self, here: Device, there: Device) -> None:
        copied = transfer(self.found[there].data, there, here)
        with here.active():
            note = self.found[here].data
            note |= copied

    def _said(self, loss: Tensor, scores: Tensor) -> Copying:
        device = loss.device
        with device.active():
            said = device.xp.empty(2 + scores.numel(), scores.dtype)
            said[0], said[1] = loss.data, self.found[device].data[0]
            said[2:] = scores.data.reshape(-1)
            return device.begin_to_host(said)


class StepsTogether(Steps):
    """The same on several ranks, each with its part of the batch. None is late: all hear of a fault before anything is updated.

    network : the model as it is trained, whose gradients are the mean over the ranks
    ranks   : see ranks.py
    batch   : () -> how many images each rank has of the batch that is at work, and where this rank's stand in it
    """

    def __init__(
        self, model: Any, network: Any, optimizer: SGD, ranks: Alone, batch: Callable[[], tuple[Sequence[int], Any]]
    ) -> None:
        super().__init__(model, optimizer, late=0)
        self.network, self.ranks, self.batch = network, ranks, batch

    def take(self, number: int, images: Any, labels: np.ndarray) -> Iterator[Outcome]:
        """Step `number` on this rank's part of a batch; its outcome is that of the whole."""
        generator = random.default_generator.state()
        self.optimizer.zero_grad()
        loss, right = self._forward(images, labels)
        told = self.ranks.share((loss.item(), right))
        value, whose, fault = sum(part for part, _ in told) / len(told), None, ""
        if math.isfinite(value):
            loss.backward()
            self._note_not_finite(loss)
            self.optimizer.step()
            if any(found.detach().numpy()[0] for found in self.found.values()):
                fault = "a gradient is not finite"
        else:
            whose = next(rank for rank, (part, _) in enumerate(told) if not math.isfinite(part))
            fault = f"the loss is {told[whose][0]}"
        of_all = sum(self.batch()[0])
        yield Outcome(number, value, sum(right for _, right in told), images, labels, fault, generator, of_all, whose)

    def loss(self, images: Any, labels: np.ndarray) -> Tensor:
        return self._forward(images, labels)[0]

    def _forward(self, images: Any, labels: np.ndarray) -> tuple[Tensor, int]:
        """This rank's part: the mean of all ranks' is the mean over the whole batch. And how many images are right."""
        shares, where = self.batch()
        with placed(where):
            scores = self.network(images)
        if len(labels) == 0:
            return scores.sum(), 0
        loss = self.model.loss(scores, labels)
        part = len(labels) * self.ranks.size / sum(shares)  # 1 where all have as many images
        right = int((scores.detach().numpy().argmax(axis=1) == labels).sum())
        return loss if part == 1 else loss * part, right
