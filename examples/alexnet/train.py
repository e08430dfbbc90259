"""Train AlexNet as it was trained in 2012, split over two devices.

python examples/alexnet/train.py            the embedded patterns, on two
                                            logical CPU devices
python examples/alexnet/train.py DIR        DIR/train/<class>/*,
                                            DIR/val/<class>/* (or test)
python examples/alexnet/train.py DIR --hold-out 0.1
                                            DIR/<class>/*, a tenth held out
python examples/alexnet/train.py DIR --device cuda:0,cuda:1
                                            on GPUs
mpiexec -n 4 python examples/alexnet/train.py DIR
                                            four processes, each with a
                                            quarter of every batch
python examples/alexnet/train.py --resume runs/alexnet
                                            continue where a run stopped
python examples/alexnet/train.py DIR --init W.safetensors \\
    --freeze conv1,conv2 --lr-scale fc8=10  from converted weights:
                                            docs/convert.md
python examples/alexnet/train.py DIR --tensorboard
                                            also what TensorBoard shows:
                                            docs/tensorboard.md
python examples/alexnet/train.py DIR --layers X.cfg --params Y.cfg 120:Z.cfg
                                            a net of the 2012 program's files,
                                            from epoch 120 on with Z.cfg
"""

if __name__ == "__main__":
    import supervisor

    supervisor.supervise()  # before anything that is imported below starts threads

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import checkout  # noqa: F401  before minidl
import guards
import numpy as np
import ranks as ranks_module
import run
import supervisor
from board import Board, check_installed, check_new
from data import (
    check_none_held_out,
    check_outside,
    left_out,
    load_statistics,
    measure,
    open_data,
    other_classes,
    save_statistics,
    test_loader,
    train_loader,
)
from evaluate import Score, score_of, totals
from files import OF_THE_FILES, FileNet, copy_files, image_profile, open_network
from guards import DiskFullError, NotFiniteError
from listing import classes_changed, difference, digest_of, held_out_changed, listing_of, read_listing, save_listing
from meter import Meter, Progress, clock
from model import LAYERS, PROFILES, VARIANTS, AlexNet
from ranks import Alone, Ranks
from steps import Outcome, Steps, StepsTogether

import minidl
from minidl import Tensor, pipe, random
from minidl.checkpoint import Checkpoint, CheckpointError, clear_leftovers, keep_last, save_checkpoint
from minidl.convert import load_weights
from minidl.convert.weights import MEAN
from minidl.data import BadFileError, ColorStatistics
from minidl.optim import SGD
from minidl.optim.lr_scheduler import MultiStepLR
from minidl.study.health.autopsy import Autopsy, AutopsyLog
from minidl.study.step.gradients import layer_checks
from minidl.study.step.table import LONG_NAME, terminal_width, wrapped

# What differs between a run on a user's images (the paper's values) and the quick one on the embedded patterns.
DEFAULTS = {"width": 1.0, "batch_size": 128, "epochs": 90, "lr": 0.01, "lr_drops": None, "score_every": None}
EMBEDDED = {"width": 0.25, "batch_size": 16, "epochs": 1, "lr": 0.003, "lr_drops": [0.6, 0.85], "score_every": 125}
AUTOPSY, TENSORBOARD = "autopsy.csv", "tensorboard"  # in the run folder
STOPPED_BY_SIGNAL = 128  # plus the signal's number: the exit code of a program that a signal ended
DISK_FULL = 1  # the exit code


class Interrupted(Exception):  # noqa: N818  the user's wish, not an error
    """Ctrl-C or SIGTERM came, or the output's reader left, while something ran that need not be finished."""


# -------------------------------------------------------------------------------------------------------------- training


