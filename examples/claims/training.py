"""One training run: its batches, its steps, its tests, its checkpoint, and at the end a record of its numbers.

The whole state is the weights, the velocities, the random generator's count and what is in `Training.state`, which JSON can
hold: the order of the images and the crops follow from the seed, the epoch and the batch. So a run that went on from its
checkpoint gives bit for bit what an unbroken one gives.
"""

import base64
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from networks import build
from pictures import Pictures
from settings import Run

import minidl
import minidl.nn.functional as F
from minidl import nn, parallel, random
from minidl.checkpoint import load_checkpoint, save_checkpoint
from minidl.data import CenterCrop, InputStep, PCAColorNoise, SampleKey, SubtractMean, TenCrop, color_statistics
from minidl.data.input_step import Views
from minidl.optim import SGD
from minidl.random import Generator
from minidl.study.health.autopsy import Autopsy

WINDOW = 98  # steps over which training loss and error are averaged: a quarter of an epoch of CIFAR-10
AFTER_DROP = 40  # losses that are kept one by one after the first drop of the rate
TRAIN_TESTED = 10_000  # training images that are tested at the end, without augmentation
SAVE_EVERY = 120.0  # seconds, at most; and at the end of each epoch
TEST_BATCH = 250
LARGEST_FILTERS = 2400  # weights: more are not put into the record

SUBSET, ORDER, AUGMENT, TESTED = 101, 102, 103, 104  # what random numbers are for, as an id of their generator


