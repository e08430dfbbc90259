"""Train AlexNet as it was trained in 2012, split over two devices.

python examples/alexnet/train.py                             the embedded patterns, on two logical CPU devices
python examples/alexnet/train.py DIR                         DIR/train/<class>/*, DIR/val/<class>/* (or test)
python examples/alexnet/train.py DIR --device cuda:0,cuda:1  on GPUs
python examples/alexnet/train.py --resume runs/alexnet       continue where a run stopped
"""

import argparse
import math
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import run
from check_grads import check_layers
from data import load_statistics, measure, open_data, save_statistics, test_loader, train_loader
from evaluate import Score, evaluate
from model import PROFILES, VARIANTS, AlexNet

import minidl
import minidl.nn.functional as F
from minidl import Tensor, no_grad, random
from minidl.checkpoint import Checkpoint, CheckpointError, keep_last, load_checkpoint, save_checkpoint
from minidl.optim import SGD
from minidl.optim.schedules import MultiStepLR

# What differs between a run on a user's images (the paper's values) and the quick one on the embedded patterns.
DEFAULTS = {"width": 1.0, "batch_size": 128, "epochs": 90, "lr": 0.01, "lr_drops": None}
EMBEDDED = {"width": 0.25, "batch_size": 16, "epochs": 1, "lr": 0.003, "lr_drops": [0.6, 0.85]}
KEPT_CHECKPOINTS = 3
INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


class NotFiniteError(ArithmeticError):
    """The loss is NaN or infinite; the text says where that came from."""


# -------------------------------------------------------------------------------------------------------------- training


