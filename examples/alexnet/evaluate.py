"""How good is a trained network? Top-1 and top-5 on held-out images, from ten
views of each as in the paper.

python examples/alexnet/evaluate.py RUN         the newest checkpoint, on the
                                                data it was trained on
python examples/alexnet/evaluate.py RUN --best  the best one on the held-out
                                                images
python examples/alexnet/evaluate.py RUN DIR --views 1
                                                other images, the centre view

Ten views are the four corners and the centre, each with its mirror image; the
softmax outputs are averaged (section 4.1).
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import checkout  # noqa: F401  before minidl
import numpy as np
import run
from data import load_statistics, open_data, other_classes, test_loader
from files import FileNet, open_network

import minidl.nn.functional as F
from minidl import Tensor, no_grad
from minidl.pipe import until_the_reader_leaves


@dataclass(frozen=True)
class Score:
    """Of so many images: mean of -ln p(label), fraction whose label came first, and among the first five of the classes."""

    images: int
    loss: float
    top1: float
    top5: float
    classes: int

    def __str__(self) -> str:
        """Without top-5 where it can only be 100 %."""
        top5 = f", top-5 {self.top5:.2%}" if self.classes > 5 else ""
        return f"loss {self.loss:.4f}, top-1 {self.top1:.2%}{top5} of {self.images} images"


def evaluate(model: Callable[[np.ndarray], Tensor], batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Score:
    """Score a model on batches of images (N, C, H, W), or of views (N, V, C, H, W) whose softmax outputs are averaged.

    The model is called as it is: put it in eval mode. ValueError without a single image.
    """
    return score_of(*totals(model, batches))


@no_grad()
def totals(model: Callable[[np.ndarray], Tensor], batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, int]:
    """What a score is made of: sums over the images, (images, -ln p, label first, label among the first five), and how many
    classes there are. They are added up over ranks."""
    total, classes = np.zeros(4), 0
    for images, labels in batches:
        p = mean_probabilities(model, images)
        classes = p.shape[1]
        at_label = p[np.arange(len(labels)), labels]
        better = (p > at_label[:, None]).sum(axis=1)
        tied_before = ((p == at_label[:, None]) & (np.arange(p.shape[1]) < labels[:, None])).sum(axis=1)
        rank = better + tied_before  # of equal scores the first counts as larger, as for argmax
        with np.errstate(divide="ignore"):
            total += len(labels), -np.log(at_label).sum(), (rank < 1).sum(), (rank < 5).sum()
    return total, classes


def score_of(total: np.ndarray, classes: int) -> Score:
    """The score of these sums. ValueError without a single image."""
    if not total[0]:
        raise ValueError("evaluate: at least 1 image is needed, got 0")
    loss, top1, top5 = (total[1:] / total[0]).tolist()
    return Score(int(total[0]), loss, top1, top5, classes)


def mean_probabilities(model: Callable[[np.ndarray], Tensor], images: np.ndarray) -> np.ndarray:
    """softmax(model(images)), averaged over the views of each image: (N, classes), float64."""
    views = images.shape[1] if images.ndim == 5 else 1
    if images.ndim == 5:
        n, v, c, h, w = images.shape
        images = images.transpose(0, 1, 3, 4, 2).reshape(n * v, h, w, c).transpose(0, 3, 1, 2)
    p = F.softmax(model(images), 1).numpy().astype(np.float64)
    return p.reshape(-1, views, p.shape[1]).mean(axis=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a run folder, or a checkpoint in it")
    parser.add_argument("data", nargs="?", help="folder with val/ or test/ (and train/), default the data it was trained on")
    parser.add_argument(
        "--best", action="store_true", help="score the checkpoint that was best on the held-out images, not the newest"
    )
    parser.add_argument("--views", type=int, choices=(1, 10), default=10, help="views of each image, default 10")
    parser.add_argument(
        "--device", default=None, help="one device, or two with a comma between, default those it was trained on"
    )
    parser.add_argument(
        "-b", "--batch-size", type=run.at_least_one, metavar="N", default=32, help="images at a time, default 32"
    )
    parser.add_argument(
        "-j", "--workers", type=run.at_least_zero, metavar="N", default=2, help="threads that read images, default 2"
    )
    parser.add_argument(
        "--on-error", choices=("stop", "skip"), default="stop", help="at an unreadable image: stop (default), or skip it"
    )
    args = parser.parse_args(arguments)
    run.warnings_in_one_line()
    with run.errors_in_one_line(parser, sys.argv[1:] if arguments is None else arguments):
        folder = run.find_run(args.checkpoint)
        found = run.best_checkpoint(folder) if args.best else run.find_checkpoint(args.checkpoint)
        if found is None:
            raise FileNotFoundError(f"{folder}: no checkpoint was saved yet")
        saved = run.read_checkpoint(found, "evaluate.py {} scores that")
        settings = saved.state["arguments"]
        files = folder / settings["files"] if settings.get("layers") else None
        model = open_network(saved.state["architecture"], files, run.device_names(args.device or settings["device"]))
        model.load_state_dict(saved.model_state)
        if isinstance(model, FileNet):
            model.net.set_epoch(saved.state["epoch"])
        model.eval()
        data = args.data or run.find_data(folder, f"if it moved: evaluate.py {args.checkpoint} NEW_DIR")
        _, held_out = open_data(data, settings.get("hold_out"), model.profile.stored_size)
        if held_out.classes != saved.state["classes"]:
            raise ValueError(f"{found}: {other_classes(saved.state['classes'], held_out.classes)}")
        loader = test_loader(
            held_out,
            model.profile,
            load_statistics(folder / run.STATISTICS),
            ten_views=args.views == 10,
            batch_size=args.batch_size,
            workers=args.workers,
            on_error=args.on_error,
        )
        print(f"{found}, {args.views} view{'s' * (args.views > 1)}:", flush=True)
        print(evaluate(model, run.with_progress(loader.epoch_batches(0), len(loader))))
        run.report_skipped(loader)
    return 0


if __name__ == "__main__":
    sys.exit(until_the_reader_leaves(main))