class Trainer:
    """One run: the network, its data and optimiser, and the run folder.

    listing : the SHA-256 of the names of its images, see listing.py; None where nothing is trained
    best : of the checkpoints that were scored on the held-out set: {"step", "held_out_top1", "held_out_loss"}, or None
    left_out : unreadable images that training went without so far; one that is met in every epoch counts in each
    """

    def __init__(
        self,
        args: argparse.Namespace,
        folder: Path,
        model: AlexNet | FileNet,
        datasets: tuple[Any, Any],
        ranks: Alone | None = None,
    ) -> None:
        self.args, self.folder, self.model = args, folder, model
        self.ranks = Alone() if ranks is None else ranks
        self.network: Any = model  # as it is trained: see train
        self.train_set, self.held_out = datasets
        self.statistics = ColorStatistics(*self.ranks.from_first(lambda: load_statistics(folder / run.STATISTICS)))
        self.stop: int | None = None  # the exit code that a rank asked for
        self.shares: list[int] = []  # how many images each rank has of the batch that is at work
        self.places: Any = None  # and where this rank's stand in it, see ranks.places
        self.optimizer = SGD(self._groups(), lr=args.lr, momentum=args.momentum, rule="2012")
        self.step = 0
        self.steps_an_epoch = math.ceil(len(self.train_set) / args.batch_size)
        self.last_step = args.steps or args.epochs * self.steps_an_epoch
        self.noise_steps = round(model.profile.noise_until * self.last_step)
        self.meter = Meter(self.step, self.last_step)
        self.autopsy = Autopsy(model, args.autopsy) if args.autopsy else None
        self.board: Board | None = None
        self.steps = Steps(model, self.optimizer, late=0 if args.autopsy else 1)  # an autopsy is told of each step at once
        self.best: dict[str, Any] | None = None
        self.left_out = 0
        self.reported: set[str] = set()  # files of which Pillow warned
        self.listing: str | None = None
        self.last_checkpoint: Path | None = None
        self.signals = guards.Signals()
        arrays = 2 * sum(p.data.nbytes for p in model.parameters())  # parameters and velocities
        self.disk = guards.Disk(folder, arrays, self._checkpoints_to_come)

    def _groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups, as the run begins."""
        if isinstance(self.model, FileNet):
            return self.model.net.groups()
        return self.model.parameter_groups(self.args.lr, self.args.wd, self.args.lr_scale)

    def _checkpoints_to_come(self) -> int:
        """How many more there will be at once: the last ones and the best, while another one is written."""
        kept = min(self.args.keep, math.ceil(self.last_step / self.args.save_every)) + 1
        return max(kept + 1 - len(run.list_checkpoints(self.folder)), 1)

    def restore(self, path: Path, saved: Checkpoint) -> None:
        """Continue from a checkpoint: weights, momentum, random numbers and the place in the data."""
        if saved.state["classes"] != self.train_set.classes:
            raise ValueError(f"{path}: {other_classes(saved.state['classes'], self.train_set.classes)}")
        check_architecture(path, saved.state["architecture"], architecture(self.args, self.train_set))
        self.model.load_state_dict(saved.model_state)
        if saved.optimizer_state is None:
            raise CheckpointError(f"{path}: has no optimiser state, so training can't continue from it")
        self.optimizer.load_state_dict(saved.optimizer_state)
        random.default_generator.set_state(saved.state["random"])
        self.step = saved.state["step"]
        self._take_parameters(self._last_epoch())
        self.meter = Meter(self.step, self.last_step, saved.state["meter"])
        if self.autopsy is not None and saved.state.get("autopsy"):
            self.autopsy.load_state_dict(saved.state["autopsy"])
        self.left_out = saved.state.get("left_out", 0)
        best = saved.state.get("best")
        self.best = best if best and run.checkpoint_path(self.folder, best["step"]).is_dir() else None
        self.last_checkpoint = path

    def train(self) -> Score | None:
        """From the present step to the last, with a checkpoint every so often; the score, if the end was reached.

        Ctrl-C, SIGTERM, an output that nobody reads any more and a full disk stop it between two steps, with a checkpoint of
        the last one; the full disk with a DiskFullError. NotFiniteError: before anything that is not finite reaches the
        weights.
        """
        try:
            if self.ranks.first:
                self.log = run.Log(self.folder, self.step)
                if self.autopsy is not None:
                    self.autopsy_log = AutopsyLog(self.folder / AUTOPSY, self.step)
                self._open_board()
                run.write_best(self.folder, self.best)
            self.schedule = self._schedule()
            self.model.train()
            self.network = self.ranks.parallel(self.model)
            if self.ranks.size > 1:
                batch = lambda: (self.shares, self.places)
                self.steps = StepsTogether(self.model, self.network, self.optimizer, self.ranks, batch)
            ranks_module.advise(self._advice_to_go_on())
            self.ranks.begin_steps()
            with self.signals, Progress(self.step, self.last_step) as progress:
                score = self._train(progress)
        except OSError as error:
            if not guards.disk_full(error):
                raise
            raise DiskFullError(self._full_disk()) from error
        if self.disk.full:
            raise DiskFullError(self._full_disk())
        return score

    def _open_board(self) -> None:
        """TensorBoard's file, if --tensorboard asks for it, with the weights that the run begins with."""
        if self.args.tensorboard is None:
            return
        hparams = {name: value for name, value in vars(self.args).items() if name not in NO_HPARAMS}
        self.board = Board(board_folder(self.args, self.folder), self.step, hparams)
        if self.step == 0:
            self._board_arrays()

    def _board_arrays(self) -> None:
        if self.board is not None:
            filters = self.model.first_filters()
            picture = run.filter_picture(filters) if filters else None
            self.disk.write(partial(self.board.arrays, self.step, self.model, picture))

    def _board_scalars(self, part: str, values: dict[str, Any]) -> None:
        if self.board is not None:
            self.disk.write(partial(self.board.scalars, self.step, part, values))

    def _train(self, progress: Progress) -> Score | None:
        try:
            while self.step < self.last_step and not self.stopping:
                self._score_if_due(progress)
                self._train_epoch(progress)
            self.save()
            return None if self.stopping else self.score_and_log()
        except Interrupted:
            self.save()
            return None

    @property
    def stopping(self) -> bool:
        """Between two steps: has a rank asked for the end?"""
        return self.stop is not None or (self.ranks.size == 1 and self._wish() is not None)

    def _wish(self) -> int | None:
        """The exit code with which this rank wants to end; None to go on."""
        if self.signals.received is not None:
            return STOPPED_BY_SIGNAL + self.signals.received
        return pipe.LEFT if pipe.reader_left() else DISK_FULL if self.disk.full else None

    @property
    def interrupted(self) -> bool:
        """Need what runs not be finished?"""
        return self.stop is not None if self.ranks.size > 1 else self.signals.received is not None or pipe.reader_left()

    def _full_disk(self) -> str:
        """What is safe, and what to do."""
        saved = self.last_checkpoint == run.checkpoint_path(self.folder, self.step)
        what = f"step {self.step} is saved" if saved else f"step {self.step} is not saved, {self._last_checkpoint()}"
        room = guards.megabytes(max(self.disk.missing(), self.disk.checkpoint))
        return f"{self.folder}: the disk is full; {what}; free {room}, then {self.command_to_go_on()}"

    def _last_checkpoint(self) -> str:
        return f"the last checkpoint is {self.last_checkpoint}" if self.last_checkpoint else "no checkpoint was saved yet"

    def command_to_go_on(self) -> str:
        return f"continue with: {self.ranks.command(sys.argv[0])} --resume {self.folder}"

    def _advice_to_go_on(self) -> str:
        return f"{self._last_checkpoint()}; {self.command_to_go_on()}"

    def _last_epoch(self) -> int:
        """The epoch of the step before, or the first one."""
        return max(self.step - 1, 0) // self.steps_an_epoch

    def _take_parameters(self, epoch: int) -> None:
        """Rates, norms and dropout of this epoch, if parameter files have them."""
        if isinstance(self.model, FileNet):
            self.model.net.set_epoch(epoch, self.optimizer)

    def _schedule(self) -> MultiStepLR | None:
        """The rate is divided by 10 at fractions of the run; replayed up to the present step. None if files have the rates."""
        if isinstance(self.model, FileNet):
            return None
        wanted = self._groups()  # a resumed run may have been given another rate
        for group, fresh in zip(self.optimizer.param_groups, wanted, strict=True):
            group.pop("initial_lr", None)
            group.update(lr=fresh["lr"], weight_decay=fresh["weight_decay"], momentum=self.args.momentum)
        fractions = self.args.lr_drops or self.model.profile.rate_drops
        drops = [round(f * self.last_step) for f in fractions]
        schedule = MultiStepLR(self.optimizer, drops, gamma=0.1)
        for _ in range(self.step):
            schedule.step()
        return schedule

    def _train_epoch(self, progress: Progress) -> None:
        """To the end of the epoch, or to where the colour noise ends or a score is due, or to the run's last step."""
        epoch, first = divmod(self.step, self.steps_an_epoch)
        self._take_parameters(epoch)
        with_noise = self.step < self.noise_steps
        end = self.noise_steps if with_noise else self.last_step
        if every := self.args.score_every:
            end = min(end, (self.step // every + 1) * every)
        loader = train_loader(
            self.train_set,
            self.model.profile,
            self.statistics,
            noise=with_noise,
            batch_size=self.args.batch_size,
            workers=self.args.workers,
            seed=self.args.seed,
            on_error=self.args.on_error,
            devices=[tower.device for tower in self.model.towers],
            reading=self.folder / run.READING if self.ranks.first else None,
            ranks=self.ranks.size,
            rank=self.ranks.rank,
        )
        batches = loader.epoch_batches(epoch, first)
        for images, labels in self._together(batches, saves=True):
            self._count_lost_batches(min(epoch * self.steps_an_epoch + batches.number, end))
            if self.step == end:
                break
            if sum(self.shares) == 0:  # what several ranks could not read; one alone gets no such batch
                self._count_lost_batches(self.step + 1)
                continue
            with self._autopsied(progress):
                self.train_step(images, labels)
            progress.update(self.meter)
            if self.step % self.args.print_freq == 0 or self.step == self.last_step:
                self._report(epoch, progress)
            if self.step % self.args.save_every == 0 or self.step == self.last_step:
                self._board_arrays()
            if self.step % self.args.save_every == 0 and self.step < self.last_step:
                self.save()
            if self.step == end or self.stopping:
                break
        else:
            self._count_lost_batches(min((epoch + 1) * self.steps_an_epoch, end))
        run.report_skipped(loader, self.reported)

    def _together(self, batches: Iterable[Any], saves: bool) -> Iterator[Any]:
        """The batches, until a rank wants to stop. Before each one the ranks tell what they have.

        saves : if a batch can't be made, what was done so far is saved before the error goes on, on all ranks
        """
        source = iter(batches)
        while True:
            error, batch = None, None
            try:
                batch = next(source, None)
            except Exception as caught:
                error = caught
            images = 0 if batch is None else len(batch[1])
            told = self.ranks.share((ranks_module.describe(error), self._wish(), images, getattr(batches, "lost", [])))
            self.shares = [images for _, _, images, _ in told]
            lost = [place for _, _, _, places in told for place in places]
            self.places = ranks_module.places(self.ranks.rank, self.ranks.size, lost, images)
            failed = next((rank for rank, (failure, *_) in enumerate(told) if failure is not None), None)
            if failed is not None:
                if saves:
                    self.save()
                    print(f"saved {self.last_checkpoint}; {self.command_to_go_on()}", flush=True)
                if isinstance(self.ranks, Ranks):
                    self.ranks.fail(failed, told[failed][0], error=error)
                raise error if error is not None else RuntimeError("a rank failed")
            if self.ranks.size > 1:
                self.stop = next((wish for _, wish, _, _ in told if wish is not None), None)
            if batch is None or self.stop is not None:
                return
            yield batch

    def _count_lost_batches(self, step: int) -> None:
        """Batches up to this step lost all their images; each counts as a step, so that step and place in the data agree."""
        while self.step < step:
            self._count_step(0)

    def _count_step(self, images: int) -> None:
        """One more step, with so many images instead of the batch's number."""
        place = self.step % self.steps_an_epoch
        whole = min(self.args.batch_size, len(self.train_set) - place * self.args.batch_size)
        self.left_out += whole - images
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1

    def train_step(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Forward, backward, update. NotFiniteError if the loss or a gradient was not finite, of this step or one that is read
        late (steps.py); nothing is updated from that step on."""
        self.lr = self.optimizer.param_groups[0]["lr"]
        for outcome in self.steps.take(self.step + 1, images, labels):
            self._note(outcome)
        self._count_step(self._images(labels))

    def _images(self, labels: np.ndarray) -> int:
        """How many images all ranks have."""
        return len(labels) if self.ranks.size == 1 else sum(self.shares)

    def catch_up(self) -> None:
        """Read what the last step said, if it was not waited for. NotFiniteError as of `train_step`."""
        for outcome in self.steps.rest():
            self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        if outcome.fault:
            raise NotFiniteError(self._diagnosis(outcome))
        self.meter.add(outcome.loss, outcome.right, outcome.of_all)

    @contextmanager
    def _autopsied(self, progress: Progress) -> Iterator[None]:
        """A step inside the block is looked at if --autopsy asks for that; its numbers and what is new to say are logged."""
        if self.autopsy is None:
            yield
            return
        self.autopsy.step = self.step
        with self.autopsy:
            yield
        loss = self.meter.loss
        diagnoses = self.autopsy.after_step(loss)
        if self.autopsy.rows:
            self.disk.write(partial(self.autopsy_log.write, self.step, loss, self.autopsy.rows))
            if self.board is not None:
                self.disk.write(partial(self.board.autopsy, self.step, self.autopsy.rows))
        for diagnosis in diagnoses:
            row = {"illness": diagnosis.illness.name, "layers": dict(diagnosis.layers)}
            self.disk.write(partial(self.log.write, step=self.step, **row))
            progress.write(wrapped(f"step {self.step}  {diagnosis}", terminal_width()))

    def _diagnosis(self, outcome: Outcome) -> str:
        """Where the first number that is not finite came from: the step again, with the same weights and random numbers."""

        def step() -> Tensor:
            random.default_generator.set_state(outcome.generator)
            return self.steps.loss(outcome.images, outcome.labels)

        with self.ranks.alone(self.network):
            where = guards.first_not_finite(self.model, outcome.images, step)
        if isinstance(self.ranks, Ranks):
            found, whose = self.ranks.share(where), outcome.whose
            if whose is None:  # the first that finds it again
                whose = next((rank for rank, text in enumerate(found) if guards.FINITE_AGAIN not in text), 0)
            where = f"{self.ranks.group.name(whose)}: {found[whose]}"
            self.ranks.silence_others()
        return f"step {outcome.number}: {outcome.fault}; {where}; {self._advice()}"

    def _advice(self) -> str:
        rate = "rates in the parameter file" if self.args.layers else f"--lr than {self.args.lr}"
        return f"{self._last_checkpoint()}; {'lower' if self.args.layers else 'a lower'} {rate} may help"

    def _report(self, epoch: int, progress: Progress) -> None:
        self.catch_up()
        means, speed = self.meter.take()
        row = {"step": self.step, "epoch": epoch, "lr": self.lr, **means, "skipped": self.left_out, **speed}
        self._write(lambda: self.log.write(**row))
        self._board_scalars("train", {name: value for name, value in row.items() if name not in ("step", "epoch", "seconds")})
        progress.write(
            f"step {self.step}/{self.last_step}  epoch {epoch + 1}  loss {row['loss']:.4f}  top-1 {row['top1']:.1%}  "
            f"{row['images_per_second']:.1f} images/s  {clock(self.meter.seconds_left(self.step))} left"
        )

    def score(self) -> Score:
        """The held-out set's centre views, in evaluation mode. Interrupted: it is not waited for the rest."""
        self.model.eval()
        loader = test_loader(
            self.held_out,
            self.model.profile,
            self.statistics,
            batch_size=min(self.args.batch_size, 64) * self.ranks.size,
            workers=self.args.workers,
            on_error=self.args.on_error,
            ranks=self.ranks.size,
            rank=self.ranks.rank,
        )
        batches = run.with_progress(loader.epoch_batches(0), len(loader))
        told = self.ranks.share(totals(self.model, self._until_stopped(batches)))
        run.report_skipped(loader, self.reported)
        self.model.train()
        return score_of(np.sum([total for total, _ in told], axis=0), max(classes for _, classes in told))

    def _until_stopped(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in self._together(batches, saves=False):
            if self.interrupted:
                raise Interrupted
            yield batch
        if self.stop is not None:
            raise Interrupted

    def _score_if_due(self, progress: Progress) -> None:
        """Score after an epoch and every --score-every steps, unless that was done before the run was stopped."""
        epochs, rest = divmod(self.step, self.steps_an_epoch)
        every = self.args.score_every
        due = self.step and (not rest or (every and self.step % every == 0))
        if due and not self.ranks.from_first(lambda: self.log.has_score(self.step)):
            when = f"step {self.step}" if rest else f"epoch {epochs}"
            progress.write(f"{when}  held out: {self.score_and_log()}")

    def score_and_log(self) -> Score:
        """The score, as a row of the log; an earlier one of this step goes. Its time does not count as training's.

        The best checkpoint is saved before the row is written: whoever is killed in between scores again.
        """
        started = time.monotonic()
        score = self.score()
        self._note_if_best(score)
        if self.ranks.first and self.log.has_score(self.step):
            self.disk.write(partial(self.log.drop_scores, self.step))
        if self.board is not None:  # a kill may have come between its score and the log's
            self.disk.write(partial(self.board.drop, self.step, "held_out"))
        row = {"held_out_loss": score.loss, "held_out_top1": score.top1, "held_out_top5": score.top5}
        self._board_scalars("held_out", {name.removeprefix("held_out_"): value for name, value in row.items()})
        self._write(lambda: self.log.write(step=self.step, **row))
        self.meter.leave_out(time.monotonic() - started)
        return score

    def _note_if_best(self, score: Score) -> None:
        """The best checkpoint has the highest top-1, of equal ones the lowest loss, of equal ones the earliest step."""
        if math.isnan(score.loss):
            return
        best = self.best
        if best is None or (score.top1, -score.loss) > (best["held_out_top1"], -best["held_out_loss"]):
            self.best = {"step": self.step, "held_out_top1": score.top1, "held_out_loss": score.loss}
            self.save(again=True)

    def save(self, again: bool = False) -> None:
        """A checkpoint of this step, once, or again; the oldest ones beyond the last --keep go, but not the best.

        NotFiniteError: the last update overflowed, or as of `train_step`. What was saved before stays.
        """
        self.catch_up()
        path = run.checkpoint_path(self.folder, self.step)
        if path != self.last_checkpoint or again:
            if not guards.all_finite((p.device, p.data) for p in self.model.parameters()):
                raise NotFiniteError(f"step {self.step}: its update made a parameter that is not finite; {self._advice()}")
            self._write(partial(self._write_checkpoint, path))
            self.last_checkpoint = path
            ranks_module.advise(self._advice_to_go_on())
            self._write(partial(run.write_best, self.folder, self.best))  # before the one that was the best goes
        # also if it was saved before: a kill may have come between that and this
        beside = [run.checkpoint_path(self.folder, self.best["step"])] if self.best else []
        if self.ranks.first:
            keep_last(self.folder / run.CHECKPOINTS, self.args.keep, beside)

    def _write(self, action: Callable[[], None]) -> None:
        """Rank 0 writes into the run folder."""
        if self.ranks.first:
            self.disk.write(action)

    def _write_checkpoint(self, path: Path) -> None:
        save_checkpoint(
            path,
            self.model.state_dict(),
            self.optimizer.state_dict(),
            step=self.step,
            epoch=self._last_epoch(),
            random=random.default_generator.state(),
            meter=self.meter.sums,
            autopsy=self.autopsy and self.autopsy.state_dict(),
            left_out=self.left_out,
            best=self.best,
            architecture=architecture(self.args, self.train_set),
            classes=self.train_set.classes,
            listing=self.listing,
            arguments=vars(self.args),
            versions=run.versions(tower.device for tower in self.model.towers),
        )


# ----------------------------------------------------------------------------------------------------------- what to run


def architecture(args: argparse.Namespace, dataset: Any) -> dict[str, Any]:
    """What a checkpoint's weights fit: the arguments of AlexNet, or of FileNet, without files and devices."""
    if args.layers:
        return {"num_classes": len(dataset.classes), "profile": args.profile, "image_size": args.image_size}
    return {
        "num_classes": len(dataset.classes),
        "profile": args.profile,
        "width": args.width,
        "variant": args.variant,
        "literal_init": args.literal_init,
    }


def board_folder(args: argparse.Namespace, folder: Path) -> Path:
    """Where TensorBoard's file is: in the run folder, unless --tensorboard named another."""
    return Path(args.tensorboard) if args.tensorboard else folder / TENSORBOARD


def stored_size(args: argparse.Namespace) -> int:
    """The side of the images before they are cropped."""
    return (image_profile(args.profile, args.image_size) if args.layers else PROFILES[args.profile]).stored_size


def check_architecture(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ValueError names what differs."""
    differ = [f"{name} {saved.get(name)!r} (here {value!r})" for name, value in wanted.items() if saved.get(name) != value]
    if differ:
        raise ValueError(f"{path}: is a checkpoint of another architecture: {', '.join(differ)}")


def build(args: argparse.Namespace, dataset: Any, folder: Path | None = None) -> AlexNet | FileNet:
    """The network. That of layer files from their copies in the run folder, or without one from the files themselves."""
    minidl.set_float32_matmul_precision("medium" if args.amp else "high" if args.tf32 else "highest")
    settings, devices = architecture(args, dataset), run.device_names(args.device)
    if args.layers and folder is None:
        return FileNet(args.layers, args.params, **settings, devices=devices)
    model = open_network(settings, folder / args.files if args.layers and folder else None, devices)
    if isinstance(model, AlexNet):
        model.freeze(args.freeze)
    return model


def start_weights(args: argparse.Namespace, model: AlexNet | FileNet) -> None:
    """The weights of --init, if it was given; a last layer for other classes stays as it was drawn, which is said.

    ValueError: a tensor is missing, is one too many, or has another shape than the net's.
    """
    if args.init is None or not isinstance(model, AlexNet):
        return
    arrays, own = load_weights(args.init)[0], model.merged_state_dict()
    arrays.pop(MEAN, None)
    for what, names in (("missing", own.keys() - arrays.keys()), ("too many", arrays.keys() - own.keys())):
        if names:
            raise ValueError(
                f"{args.init}: must have the tensors of AlexNet, {len(names)} are {what}: {', '.join(sorted(names)[:3])}"
            )
    there, here = len(arrays["fc8.bias"]), len(own["fc8.bias"])
    if there != here:
        arrays |= {name: own[name] for name in ("fc8.weight", "fc8.bias")}
        print(f"{args.init}: has {there} classes, the data {here}: fc8 is new")
    for name, array in own.items():
        if arrays[name].shape != array.shape:
            net = f"this net at --width {args.width:g}"
            raise ValueError(f"{args.init}: {name} must have the shape {array.shape} of {net}, got {arrays[name].shape}")
    model.load_merged_state_dict(arrays)


def starting_statistics(args: argparse.Namespace, dataset: Any, size: int) -> ColorStatistics:
    """Of the training set, but with the mean image that came with the weights of --init, if one did.

    ValueError: it is of another size than the images.
    """
    statistics = measure(dataset, args.on_error, size)
    mean = None if args.init is None else load_weights(args.init)[0].get(MEAN)
    if mean is None:
        return statistics
    if mean.shape != statistics.mean.shape:
        raise ValueError(
            f"{args.init}: its mean image must have the shape {statistics.mean.shape} of the images, got {mean.shape}"
        )
    print(f"{args.init}: its mean image is subtracted, not that of the data")
    return statistics._replace(mean=mean.astype(np.float32))


def header(args: argparse.Namespace, model: AlexNet | FileNet, datasets: tuple[Any, Any], ranks: str = "") -> str:
    """What is about to be trained, on what, with what."""
    train_set, held_out = datasets
    parameters = sum(p.numel() for p in model.parameters())
    if args.data is None:
        data = f"the embedded patterns: {len(train_set)} drawn images of {len(train_set.classes)} classes"
    else:
        data = f"{args.data}: {len(train_set)} images of {len(train_set.classes)} classes"
    aside = None if args.data is None else left_out(Path(args.data), datasets)
    unseen = len(held_out.classes) - len(set(held_out.targets))
    if args.layers:
        net = (
            f"{args.layers} with {' '.join(args.params)}, profile {args.profile}, images {args.image_size} x {args.image_size}"
        )
        rates = "rates, momenta and decays of the parameter file"
    else:
        narrow = "" if args.width == 1 else f" at width {args.width:g} of the paper's (--width 1 trains the full net)"
        net = f"AlexNet{narrow}, profile {args.profile}, variant {args.variant}"
        scaled = "".join(f", {name} {scale:g} times as much" for name, scale in args.lr_scale.items())
        scaled += f", {', '.join(args.freeze)} frozen" if args.freeze else ""
        rates = f"rate {args.lr:g} (biases {2 * args.lr:g}{scaled}), momentum {args.momentum:g}, decay {args.wd:g}"
    towers = [tower.device for tower in model.towers]
    about, kind = run.versions(towers), "bfloat16" if args.amp else "TF32" if args.tf32 else ""
    text = (
        f"{net}, {parameters:,} parameters\n"
        f"on {' and '.join(dict.fromkeys(map(str, towers)))}; float32"
        f"{f', products in {kind}' if kind and 'cuda' in args.device else ''}; "
        f"{about['gpu'] + '; ' if 'gpu' in about else ''}NumPy {about['numpy']}, {about['blas']}\n"
        f"data: {data}, {len(held_out)} held out{f', none of {unseen} of the classes' if unseen else ''}\n"
        f"{f'{aside}{chr(10)}' if aside else ''}{ranks}"
        f"batch {args.batch_size}, {rates}, seed {args.seed}"
    )
    return wrapped(text, terminal_width())


def parser_() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "data",
        nargs="?",
        metavar="DIR",
        help="folder with train/<class>/* and val/<class>/* or test/<class>/*; default: the embedded patterns",
    )
    p.add_argument(
        "--hold-out",
        type=run.fraction,
        metavar="FRACTION",
        help="hold out this fraction of the images for scoring, if DIR has no val/ and no test/; the classes may then lie in "
        "DIR itself",
    )
    p.add_argument(
        "--layers",
        metavar="X.cfg",
        help="train the net of this layer file of the 2012 program instead of AlexNet; see docs/cfg.md",
    )
    p.add_argument(
        "--params",
        nargs="+",
        metavar="Y.cfg",
        help="parameter file of --layers, with the learning rates; EPOCH:Z.cfg is used from that epoch on. Also with --resume",
    )
    p.add_argument(
        "--image-size",
        type=run.at_least_one,
        metavar="N",
        help="with --layers: side of the images that the net takes, default 224; sizes up to 32 are cut from 32 x 32 images",
    )
    p.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="start from these weights, a file of python -m minidl.convert; fc8 starts anew if the number of classes differs",
    )
    p.add_argument("--freeze", type=layer_names, metavar="LAYER,...", help="do not train these layers: conv1,conv2")
    p.add_argument(
        "--lr-scale", type=layer_scales, metavar="LAYER=FACTOR,...", help="multiply the learning rate of single layers: fc8=10"
    )
    p.add_argument(
        "--device",
        help="one device, or two with a comma between, one for each tower: cpu:0,cpu:1 (default), cuda:0, cuda:0,cuda:1",
    )
    p.add_argument(
        "--epochs",
        type=run.at_least_one,
        metavar="N",
        help="passes over the training images, default 90; 1 on the embedded patterns",
    )
    p.add_argument("--steps", type=run.at_least_one, metavar="N", help="train for N steps instead of --epochs")
    p.add_argument(
        "-b",
        "--batch-size",
        type=run.at_least_one,
        metavar="N",
        help="images in a step, default 128; 16 on the embedded patterns",
    )
    p.add_argument(
        "--lr",
        type=run.positive,
        help="learning rate of weights, default 0.01; 0.003 on the embedded patterns. Biases have twice as much",
    )
    p.add_argument(
        "--lr-drops",
        type=run.fractions,
        metavar="F,F,...",
        help="divide the learning rate by 10 after each of these fractions of the run, default the profile's (paper: "
        ".25,.55,.85)",
    )
    p.add_argument("--momentum", type=run.not_negative, help="momentum of SGD, default 0.9")
    p.add_argument("--wd", "--weight-decay", type=run.not_negative, help="weight decay, default 0.0005; biases have none")
    p.add_argument("-j", "--workers", type=run.at_least_zero, help="threads that make batches, default 2")
    p.add_argument(
        "--profile",
        choices=sorted(PROFILES),
        metavar="NAME",
        help=f"whose values and order of layers to use: {', '.join(sorted(PROFILES))}; default paper, see docs/alexnet.md",
    )
    p.add_argument(
        "--variant",
        choices=sorted(VARIANTS),
        metavar="NAME",
        help=f"how the network is split into towers: {', '.join(sorted(VARIANTS))}; default two_towers, see docs/alexnet.md",
    )
    p.add_argument(
        "--literal-init",
        action="store_true",
        default=None,
        help="start all weights with standard deviation 0.01, as the paper prints it",
    )
    p.add_argument(
        "--tf32",
        action="store_true",
        default=None,
        help="on a GPU, multiply in TF32: faster, but with 10 bits of the fraction instead of 23",
    )
    p.add_argument(
        "--amp",
        choices=("bf16",),
        help="on a GPU, multiply in bfloat16; sums and weights stay in float32. Has never run on a GPU yet",
    )
    p.add_argument(
        "--width",
        type=run.positive,
        help="multiply the width of every hidden layer by this, default 1; 0.25 on the embedded patterns",
    )
    p.add_argument("--seed", type=run.at_least_zero, help="seed of all random numbers, default 0")
    p.add_argument("-p", "--print-freq", type=run.at_least_one, help="steps between reports, default 10")
    p.add_argument(
        "--autopsy",
        type=run.at_least_one,
        nargs="?",
        const=10,
        metavar="EVERY",
        help="measure every layer in step 1 and every EVERY-th step (default 10), write the numbers to autopsy.csv, and report "
        "what is wrong; write DIR before this option",
    )
    p.add_argument(
        "--tensorboard",
        nargs="?",
        const="",
        metavar="DIR",
        help="write files for TensorBoard, into this folder or the run folder; needs tensorboardX. Write the images' DIR "
        "before this option",
    )
    p.add_argument(
        "--score-every",
        type=run.at_least_one,
        metavar="N",
        help="score the held-out images after every N steps too, not only after each epoch; 125 on the embedded patterns",
    )
    p.add_argument("--save-every", type=run.at_least_one, help="steps between checkpoints, default 200")
    p.add_argument(
        "--keep", type=run.at_least_one, metavar="K", help="keep the last K checkpoints, default 3, and the best one"
    )
    p.add_argument("--on-error", choices=("stop", "skip"), help="at an unreadable image: stop (default), or skip the image")
    p.add_argument(
        "--timeout",
        type=run.positive,
        default=600.0,
        metavar="SECONDS",
        help="under mpiexec: end the run when a rank has waited this long for the others, default 600",
    )
    p.add_argument("--out", help="the run folder to write, default runs/alexnet-<date>-<time>")
    p.add_argument("--resume", metavar="RUN", help="continue this run folder, or one checkpoint in it, with its own arguments")
    p.add_argument(
        "--data-changed",
        action="store_true",
        help="with --resume: go on although images were added or removed since the run was stopped",
    )
    p.add_argument("-e", "--evaluate", action="store_true", help="with --resume: score the held-out images, train nothing")
    p.add_argument("--check-grads", action="store_true", help="check every layer's backward numerically, train nothing")
    p.add_argument("--dry-run", action="store_true", help="say what would run, try one step, write nothing")
    return p


COMMON: dict[str, Any] = {
    "layers": None,
    "params": None,
    "init": None,
    "freeze": [],
    "lr_scale": {},
    "image_size": 224,
    "hold_out": None,
    "device": "cpu:0,cpu:1",
    "steps": None,
    "momentum": 0.9,
    "wd": 0.0005,
    "workers": 2,
    "profile": "paper",
    "variant": "two_towers",
    "literal_init": False,
    "tf32": False,
    "amp": None,
    "seed": 0,
    "print_freq": 10,
    "autopsy": None,
    "tensorboard": None,
    "save_every": 200,
    "keep": 3,
    "on_error": "stop",
}
# of a net of layer files. The profile says how images are made
OF_LAYERS = {"batch_size": 128, "profile": "original"}
# where things are, not what the run is
NO_HPARAMS = ("data", "files", "tensorboard", "print_freq", "save_every", "keep", "workers")
MODES = ("resume", "data_changed", "evaluate", "check_grads", "dry_run", "out", "timeout")  # not part of what a run is


def complete(given: argparse.Namespace, saved: dict[str, Any] | None) -> argparse.Namespace:
    """Arguments that were given, else those of the run that is resumed, else defaults.

    ValueError: some that don't go together.
    """
    explicit = {name: value for name, value in vars(given).items() if name not in MODES and value is not None}
    if "epochs" in explicit:
        explicit.setdefault("steps", None)
    data = explicit.get("data", (saved or {}).get("data"))
    layers = explicit.get("layers", (saved or {}).get("layers"))
    _check_files(explicit, layers, saved is not None)
    defaults = {**(EMBEDDED if data is None else DEFAULTS), **COMMON, **(OF_LAYERS if layers else {})}
    if explicit.get("variant") == "torchvision":
        defaults["profile"] = "torchvision"
    defaults |= _check_init(explicit, layers, saved is not None)
    return argparse.Namespace(**{"data": data, **defaults, **(saved or {}), **explicit})


def _check_files(explicit: dict[str, Any], layers: str | None, resumed: bool) -> None:
    """Do the flags about layer files go with each other, and with the rest?"""
    if layers is None:
        alone = [name for name in ("params", "image_size") if name in explicit]
        if alone:
            raise ValueError(f"--{alone[0].replace('_', '-')} needs --layers: which net?")
        return
    if resumed and "layers" in explicit:
        raise ValueError("--layers can't be given with --resume: a run keeps its layers; --params may be other ones")
    if not resumed and "params" not in explicit:
        raise ValueError("--layers needs --params: which rates?")
    without_effect = [name for name in OF_THE_FILES if name in explicit]
    if without_effect:
        raise ValueError(f"--{without_effect[0].replace('_', '-')} can't be given with --layers: the files say that")


def _check_init(explicit: dict[str, Any], layers: str | None, resumed: bool) -> dict[str, str]:
    """Do the flags about other weights go with the rest? The variant and profile that the weights are for."""
    given = [f"--{name.replace('_', '-')}" for name in ("init", "freeze", "lr_scale") if name in explicit]
    if given and resumed:
        raise ValueError(
            f"{given[0]} can't be given with --resume: a run keeps its layers' rates, and goes on from its weights"
        )
    if given and layers:
        raise ValueError(f"{given[0]} can't be given with --layers: it is for AlexNet")
    if "init" not in explicit:
        return {}
    about = {name: value for name, value in load_weights(explicit["init"])[1].items() if name in ("variant", "profile")}
    for name, value in about.items():
        if explicit.get(name, value) != value:
            raise ValueError(f"{explicit['init']}: its weights are for --{name} {value}, got {explicit[name]}")
    return about


def layer_names(text: str) -> list[str]:
    """ "conv1,conv2" -> ["conv1", "conv2"], which AlexNet has."""
    names = text.split(",")
    for name in names:
        if name not in LAYERS:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(LAYERS)}, got {name!r}")
    return names


def layer_scales(text: str) -> dict[str, float]:
    """ "fc7=2,fc8=10" -> {"fc7": 2.0, "fc8": 10.0}."""
    scales = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        scales[layer_names(name)[0]] = run.positive(number)
    return scales


def main(arguments: list[str] | None = None) -> int:
    parser = parser_()
    with supervisor.first_rank_speaks():
        given = parser.parse_args(arguments)
        check_modes(parser, given)
    run.warnings_in_one_line()
    on_gpus = given.resume is not None or "cuda" in str(given.device)  # a run that goes on has its device in its folder
    with (
        ranks_module.joined(given.timeout, on_gpus) as ranks,
        run.errors_in_one_line(parser, sys.argv[1:] if arguments is None else arguments),
    ):
        return ranks.leave(begin(given, ranks))


def check_modes(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Ends the program where flags that say what to do exclude each other."""
    if given.evaluate and given.resume is None:
        parser.error("--evaluate needs --resume RUN: which checkpoint?")
    if given.evaluate and given.params is not None:
        parser.error("--params can't be given with --evaluate: a checkpoint is scored with the parameters of its epoch")
    if given.data_changed and given.resume is None:
        parser.error("--data-changed needs --resume RUN: a new run takes the data as it is")
    if given.resume is not None and given.out is not None:
        parser.error("--out can't be given with --resume: a run goes on in its own folder")
    if given.resume is not None and (given.check_grads or given.dry_run):
        parser.error("--check-grads and --dry-run can't be given with --resume: they train nothing")
    if supervisor.launched_ranks() > 1 and given.autopsy:
        parser.error("--autopsy looks at one process, whose images are only a part of each batch: start it without mpiexec")


def begin(given: argparse.Namespace, ranks: Alone) -> int:
    """What was asked for: a new run, or one that goes on."""
    if given.resume is None:
        return start(ranks.jointly(lambda: complete(given, None)), given, ranks)
    found, saved = ranks.from_first(lambda: _run_to_resume(given))
    folder = Path(found)
    args = ranks.jointly(lambda: complete(given, saved))
    if ranks.size > 1 and args.autopsy:
        raise ValueError(f"{folder}: --autopsy looks at one process: resume it without mpiexec")
    if given.evaluate:
        return resume(args, given, folder, ranks)
    with in_folder(folder, ranks):
        return resume(args, given, folder, ranks)


def _run_to_resume(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    folder = run.find_run(given.resume)
    saved = run.arguments_of(folder)
    if given.hold_out not in (None, saved.get("hold_out")):
        raise ValueError(
            f"{folder}: was trained with --hold-out {saved.get('hold_out')}, got {given.hold_out}: another cut would "
            "hold out images that were trained on"
        )
    return str(folder), saved


@contextmanager
def in_folder(folder: Path, ranks: Alone) -> Iterator[None]:
    """At work in a run folder, which rank 0 has locked."""
    with ExitStack() as stack:
        ranks.from_first(lambda: stack.enter_context(guards.locked(folder)))
        stack.enter_context(pipe.going_on())
        yield


def start(args: argparse.Namespace, given: argparse.Namespace, ranks: Alone) -> int:
    """A run from the beginning."""
    minidl.manual_seed(args.seed)
    devices = run.device_names(args.device)
    folder = Path(ranks.from_first(lambda: given.out or time.strftime("runs/alexnet-%Y%m%d-%H%M%S")))

    def open_all() -> tuple[Any, Any]:
        for name in devices:
            minidl.Device(name)  # a missing GPU is said before anything slow happens
        if args.tensorboard is not None:
            check_installed()
            check_new(board_folder(args, folder))
        check_none_held_out(args.data, args.hold_out)
        datasets = open_data(args.data, args.hold_out, stored_size(args))
        check_outside(folder, datasets)
        if args.tensorboard:
            check_outside(Path(args.tensorboard), datasets, "--tensorboard")
        return datasets

    datasets = ranks.jointly(open_all)
    if given.check_grads or given.dry_run:
        check_ranks(args, datasets, ranks)

        def try_out() -> int:
            model = build(args, datasets[0])
            start_weights(args, model)
            print(header(args, model, datasets, ranks.about()), flush=True)
            return check_grads(model) if given.check_grads else dry_run(args, model, datasets)

        return ranks.from_first(try_out)
    listing = check_ranks(args, datasets, ranks)
    args.device = ranks.own_devices(args.device)
    ranks.from_first(lambda: run.create(folder))
    with in_folder(folder, ranks):
        model = ranks.jointly(lambda: build(args, datasets[0]))
        ranks.jointly(lambda: start_weights(args, model))
        print(header(args, model, datasets, ranks.about()), flush=True)
        if args.init is not None:
            args.init = os.path.abspath(args.init)
        if args.data is not None:
            args.data = os.path.abspath(args.data)
        if args.tensorboard:
            args.tensorboard = os.path.abspath(args.tensorboard)

        def save_all() -> tuple[str | None, str]:
            save_statistics(folder / run.STATISTICS, starting_statistics(args, datasets[0], model.profile.stored_size))
            files = copy_files(folder, args.layers, args.params) if args.layers else None
            digest = save_listing(folder, listing)
            arguments = {**vars(args), **({"files": files} if args.layers else {})}
            run.remember(folder, arguments, digest, run.versions(map(minidl.Device, devices)))
            return files, digest

        files, digest = ranks.from_first(save_all)
        if args.layers:
            args.files = files
        trainer = Trainer(args, folder, model, datasets, ranks)
        trainer.listing = digest
        return carry_on(trainer)


def check_ranks(args: argparse.Namespace, datasets: tuple[Any, Any], ranks: Alone) -> bytes:
    """The listing of the data. ValueError unless all ranks have the same one, the same arguments and the same program."""
    listing = listing_of(datasets)
    if ranks.size > 1:
        ranks.agree(arguments=vars(args), data_listing=digest_of(listing), program=ranks_module.code_digest())
    return listing


def resume(args: argparse.Namespace, given: argparse.Namespace, folder: Path, ranks: Alone) -> int:
    """Go on from a checkpoint, or from the beginning where a run was killed before its first."""

    def find() -> tuple[str | None, str | None]:
        if not given.evaluate:
            if args.tensorboard is not None:
                check_installed()
            clear_leftovers(folder / run.CHECKPOINTS)
        found = run.find_checkpoint(given.resume)
        where = None if found is None else str(found)
        if given.data is not None:
            return where, args.data
        return where, run.find_data(folder, f"if it moved: python {sys.argv[0]} NEW_DIR --resume {given.resume}")

    where, args.data = ranks.from_first(find)
    found = None if where is None else Path(where)
    minidl.manual_seed(args.seed)
    datasets = ranks.jointly(lambda: open_data(args.data, args.hold_out, stored_size(args)))

    def read() -> tuple[Any, ...] | None:
        if found is None:
            return None
        checkpoint = run.read_checkpoint(found, "continue from it with --resume {}")
        return checkpoint.model_state, checkpoint.optimizer_state, checkpoint.state

    parts = ranks.from_first(read)
    saved = None if parts is None else Checkpoint(*parts)
    other_scores = False
    if not given.evaluate:
        listing = check_ranks(args, datasets, ranks)

        def check() -> bool:
            before = run.listing_at_start(folder) if saved is None else saved.state.get("listing")
            return check_data(folder, found or folder, before, listing, given.data_changed)

        other_scores = ranks.from_first(check)
    args.device = ranks.own_devices(args.device)
    if given.params:

        def take_params() -> str:
            layers = folder / args.files / "layers.cfg"
            FileNet(
                layers, args.params, **architecture(args, datasets[0]), devices=run.device_names(args.device)
            )  # or says what is wrong
            return copy_files(folder, layers, args.params)

        args.files = ranks.from_first(take_params)
    model = ranks.jointly(lambda: build(args, datasets[0], folder))
    trainer = Trainer(args, folder, model, datasets, ranks)
    if saved is not None and found is not None:
        ranks.jointly(lambda: trainer.restore(found, saved))
        trainer.best = ranks.from_first(lambda: trainer.best)  # whose checkpoint is there
        if other_scores and trainer.best is not None:
            print(f"the best was step {trainer.best['step']}, on other held-out images: it counts no more")
            trainer.best = None
        print(f"resumed {found}, {trainer.step} of {trainer.last_step} steps done")
    elif given.evaluate:
        raise FileNotFoundError(f"{folder}: no checkpoint was saved yet")
    else:
        print(f"{folder} has no checkpoint yet: it starts from the beginning")
        start_weights(args, model)
    print(header(args, model, datasets, ranks.about()), flush=True)
    if given.evaluate:
        print(f"held out: {trainer.score()}")
        return 0
    if args.data is not None:
        args.data = os.path.abspath(args.data)
    if given.tensorboard:
        args.tensorboard = os.path.abspath(given.tensorboard)

    def note() -> str:
        digest = save_listing(folder, listing)
        kept = {
            "data": args.data,
            "tensorboard": args.tensorboard,
            **({"params": args.params, "files": args.files} if args.layers else {}),
        }
        run.remember(folder, {**run.arguments_of(folder), **kept}, digest)
        run.report_last_read(folder)
        aside = run.set_aside_later(folder, trainer.step)
        if aside:
            print(f"the checkpoints of later steps are in {aside[0].parent} now: {', '.join(path.name for path in aside)}")
        return digest

    trainer.listing = ranks.from_first(note)
    return carry_on(trainer)


def check_data(folder: Path, saved: Path, digest: str | None, now: bytes, allowed: bool) -> bool:
    """Is the listing of the data now the one that was saved, by its SHA-256? Whether scores from then are of other images.

    ValueError if it is not, and the change is not allowed, or the classes changed.
    """
    if digest in (None, digest_of(now)):
        return False
    try:
        before = read_listing(folder, str(digest))
    except (FileNotFoundError, BadFileError) as error:
        what, classes, scores = f"by how much is not known: {error}", False, True
    else:
        what, classes, scores = difference(before, now), classes_changed(before, now), held_out_changed(before, now)
    if classes:
        raise ValueError(f"{saved}: the data changed: {what}; a network has an output for each class: train a new one")
    if not allowed:
        raise ValueError(f"{saved}: the data changed: {what}; --data-changed goes on with the images that are there now")
    print(f"the data changed: {what}")
    return scores


def carry_on(trainer: Trainer) -> int:
    """Train, score, draw."""
    folder = trainer.folder
    print(f"run folder: {folder}", flush=True)
    with ExitStack() as stack:
        trainer.ranks.from_first(lambda: stack.enter_context(trainer.disk))
        try:
            score = trainer.train()
        except (NotFiniteError, DiskFullError) as error:
            print(f"train.py: stopped: {error}", file=sys.stderr)
            if isinstance(trainer.ranks, Ranks) and not trainer.ranks.agreed:
                stack.close()
                trainer.ranks.end_all(1)
            return 1
    if score is None:
        where = sys.stderr if pipe.reader_left() else sys.stdout
        print(f"saved {trainer.last_checkpoint}; {trainer.command_to_go_on()}", file=where, flush=True)
        if trainer.stop is not None:
            return trainer.stop
        return STOPPED_BY_SIGNAL + trainer.signals.received if trainer.signals.received else pipe.LEFT
    if trainer.left_out:
        print(f"{trainer.left_out} times an unreadable image was left out of training")
    if trainer.autopsy is not None and trainer.autopsy.healthy:
        print("autopsy: no illness was found in the steps that were looked at")
    print(f"held out: {score}")
    print(f"the best checkpoint is {trainer.best and run.checkpoint_path(folder, trainer.best['step'])}")
    return draw(trainer.model, folder) if trainer.ranks.first else 0


def draw(model: AlexNet | FileNet, folder: Path) -> int:
    """curves.png and conv1.png. A full disk is no error of the training's."""
    try:
        missing = run.draw_curves(folder)
        if filters := model.first_filters():
            run.draw_filters(folder, filters)
    except OSError as error:
        if not guards.disk_full(error):
            raise
        print(f"train.py: the run is complete, its pictures are not drawn: {error}", file=sys.stderr)
        return 1
    more = "".join(f"{name}, " for name in (AUTOPSY, f"{TENSORBOARD}/") if (folder / name).exists())
    conv1 = "conv1.png, " if filters else ""
    if len(filters) > 1:
        print("conv1.png: the first filters, a block of rows a tower; one may lead by chance")
    files = f"{folder}: log.jsonl, {more}checkpoints/, best.json, {conv1}" + (missing or "curves.png")
    print(wrapped(files, terminal_width()))
    return 0


def check_grads(model: AlexNet | FileNet) -> int:
    """A row for each op's inputs and parameters, on an image of random pixels. 1 if a backward is wrong, else 0."""
    size = model.profile.image_size
    image = random.Generator(0).normal((1, 3, size, size), np.float32) * 50
    longest = max((len(name) for name, _ in model.named_modules()), default=0)
    layer = min(max(longest, len(type(model).__name__)), LONG_NAME)
    print(f"{'layer':{layer}}  gradient  {'op':19}  rel. error  directions  note")
    wrong, notes = 0, dict[str, int]()
    for badge in layer_checks(model, image):
        error = "-" if badge.relative_error is None else f"{badge.relative_error:.1e}"
        note = f"{'FAILED ' * badge.failed}({notes.setdefault(badge.note, len(notes) + 1)})" if badge.note else ""
        row = f"{badge.layer:{layer}}  {badge.leaf:8}  {badge.op:19}  {error:>10}  {badge.directions:10}  {note}"
        print(row.rstrip(), flush=True)
        wrong += badge.failed
    print("Relative errors: of backward against numeric slopes along random directions, in\nfloat64.")
    for note, number in notes.items():
        print(wrapped(f"({number}) {note}", terminal_width()))
    print(f"{wrong} gradients disagree with their forward" if wrong else "every backward agrees with its forward")
    return 1 if wrong else 0


def dry_run(args: argparse.Namespace, model: AlexNet | FileNet, datasets: tuple[Any, Any]) -> int:
    """One step on one batch, as training would, and nothing written."""
    train_set, _ = datasets
    statistics = starting_statistics(args, train_set, model.profile.stored_size)
    loader = train_loader(
        train_set,
        model.profile,
        statistics,
        batch_size=args.batch_size,
        workers=0,
        seed=args.seed,
        on_error=args.on_error,
        devices=[tower.device for tower in model.towers],
    )
    images, labels = next(iter(loader.epoch_batches(0)))
    started = time.monotonic()
    loss = model.loss(model(images), labels)
    loss.backward()
    seconds = time.monotonic() - started
    steps = args.steps or args.epochs * len(loader)
    said = (
        f"one step: loss {loss.item():.4f} (ln {len(train_set.classes)} is {math.log(len(train_set.classes)):.4f}), "
        f"{len(labels) / seconds:.1f} images/s; {steps} steps would take about {clock(steps * seconds)}"
    )
    print(wrapped(said, terminal_width()))
    print("dry run: nothing was written")
    return 0


if __name__ == "__main__":
    sys.exit(pipe.until_the_reader_leaves(main))