class Trainer:
    """One run: the network, its data and optimiser, and the run folder."""

    def __init__(self, args: argparse.Namespace, folder: Path, model: AlexNet, datasets: tuple[Any, Any]) -> None:
        self.args, self.folder, self.model = args, folder, model
        self.train_set, self.held_out = datasets
        self.statistics = load_statistics(folder / run.STATISTICS)
        self.optimizer = SGD(model.parameter_groups(args.lr, args.wd), lr=args.lr, momentum=args.momentum, rule="2012")
        self.step = 0
        self.steps_an_epoch = math.ceil(len(self.train_set) / args.batch_size)
        self.last_step = args.steps or args.epochs * self.steps_an_epoch
        self.noise_steps = round(model.profile.noise_until * self.last_step)
        self.meter = Meter(self.step, self.last_step)
        self.last_checkpoint: Path | None = None
        self.interrupted = False

    def restore(self, path: Path, saved: Checkpoint) -> None:
        """Continue from a checkpoint: weights, momentum, random numbers and the place in the data."""
        check_architecture(path, saved.state["architecture"], architecture(self.args, self.train_set))
        if saved.state["classes"] != self.train_set.classes:
            raise ValueError(f"{path}: was trained on the classes {saved.state['classes']}, got {self.train_set.classes}")
        self.model.load_state_dict(saved.model_state)
        if saved.optimizer_state is None:
            raise CheckpointError(f"{path}: has no optimiser state, so training can't continue from it")
        self.optimizer.load_state_dict(saved.optimizer_state)
        random.default_generator.set_state(saved.state["random"])
        self.step = saved.state["step"]
        self.meter = Meter(self.step, self.last_step, saved.state["meter"])
        self.last_checkpoint = path

    def train(self) -> None:
        """From the present step to the last, with a checkpoint every so often, after Ctrl-C and at the end."""
        self.log = run.Log(self.folder, self.step)
        self.schedule = self._schedule()
        self.model.train()
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            with Progress(self.step, self.last_step) as progress:
                while self.step < self.last_step and not self.interrupted:
                    epochs, rest = divmod(self.step, self.steps_an_epoch)
                    if epochs and not rest and not self.log.has_score(self.step):
                        progress.write(f"epoch {epochs}  held out: {self.score_and_log()}")
                    self._train_epoch(progress)
        finally:
            signal.signal(signal.SIGINT, before)
        self.save()

    def _interrupt(self, *_: object) -> None:
        """Ctrl-C: finish the step, then save. A second one ends the program at once."""
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _schedule(self) -> MultiStepLR:
        """The rate is divided by 10 at fractions of the run; replayed up to the present step."""
        wanted = self.model.parameter_groups(self.args.lr, self.args.wd)  # a resumed run may have been given another rate
        for group, fresh in zip(self.optimizer.param_groups, wanted, strict=True):
            group.pop("initial_lr", None)
            group.update(lr=fresh["lr"], weight_decay=fresh["weight_decay"], momentum=self.args.momentum)
        fractions = self.args.lr_drops or self.model.profile.rate_drops
        drops = [round(f * self.last_step) for f in fractions]
        schedule = MultiStepLR(self.optimizer, drops, gamma=0.1)
        for _ in range(self.step):
            schedule.step()
        return schedule

    def _train_epoch(self, progress: "Progress") -> None:
        epoch, first = divmod(self.step, self.steps_an_epoch)
        loader = train_loader(
            self.train_set,
            self.model.profile,
            self.statistics,
            noise=self.step < self.noise_steps,
            batch_size=self.args.batch_size,
            workers=self.args.workers,
            seed=self.args.seed,
            on_error=self.args.on_error,
        )
        for images, labels in loader.epoch_batches(epoch, first):
            self.train_step(images, labels)
            progress.update(self.meter)
            if self.step % self.args.print_freq == 0 or self.step == self.last_step:
                self._report(epoch, progress)
            if self.step % self.args.save_every == 0 and self.step < self.last_step:
                self.save()
            if self.step in (self.noise_steps, self.last_step) or self.interrupted:
                break
        else:
            self._count_left_out((epoch + 1) * self.steps_an_epoch)
        run.report_skipped(loader)

    def _count_left_out(self, epoch_end: int) -> None:
        """A batch that lost all its images was left out; it counts as a step, or the epoch would never end."""
        while self.step < min(epoch_end, self.last_step):
            self.schedule.step()
            self.step += 1

    def train_step(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Forward, backward, update. NotFiniteError, before anything is updated, if the loss is not finite."""
        scores = self.model(images)
        loss = F.cross_entropy(scores, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise NotFiniteError(self._diagnosis(value, images))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.lr = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        self.step += 1
        self.meter.add(value, int((scores.detach().numpy().argmax(axis=1) == labels).sum()), len(labels))

    def _diagnosis(self, loss: float, images: np.ndarray) -> str:
        """Where a loss that is not finite came from."""
        where = first_not_finite(self.model, images)
        kept = f"the last checkpoint is {self.last_checkpoint}" if self.last_checkpoint else "no checkpoint was saved yet"
        return f"step {self.step + 1}: the loss is {loss}; {where}; {kept}; a lower --lr than {self.args.lr} may help"

    def _report(self, epoch: int, progress: "Progress") -> None:
        row = self.meter.take()
        self.log.write(step=self.step, epoch=epoch, lr=self.lr, **row)
        progress.write(
            f"step {self.step}/{self.last_step}  epoch {epoch + 1}  loss {row['loss']:.4f}  top-1 {row['top1']:.1%}  "
            f"{row['images_per_second']:.1f} images/s  {clock(self.meter.seconds_left(self.step))} left"
        )

    def score(self) -> Score:
        """The held-out set's centre views, in evaluation mode."""
        self.model.eval()
        loader = test_loader(
            self.held_out,
            self.model.profile,
            self.statistics,
            batch_size=min(self.args.batch_size, 64),
            workers=self.args.workers,
            on_error=self.args.on_error,
        )
        score = evaluate(self.model, run.with_progress(loader.epoch_batches(0), len(loader)))
        run.report_skipped(loader)
        self.model.train()
        return score

    def score_and_log(self) -> Score:
        """The score, as a row of the log; an earlier one of this step goes. Its time does not count as training's."""
        started = time.monotonic()
        score = self.score()
        self.log.drop_scores(self.step)
        self.log.write(step=self.step, held_out_loss=score.loss, held_out_top1=score.top1, held_out_top5=score.top5)
        self.meter.leave_out(time.monotonic() - started)
        return score

    def save(self) -> None:
        """A checkpoint of this step; the oldest ones beyond the last three go."""
        checkpoints = self.folder / run.CHECKPOINTS
        path = checkpoints / f"step-{self.step:06d}"
        if path != self.last_checkpoint:
            save_checkpoint(
                path,
                self.model.state_dict(),
                self.optimizer.state_dict(),
                step=self.step,
                random=random.default_generator.state(),
                meter=self.meter.sums,
                architecture=architecture(self.args, self.train_set),
                classes=self.train_set.classes,
                arguments=vars(self.args),
                versions=run.versions(),
            )
            keep_last(checkpoints, KEPT_CHECKPOINTS)
        self.last_checkpoint = path


def first_not_finite(model: AlexNet, images: np.ndarray) -> str:
    """The first thing that is not finite: the images, a parameter, or a layer's output."""
    if not np.isfinite(images).all():
        return f"the images have {int((~np.isfinite(images)).sum())} elements that are not finite"
    for name, p in model.named_parameters():
        if not np.isfinite(p.device.to_host(p.data)).all():
            return f"{name} is not finite any more"
    found: list[str] = []

    def look(name: str, output: Tensor) -> None:
        if not found and not np.isfinite(output.device.to_host(output.data)).all():
            found.append(f"{name} was the first layer to give something that is not finite")

    handles = [
        m.register_forward_hook(lambda m, inputs, output, name=name: look(name, output))
        for name, m in model.named_modules()
        if not list(m.children())
    ]
    with no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found[0] if found else "every layer's output is finite, the scores are too far apart"


class Meter:
    """Loss, accuracy and speed since the last report."""

    def __init__(self, step: int, last_step: int, sums: dict[str, float] | None = None) -> None:
        self.first_step, self.last_step = step, last_step
        self.started = self.since = time.monotonic()
        self.sums = sums or {"loss": 0.0, "right": 0.0, "images": 0.0}  # what a checkpoint keeps
        self.images_here = 0.0  # since the last report, in this process
        self.loss = math.nan

    def add(self, loss: float, right: int, images: int) -> None:
        self.loss = loss
        self.sums["loss"] += loss * images
        self.sums["right"] += right
        self.sums["images"] += images
        self.images_here += images

    def now(self) -> str:
        """The last step's loss, and accuracy and speed since the last report."""
        speed = self.images_here / (time.monotonic() - self.since)
        return f"loss {self.loss:.4f}, top-1 {self.sums['right'] / max(self.sums['images'], 1):.1%}, {speed:.1f} images/s"

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        now = time.monotonic()
        row = {
            "loss": self.sums["loss"] / self.sums["images"],
            "top1": self.sums["right"] / self.sums["images"],
            "images_per_second": self.images_here / (now - self.since),
            "seconds": now - self.started,
        }
        self.sums = dict.fromkeys(self.sums, 0.0)
        self.images_here = 0.0
        self.since = now
        return row

    def leave_out(self, seconds: float) -> None:
        """Time that was spent on something else."""
        self.started += seconds
        self.since += seconds

    def seconds_left(self, step: int) -> float:
        """At the mean speed of this run."""
        return (time.monotonic() - self.started) / (step - self.first_step) * (self.last_step - step)


class Progress:
    """A bar on a terminal; elsewhere only the lines."""

    def __init__(self, step: int, last_step: int) -> None:
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(initial=step, total=last_step, unit="step", dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, meter: Meter) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(meter.now(), refresh=False)
            self.bar.update()

    def write(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


# ----------------------------------------------------------------------------------------------------------- what to run


def architecture(args: argparse.Namespace, dataset: Any) -> dict[str, Any]:
    """What a checkpoint's weights fit: AlexNet's arguments without the devices."""
    return {
        "num_classes": len(dataset.classes),
        "profile": args.profile,
        "width": args.width,
        "variant": args.variant,
        "literal_init": args.literal_init,
    }


def check_architecture(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ValueError names what differs."""
    differ = [f"{name} {saved.get(name)!r} (here {value!r})" for name, value in wanted.items() if saved.get(name) != value]
    if differ:
        raise ValueError(f"{path}: is a checkpoint of another architecture: {', '.join(differ)}")


def build(args: argparse.Namespace, dataset: Any) -> AlexNet:
    minidl.set_float32_matmul_precision("high" if args.tf32 else "highest")
    return AlexNet(**architecture(args, dataset), devices=run.device_names(args.device))


def header(args: argparse.Namespace, model: AlexNet, datasets: tuple[Any, Any]) -> str:
    """What is about to be trained, on what, with what."""
    train_set, held_out = datasets
    parameters = sum(p.numel() for p in model.parameters())
    if args.data is None:
        data = f"the embedded patterns: {len(train_set)} drawn images of {len(train_set.classes)} classes"
    else:
        data = f"{args.data}: {len(train_set)} images of {len(train_set.classes)} classes"
    narrow = "" if args.width == 1 else f" at width {args.width:g} of the paper's (--width 1 trains the full net)"
    about = run.versions()
    return (
        f"AlexNet{narrow}, profile {args.profile}, variant {args.variant}, {parameters:,} parameters\n"
        f"on {' and '.join(dict.fromkeys(str(tower.device) for tower in model.towers))}; float32"
        f"{', products in TF32' if args.tf32 and 'cuda' in args.device else ''}; "
        f"NumPy {about['numpy']}, {about['blas']}\n"
        f"data: {data}, {len(held_out)} held out\n"
        f"batch {args.batch_size}, rate {args.lr:g} (biases {2 * args.lr:g}), momentum {args.momentum:g}, "
        f"decay {args.wd:g}, seed {args.seed}"
    )


def parser_() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "data", nargs="?", help="folder with train/<class>/* and val/<class>/* or test/<class>/*; default: embedded patterns"
    )
    p.add_argument("--device", help="one device or two with a comma: cpu:0,cpu:1 (default), cuda:0, cuda:0,cuda:1")
    p.add_argument("--epochs", type=run.at_least_one, help="default 90; 1 on the embedded patterns")
    p.add_argument("--steps", type=run.at_least_one, help="stop after so many steps, instead of --epochs")
    p.add_argument("-b", "--batch-size", type=run.at_least_one, help="default 128; 16 on the embedded patterns")
    p.add_argument(
        "--lr",
        type=run.positive,
        help="learning rate of weights, default 0.01, 0.003 on the embedded patterns; biases have twice as much",
    )
    p.add_argument(
        "--lr-drops",
        type=run.fractions,
        metavar="F,F,...",
        help="the rate is divided by 10 after these fractions of the run, default the profile's (paper: .25,.55,.85)",
    )
    p.add_argument("--momentum", type=run.not_negative, help="default 0.9")
    p.add_argument("--wd", "--weight-decay", type=run.not_negative, help="of weights, default 0.0005; biases have none")
    p.add_argument("-j", "--workers", type=run.at_least_zero, help="threads that make batches, default 2")
    p.add_argument("--profile", choices=sorted(PROFILES), help="default paper; docs/alexnet.md has the differences")
    p.add_argument("--variant", choices=sorted(VARIANTS), help="default two_towers")
    p.add_argument("--literal-init", action="store_true", default=None, help="sigma .01 in every layer, as the paper prints")
    p.add_argument(
        "--tf32", action="store_true", default=None, help="on a GPU, multiply float32 in TF32: faster, 10 bits of the fraction"
    )
    p.add_argument("--width", type=run.positive, help="scale of every hidden layer, default 1; 0.25 on the embedded patterns")
    p.add_argument("--seed", type=run.at_least_zero, help="default 0")
    p.add_argument("-p", "--print-freq", type=run.at_least_one, help="steps between reports, default 10")
    p.add_argument("--save-every", type=run.at_least_one, help="steps between checkpoints, default 200")
    p.add_argument("--on-error", choices=("stop", "skip"), help="what an unreadable image does, default stop")
    p.add_argument("--out", help="run folder, default runs/alexnet-<date>-<time>")
    p.add_argument("--resume", metavar="RUN", help="a run folder or a checkpoint in it: continue, with its arguments")
    p.add_argument("-e", "--evaluate", action="store_true", help="with --resume: score the held-out images, train nothing")
    p.add_argument("--check-grads", action="store_true", help="check every layer's backward numerically, train nothing")
    p.add_argument("--dry-run", action="store_true", help="say what would run, try one step, write nothing")
    return p


COMMON = {
    "device": "cpu:0,cpu:1",
    "steps": None,
    "momentum": 0.9,
    "wd": 0.0005,
    "workers": 2,
    "profile": "paper",
    "variant": "two_towers",
    "literal_init": False,
    "tf32": False,
    "seed": 0,
    "print_freq": 10,
    "save_every": 200,
    "on_error": "stop",
}
MODES = ("resume", "evaluate", "check_grads", "dry_run", "out")  # not part of what a run is


def complete(given: argparse.Namespace, saved: dict[str, Any] | None) -> argparse.Namespace:
    """Arguments that were given, else those of the run that is resumed, else defaults."""
    explicit = {name: value for name, value in vars(given).items() if name not in MODES and value is not None}
    if "epochs" in explicit:
        explicit.setdefault("steps", None)
    data = explicit.get("data", (saved or {}).get("data"))
    chosen = {"data": data, **(EMBEDDED if data is None else DEFAULTS), **COMMON, **(saved or {}), **explicit}
    return argparse.Namespace(**chosen)


def main(arguments: list[str] | None = None) -> int:
    parser = parser_()
    given = parser.parse_args(arguments)
    if given.evaluate and given.resume is None:
        parser.error("--evaluate needs --resume RUN: which checkpoint?")
    if given.resume is not None and given.out is not None:
        parser.error("--out can't be given with --resume: a run goes on in its own folder")
    if given.resume is not None and (given.check_grads or given.dry_run):
        parser.error("--check-grads and --dry-run can't be given with --resume: they train nothing")
    warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr, flush=True)
    with run.errors_in_one_line(parser, sys.argv[1:] if arguments is None else arguments):
        if given.resume is None:
            return start(complete(given, None), given)
        folder, found = run.find_checkpoint(given.resume)
        return resume(complete(given, run.arguments_of(folder)), given, folder, found)


def start(args: argparse.Namespace, given: argparse.Namespace) -> int:
    """A run from the beginning."""
    minidl.manual_seed(args.seed)
    devices = run.device_names(args.device)
    for name in devices:
        minidl.Device(name)  # a missing GPU is said before anything slow happens
    folder = Path(given.out or time.strftime("runs/alexnet-%Y%m%d-%H%M%S"))
    datasets = open_data(args.data)
    if not (given.check_grads or given.dry_run):
        run.create(folder)
    model = build(args, datasets[0])
    print(header(args, model, datasets), flush=True)
    if given.check_grads:
        return check_grads(model)
    if given.dry_run:
        return dry_run(args, model, datasets)
    save_statistics(folder / run.STATISTICS, measure(datasets[0], args.on_error))
    run.write_json(folder / run.ARGUMENTS, {"arguments": vars(args), "versions": run.versions()})
    return carry_on(Trainer(args, folder, model, datasets))


def resume(args: argparse.Namespace, given: argparse.Namespace, folder: Path, found: Path | None) -> int:
    """Go on from a checkpoint, or from the beginning where a run was killed before its first."""
    minidl.manual_seed(args.seed)
    datasets = open_data(args.data)
    model = build(args, datasets[0])
    trainer = Trainer(args, folder, model, datasets)
    if found is not None:
        trainer.restore(found, load_checkpoint(found))
        print(f"resumed {found}, {trainer.step} of {trainer.last_step} steps done")
    elif given.evaluate:
        raise FileNotFoundError(f"{folder}: no checkpoint was saved yet")
    else:
        print(f"{folder} has no checkpoint yet: it starts from the beginning")
    print(header(args, model, datasets), flush=True)
    if given.evaluate:
        print(f"held out: {trainer.score()}")
        return 0
    return carry_on(trainer)


def carry_on(trainer: Trainer) -> int:
    """Train, score, draw."""
    folder = trainer.folder
    print(f"run folder: {folder}", flush=True)
    try:
        trainer.train()
    except NotFiniteError as error:
        print(f"train.py: stopped: {error}", file=sys.stderr)
        return 1
    if trainer.interrupted:
        print(f"saved {trainer.last_checkpoint}; continue with: python {sys.argv[0]} --resume {folder}", flush=True)
        return INTERRUPTED
    score = trainer.score_and_log()
    missing = run.draw_curves(folder)
    run.draw_filters(folder, [tower.device.to_host(tower.conv1.weight.data) for tower in trainer.model.towers])
    print(f"held out: {score}")
    print(f"{folder}: log.jsonl, checkpoints/, conv1.png, " + (missing or "curves.png"))
    return 0


def check_grads(model: AlexNet) -> int:
    """A row for each layer's input and parameters."""
    print(f"{'layer':16}{'gradient of':14}{'relative error':>16}   directions, float64")
    for name, row in check_layers(model.double()):
        print(f"{name:16}{row.name:14}{row.relative_error:16.1e}   {row.comparisons}", flush=True)
    print("every backward agrees with its forward")
    return 0


def dry_run(args: argparse.Namespace, model: AlexNet, datasets: tuple[Any, Any]) -> int:
    """One step on one batch, as training would, and nothing written."""
    train_set, _ = datasets
    statistics = measure(train_set, args.on_error)
    loader = train_loader(
        train_set,
        model.profile,
        statistics,
        batch_size=args.batch_size,
        workers=0,
        seed=args.seed,
        on_error=args.on_error,
    )
    images, labels = next(iter(loader.epoch_batches(0)))
    started = time.monotonic()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    seconds = time.monotonic() - started
    steps = args.steps or args.epochs * len(loader)
    print(
        f"one step: loss {loss.item():.4f} (ln {len(train_set.classes)} is {math.log(len(train_set.classes)):.4f}), "
        f"{len(labels) / seconds:.1f} images/s; {steps} steps would take about {clock(steps * seconds)}"
    )
    print("dry run: nothing was written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