class Training:
    """A run from its beginning, or from its checkpoint, to its end.

    folder : where the checkpoint is, if there is one, and will be
    clock  : seconds; only decides when a checkpoint is written
    """

    def __init__(self, run: Run, pictures: Pictures, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        parallel.set_num_threads(1)
        self.run, self.settings, self.pictures, self.clock = run, run.settings, pictures, clock
        self.checkpoint = folder / "checkpoint"
        s, seed = self.settings, run.seed
        chosen = Generator(seed, SUBSET).permutation(len(pictures.train))[: s.images] if s.images else slice(None)
        self.images, self.labels = pictures.train[chosen], pictures.train_labels[chosen]
        self.tested = Generator(seed, TESTED).permutation(len(self.images))[:TRAIN_TESTED]  # files have them class by class
        self.steps_an_epoch = len(self.images) // s.batch_size
        if not self.steps_an_epoch:
            raise ValueError(f"{s.net}: {len(self.images)} training images are fewer than a batch of {s.batch_size}")
        self.last_step = s.epochs * self.steps_an_epoch
        size = self.images.shape[1]
        self.input = _Input(self.images, s.crop or size, s.color_noise)
        net = build(s, seed, size, pictures.classes)
        self.model = net.module
        self.optimizer = SGD(net.groups, lr=0.0, rule=s.rule)
        self.state: dict[str, Any] = {
            "step": 0,
            "window": [0.0, 0, 0],  # sum of losses, wrong, images
            "train": {"step": [], "loss": [], "error": []},
            "test": {"epoch": [], "loss": [], "error": []},
            "after_drop": [],
            "signals": {},
            "reached": None,
            "diverged": None,
            "seconds": 0.0,
        }
        if self.checkpoint.exists():
            self._restore()

    # ------------------------------------------------------------------------------------------------------- checkpoints

    def _restore(self) -> None:
        saved = load_checkpoint(self.checkpoint)
        assert saved.optimizer_state is not None
        self.model.load_state_dict(saved.model_state)
        self.optimizer.load_state_dict(saved.optimizer_state)
        random.default_generator.set_state(saved.state["random"])
        self.state = saved.state["training"]

    def save(self) -> None:
        save_checkpoint(
            self.checkpoint,
            {name: np.asarray(value) for name, value in self.model.state_dict().items()},
            self.optimizer.state_dict(),
            training=self.state,
            random=random.default_generator.state(),
            run=self.run.settings.declared() | {"seed": self.run.seed},
        )

    # ---------------------------------------------------------------------------------------------------------- training

    @property
    def ended(self) -> bool:
        s = self.state
        return s["step"] >= self.last_step or s["reached"] is not None or s["diverged"] is not None

    def go(self, stop: Callable[[], bool], progress: Callable[[int], None] = lambda images: None) -> dict[str, Any] | None:
        """Train to the end and return the record; or, when `stop` says so, save after a step and return None.

        progress : told of the images of each step
        """
        saved = self.clock()
        if self.state["step"] == 0:
            self._look_at_signals("begin")
        while not self.ended:
            begin = time.process_time()
            self._step()
            self.state["seconds"] += time.process_time() - begin
            progress(self.settings.batch_size)
            at_epoch = self.state["step"] % self.steps_an_epoch == 0
            if at_epoch:
                self._end_epoch()
            stopping = stop() and not self.ended
            if at_epoch or stopping or self.ended or self.clock() - saved > SAVE_EVERY:
                self.save()
                saved = self.clock()
            if stopping:
                return None
        return self.record()

    def _step(self) -> None:
        """One batch forward, backward, update; the running sums."""
        s, state = self.settings, self.state
        epoch, batch = divmod(state["step"], self.steps_an_epoch)
        if batch == 0 or not hasattr(self, "_order"):
            self._order = Generator(self.run.seed, ORDER, epoch).permutation(len(self.images))
        chosen = self._order[batch * s.batch_size : (batch + 1) * s.batch_size]
        views = self.input.random_views(len(chosen), Generator(self.run.seed, AUGMENT, epoch, batch), s.random_crops, s.flips)
        labels = self.labels[chosen]
        self.model.train()
        self.optimizer.zero_grad()
        with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges says so in its record
            scores = self.model(minidl.Tensor(self.input(self.images[chosen], views)))
            loss = F.cross_entropy(scores, labels)
        value = loss.item()
        state["step"] += 1
        if not math.isfinite(value):
            state["diverged"] = state["step"]
            return
        loss.backward()
        self.optimizer.step()
        self._count(value, int((scores.detach().numpy().argmax(1) != labels).sum()), len(labels), epoch, batch)

    def _count(self, loss: float, wrong: int, images: int, epoch: int, batch: int) -> None:
        state, window = self.state, self.state["window"]
        if self.settings.drops and epoch == self.settings.drops[0] and batch < AFTER_DROP:
            state["after_drop"].append(round(loss, 5))
        for i, amount in enumerate((loss * images, wrong, images)):
            window[i] += amount
        if state["step"] % WINDOW == 0 or state["step"] == self.last_step:
            total, errors, seen = window
            state["train"]["step"].append(state["step"])
            state["train"]["loss"].append(round(total / seen, 5))
            state["train"]["error"].append(round(errors / seen, 5))
            state["window"] = [0.0, 0, 0]
            if self.settings.until and errors / seen <= self.settings.until:
                state["reached"] = state["step"]

    def _end_epoch(self) -> None:
        """Drop the rate where that is due; test."""
        epoch = self.state["step"] // self.steps_an_epoch
        if epoch in self.settings.drops:
            for group in self.optimizer.param_groups:
                group["lr"] *= 0.1
        if len(self.pictures.test) and epoch % self.settings.test_every == 0 and not self.ended:
            self._test()
        if epoch == 1:
            self._look_at_signals("epoch 1")

    # ----------------------------------------------------------------------------------------------------------- testing

    def _test(self) -> np.ndarray:
        """Test now and note it; which of the test images are wrong, (N,) bool."""
        loss, wrong = self._wrong(self.pictures.test, self.pictures.test_labels)
        test = self.state["test"]
        test["epoch"].append(round(self.state["step"] / self.steps_an_epoch, 2))
        test["loss"].append(round(loss, 5))
        test["error"].append(round(float(wrong.mean()), 5))
        return wrong

    def _wrong(self, images: np.ndarray, labels: np.ndarray, views: int = 1) -> tuple[float, np.ndarray]:
        """Mean loss, and which images are wrong, from the centre or the mean probabilities of ten views."""
        losses, wrong = 0.0, []
        self.model.eval()
        with minidl.no_grad():
            for first in range(0, len(images), TEST_BATCH):
                part, right = images[first : first + TEST_BATCH], labels[first : first + TEST_BATCH]
                x = self.input.test_views(part, views)
                p = F.softmax(self.model(minidl.Tensor(x)), 1).numpy().reshape(len(part), views, -1).mean(1)
                losses -= float(np.log(np.maximum(p[np.arange(len(part)), right], 1e-30)).sum())
                wrong.append(p.argmax(1) != right)
        return losses / len(images), np.concatenate(wrong)

    def _look_at_signals(self, when: str) -> None:
        """How large activations and gradients are, layer by layer, on a batch of images; nothing else changes."""
        n = self.settings.batch_size
        generator, autopsy = random.default_generator.state(), Autopsy(self.model, 1)
        self.model.train()
        self.optimizer.zero_grad()
        with autopsy:
            scores = self.model(minidl.Tensor(self.input.test_views(self.images[self.tested[:n]], 1)))
            loss = F.cross_entropy(scores, self.labels[self.tested[:n]])
            loss.backward()
        autopsy.after_step(loss.item())
        random.default_generator.set_state(generator)
        names = {id(p): name for name, p in self.model.named_parameters()}
        self.state["signals"][when] = [
            [
                next((names[id(p)].rpartition(".")[0] for p in row.weights if id(p) in names), row.title),
                row.op,
                *map(_digits, (row.mean_abs_activation, row.mean_abs_gradient, row.mean_abs_weight_gradient)),
                *map(_digits, (row.saturated, row.dead)),
            ]
            for row in autopsy.rows
        ]

    # -------------------------------------------------------------------------------------------------------- the record

    def record(self) -> dict[str, Any]:
        """What is kept of a run that ended; JSON can hold it. Errors are fractions, losses in nats, seconds of one core."""
        state = self.state
        record: dict[str, Any] = {
            "run": self.run.identity,
            "settings": self.settings.declared(),
            "seed": self.run.seed,
            "data": {
                "name": self.pictures.name,
                "fingerprint": self.pictures.fingerprint,
                "test_images": len(self.pictures.test),
            },
            "versions": versions(),
            "machine": machine(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "steps": state["step"],
            "reached": state["reached"],
            "diverged": state["diverged"],
            "seconds": round(state["seconds"], 1),
            "train": state["train"],
            "after_drop": state["after_drop"],
        }
        if state["diverged"] is None:
            self._add_final(record)
            record |= {"filters": colors(self.model)}
        return record

    def _add_final(self, record: dict[str, Any]) -> None:
        """The tests of the end, and which test images are wrong, as bits."""
        state = self.state
        self._look_at_signals("end")
        record["signals"] = state["signals"]
        loss, wrong = self._wrong(self.images[self.tested], self.labels[self.tested])
        record["final"] = {"train_loss": round(loss, 5), "train_error": round(float(wrong.mean()), 5)}
        if not len(self.pictures.test):
            return
        wrong = self._test()
        record["final"] |= {"test_loss": state["test"]["loss"][-1], "test_error": state["test"]["error"][-1]}
        record |= {"test": state["test"], "wrong": packed(wrong)}
        if self.settings.ten_views:
            loss, wrong = self._wrong(self.pictures.test, self.pictures.test_labels, views=10)
            record["final"] |= {"ten_views_loss": round(loss, 5), "ten_views_error": round(float(wrong.mean()), 5)}
            record["wrong_ten_views"] = packed(wrong)


class _Input:
    """From bytes to what the net sees."""

    def __init__(self, images: np.ndarray, crop: int, color_noise: float) -> None:
        self.crop, self.size = crop, images.shape[1]
        self.axes = np.zeros((3, 3), np.float32)
        if color_noise:
            statistics = color_statistics(images)
            mean = statistics.mean
            self.axes = PCAColorNoise(*statistics[1:], color_noise).axes
        else:
            mean = (images.sum(0, dtype=np.int64) / len(images)).astype(np.float32)
        self.one, self.ten = (InputStep(kind(crop), mean=SubtractMean(mean)) for kind in (CenterCrop, TenCrop))

    def __call__(self, images: np.ndarray, views: Views) -> np.ndarray:
        return self.one(images, views)

    def random_views(self, n: int, generator: Generator, crops: bool, flips: bool) -> Views:
        """What is drawn for a batch. Everything is drawn, also what is not used: so runs that differ in it share the rest."""
        places = generator.integers(0, self.size - self.crop + 1, (2, n))
        mirrored, normal = generator.bernoulli(0.5, n), generator.normal((n, 3))
        tops, lefts = places if crops else np.full((2, n), (self.size - self.crop) // 2)
        return Views(tops, lefts, mirrored & flips, normal @ self.axes.T)

    def test_views(self, images: np.ndarray, views: int) -> np.ndarray:
        """(N * views, 3, crop, crop): the centre, or ten views of each image side by side."""
        step = self.one if views == 1 else self.ten
        drawn = InputStep.join([step.draw(images[0], SampleKey(0, 0, 0, 0))] * len(images))
        x = step(images, drawn)
        return x if views == 1 else x.transpose(0, 1, 3, 4, 2).reshape(-1, self.crop, self.crop, 3).transpose(0, 3, 1, 2)


# --------------------------------------------------------------------------------------------------- what a record is made of


def packed(wrong: np.ndarray) -> str:
    """(N,) bool as text: 8 in a byte, the first in the highest bit, in base64."""
    return base64.b64encode(np.packbits(wrong).tobytes()).decode()


def colors(model: nn.Module) -> dict[str, Any]:
    """Of each layer that reads the image: its filters' shares of colour, and of a few weights the filters themselves.

    A filter's share of colour is the part of its squared weights that is off the grey axis: with g the mean over R, G and B,
    1 - 3 sum g^2 / sum w^2. 0: it sees brightness alone.
    """
    found: dict[str, Any] = {}
    layers = [(n, p.detach().numpy()) for n, p in model.named_parameters() if p.ndim == 4 and p.shape[1] == 3]
    for name, w in layers:
        grey = 3 * (w.mean(1) ** 2).sum((1, 2))
        found[name] = {"color": [round(float(c), 4) for c in 1 - grey / np.maximum((w**2).sum((1, 2, 3)), 1e-30)]}
        if sum(w.size for _, w in layers) <= LARGEST_FILTERS and len(layers) > 1:
            scale = float(np.abs(w).max()) or 1.0
            whole = np.round(w / scale * 127).astype(np.int8)
            found[name] |= {"scale": _digits(scale), "shape": list(w.shape), "int8": base64.b64encode(whole.tobytes()).decode()}
    return found


def _digits(x: float | None) -> float | None:
    """Four digits that count."""
    return None if x is None else float(f"{x:.4g}")


def versions() -> dict[str, str]:
    import PIL
    from threadpoolctl import threadpool_info

    blas = next((f"{i['internal_api']} {i['version']}" for i in threadpool_info() if i["user_api"] == "blas"), "unknown")
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "minidl": minidl.__version__,
        "blas": blas,
    }


def machine() -> dict[str, Any]:
    import os

    return {"processor": _processor(), "cores": os.cpu_count(), "threads": 1}


def _processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
