"""Study a network from the command line.

python -m minidl.study summary                        AlexNet, a row a layer
python -m minidl.study summary net.py:make --input 1x3x32x32
                                        any network: make() returns a module
python -m minidl.study summary --ranks 8,64 --bandwidth 12.5 \\
    --input 128x3x224x224               how fast 8 or 64 processes would be
python -m minidl.study ledger --input 8x3x224x224
                                        every op of a training step, and memory
python -m minidl.study graph --out alexnet.svg
                                        the network as a picture
python -m minidl.study explore --out look
                                        one step as a page, in a browser
python -m minidl.study why "conv2.weight[5,3,2,2]" --gradient
                                        the terms that add up to one number
python -m minidl.study laboratory --out lab
                                        each layer on numbers you can change
python -m minidl.study mutations        classic mistakes in a backward pass
python -m minidl.study grade FILE...    a student's backward, graded
python -m minidl.study log RUN --csv    a training run's log as a table

Tables are as wide as the terminal; --wide shows all their columns.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minidl.nn.functional as F
from minidl import random
from minidl.data import Patterns, Resize, SampleKey, SubtractMean, read_image
from minidl.layout import center
from minidl.nn import Module
from minidl.pipe import until_the_reader_leaves
from minidl.study.explorer.explore import explore, prepare_folder
from minidl.study.explorer.steps import steps_page
from minidl.study.gallery.grade import grade
from minidl.study.gallery.mutation_checks import updated
from minidl.study.gallery.mutations import listing
from minidl.study.laboratory import pages
from minidl.study.log import as_csv, as_text
from minidl.study.models import ALEXNET, ALEXNET_FILE, load_model, module_from, random_batch
from minidl.study.step.graph import FORMATS, graph
from minidl.study.step.ledger import Ledger
from minidl.study.step.scaling import LATENCY, scaling
from minidl.study.step.summary import summary
from minidl.study.step.table import terminal_width, wrapped
from minidl.study.step.why import SHOWN, Step, recorded_step

DEFAULT_INPUT = (1, 3, 224, 224)
MEAN_COLOUR = (123.675, 116.28, 103.53)  # of ImageNet's pixels: torchvision's (0.485, 0.456, 0.406) on the scale 0 to 255
LAST = "last"
PATTERN = 3  # which of the embedded images: a checkered square


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minidl.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summarise = commands.add_parser("summary", help="a row a layer: shapes, parameters, multiply-adds, bytes")
    summarise.add_argument("--format", choices=("text", "markdown", "json"), default="text", help="of the table, default text")
    summarise.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    summarise.add_argument(
        "--ranks",
        type=step_numbers,
        metavar="N,N,...",
        help="predict the speed of so many processes (ranks) instead, from one step that is measured here; --input is the "
        "batch of one rank",
    )
    summarise.add_argument(
        "--bandwidth", type=float, metavar="GB/s", help="with --ranks: how fast a rank can send, in 10^9 bytes a second"
    )
    summarise.add_argument(
        "--latency",
        type=float,
        default=LATENCY * 1e6,
        metavar="US",
        help="with --ranks: how long a message takes however short it is, in microseconds, default 20",
    )
    account = commands.add_parser(
        "ledger", help="every op of a training step: its times, what it keeps for backward, and which arrays fill the memory"
    )
    draw = commands.add_parser(
        "graph", help="the network as a picture: every op, what flows forward and backward, towers side by side"
    )
    draw.add_argument("--format", choices=FORMATS, help="of the printed picture, default svg")
    draw.add_argument(
        "--out", type=Path, metavar="FILE", help="write this file instead; its name ends in .svg, .mmd (Mermaid) or .dot"
    )
    for command in (summarise, account, draw):
        command.add_argument(
            "model",
            nargs="?",
            default=ALEXNET,
            help="the network: alexnet (default), or file.py:function, which returns a module",
        )
        command.add_argument(
            "--input", type=batch_shape, default=DEFAULT_INPUT, metavar="NxCxHxW", help="the batch's shape, default 1x3x224x224"
        )
    _add_explore(commands)
    _add_why(commands)
    laboratory = commands.add_parser("laboratory", help="a page for each layer, on numbers that can be changed")
    laboratory.add_argument(
        "name",
        nargs="?",
        choices=pages.NAMES,
        metavar="NAME",
        help=f"the one page to write: {', '.join(pages.NAMES)}. Default: all",
    )
    laboratory.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that the pages are written into")
    log = commands.add_parser("log", help="the log of a run of examples/alexnet as a table")
    log.add_argument("run", metavar="RUN", help="a run folder, or 'last' for the newest one in runs/")
    log.add_argument(
        "--csv", action="store_true", help="values with commas between them and all their digits, for a spreadsheet"
    )
    gallery = commands.add_parser("mutations", help="classic mistakes in a backward pass, which can be switched on by name")
    gallery.add_argument(
        "--update", type=Path, metavar="FILE", help="write all computed parts of FILE, docs/mutations.md, again; needs PyTorch"
    )
    for command in (summarise, account, log, gallery):
        _add_wide(command)
    grading = commands.add_parser(
        "grade",
        help="a student's backward",
        description="Grade files of examples/assignments. It runs them: read first what you got.",
    )
    grading.add_argument("files", nargs="+", type=Path, metavar="FILE", help="an assignment with its backward written")
    args = parser.parse_args(arguments)
    try:
        if args.command == "grade":
            grades = [grade(path) for path in args.files]
            print("\n".join(each.text for each in grades))
            return 0 if all(each.right for each in grades) else 1
        commands_by_name = {
            "summary": _summary,
            "ledger": _ledger,
            "graph": _graph,
            "explore": _explore,
            "why": _why,
            "laboratory": _laboratory,
            "mutations": _mutations,
            "log": _log,
        }
        print(commands_by_name[args.command](args))
    except (ValueError, TypeError, IndexError, RuntimeError, OSError, ImportError) as error:
        parser.exit(2, f"minidl.study: error: {error}\n")
    return 0


def batch_shape(text: str) -> tuple[int, ...]:
    """ "1x3x224x224" -> (1, 3, 224, 224)."""
    try:
        shape = tuple(int(part) for part in text.split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"must be sizes of at least 1 with an x between, as 1x3x224x224, got {text!r}")
    return shape


def step_numbers(text: str) -> list[int]:
    """ "0,50,500" -> [0, 50, 500]."""
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if not steps or min(steps) < 0:
        raise argparse.ArgumentTypeError(f"must be steps with commas between, as 0,50,500, got {text!r}")
    return steps


def _summary(args: argparse.Namespace) -> str:
    if (args.ranks is None) != (args.bandwidth is None):
        raise ValueError("summary: --ranks and --bandwidth go together: how many, and how fast do they send?")
    if args.ranks is not None:
        found = scaling(load_model(args.model), args.input, args.ranks, args.bandwidth * 1e9, args.latency * 1e-6)
        return found.text(_width(args))
    result = summary(load_model(args.model), args.input)
    return {"text": lambda: result.text(_width(args)), "markdown": result.markdown, "json": result.json}[args.format]()


def _ledger(args: argparse.Namespace) -> str:
    """Of the second of two steps on random images: the first prepares memory that later ones use again."""
    model = load_model(args.model)
    images = random_batch(model, args.input)
    for _ in range(2):
        model.zero_grad()
        with Ledger() as ledger:
            scores = model(images)
            labels = np.arange(args.input[0]) % scores.shape[1]
            F.cross_entropy(scores, labels).backward()
    return ledger.text(_width(args))


def _graph(args: argparse.Namespace) -> str:
    if args.out is not None and args.format is not None:
        raise ValueError(f"graph: --format is for what is printed; {args.out} has the form that its name says")
    model = load_model(args.model)
    seen = graph(model, random_batch(model, args.input))
    if args.out is None:
        return seen.text(args.format or "svg")
    seen.save(args.out)
    return f"{args.out}: {len(seen.nodes)} nodes, {len(seen.edges)} edges"


def _log(args: argparse.Namespace) -> str:
    run = module_from(ALEXNET_FILE.with_name("run.py"))
    folder = _last_run(ALEXNET) if args.run == LAST else args.run
    if folder is None:
        raise FileNotFoundError("log: there is no run with a checkpoint in runs/")
    where = run.find_run(folder)
    rows = run.read_log(where)
    if not rows:
        raise FileNotFoundError(f"log: {where} has no rows in {run.LOG} yet")
    return as_csv(rows) if args.csv else as_text(rows, _width(args))


def _laboratory(args: argparse.Namespace) -> str:
    first, *others = pages.write(args.out, args.name)
    return f"{first}{f' and {len(others)} pages' if others else ''}. Open it in a browser: {first.resolve().as_uri()}"


def _mutations(args: argparse.Namespace) -> str:
    if args.update is None:
        return listing(_width(args))
    args.update.write_text(updated(args.update.read_text()))
    return f"{args.update}: all that is computed was made anew"


# -------------------------------------------------------------------------------------------------------------- explore


def _add_explore(commands: Any) -> None:
    command = commands.add_parser(
        "explore", help="one step on one image as a page for a browser: every op, forward and backward"
    )
    command.add_argument(
        "model",
        nargs="?",
        default=argparse.SUPPRESS,
        help="the network: alexnet (default), or file.py:function, which returns a module",
    )
    _add_step(command)
    command.add_argument(
        "--steps",
        type=step_numbers,
        metavar="N,N,...",
        help="write steps.html too: checkpoints of --run at these steps, side by side",
    )
    command.add_argument(
        "--check-grads", action="store_true", help="also compare every backward with numeric slopes; takes minutes"
    )
    command.add_argument(
        "--full", action="store_true", help="put all arrays whole into the page: hundreds of megabytes for AlexNet"
    )
    command.add_argument("--out", required=True, metavar="DIR", help="folder that index.html is written into")


def _add_step(command: argparse.ArgumentParser) -> None:
    """What a step is of: the model, its weights, the image and its class."""
    command.add_argument(
        "--model",
        dest="model",
        default=ALEXNET,
        help="the network: alexnet (default), or file.py:function, which returns a module",
    )
    command.add_argument(
        "--run",
        metavar="DIR",
        help="take the trained network of this run folder of examples/alexnet; 'last' is the newest one in runs/",
    )
    command.add_argument(
        "--input",
        type=batch_shape,
        default=DEFAULT_INPUT,
        metavar="1xCxHxW",
        help="the shape of the model's input with one image, default 1x3x224x224",
    )
    command.add_argument("--image", metavar="FILE", help="the picture to use, default one of the embedded patterns")
    command.add_argument(
        "--label",
        type=int,
        metavar="K",
        help="number of the image's class, for the loss; default the class with the highest score",
    )


def _explore(args: argparse.Namespace) -> str:
    folder = prepare_folder(args.out)
    run = _last_run(args.model) if args.run == LAST else args.run
    if args.steps and run is None:
        raise ValueError(f"explore: --steps needs --run with a folder, got --run {args.run}")
    network, example, label = _step_of(args, run)
    page = explore(
        network.model,
        example.batch,
        label,
        pixels=example.pixels,
        classes=network.classes,
        notes=[network.note, example.note],
        check_grads=args.check_grads,
        full=args.full,
    )
    path = page.save(folder).resolve()
    told = f"{path}: {path.stat().st_size / 1e6:.1f} MB. {network.note} Open it in a browser: {path.as_uri()}"
    if run is None or not args.steps:
        return told
    compared = steps_page(_at_steps(run, args.steps), example.batch, label, notes=[example.note]).save(folder).resolve()
    return f"{told}\n{compared}: {compared.stat().st_size / 1e6:.1f} MB, steps side by side: {compared.as_uri()}"


def _step_of(args: argparse.Namespace, run: str | None) -> "tuple[_Network, _Example, int | None]":
    """The network, the image and its class, if that is known."""
    network = _network(args.model, run)
    example = _example(args.input, args.image, network.mean)
    known = args.label is None and example.name in network.classes
    return network, example, network.classes.index(example.name) if known else args.label


def _add_why(commands: Any) -> None:
    command = commands.add_parser("why", help="one number of a step: the terms that add up to it")
    asked = "the number's name, as conv2.weight[5,3,2,2]; without it all names are printed"
    command.add_argument("number", nargs="?", metavar="NUMBER", help=asked)
    command.add_argument("--gradient", action="store_true", help="explain the gradient of that number instead")
    many = f"how many terms to print, the largest first; default {SHOWN}, 0 prints all"
    command.add_argument("--terms", type=int, default=SHOWN, metavar="N", help=many)
    _add_step(command)
    _add_wide(command)


def _add_wide(command: argparse.ArgumentParser) -> None:
    command.add_argument("--wide", action="store_true", help="do not fit the text into the terminal: all columns, long lines")


def _width(args: argparse.Namespace) -> int | None:
    """Of what is printed; None: no bound."""
    return None if args.wide else terminal_width()


def _why(args: argparse.Namespace) -> str:
    if args.terms < 0:
        raise ValueError(f"why: --terms must be at least 0, got {args.terms}")
    network, example, label = _step_of(args, _last_run(args.model) if args.run == LAST else args.run)
    step = Step(recorded_step(network.model, example.batch, label))
    if args.number is None:
        return step.listing()
    answer = step.why(args.number, args.gradient)
    text = "\n".join([answer.text(args.terms or None), "", network.note, example.note])
    return wrapped(text, _width(args))


def _last_run(model: str) -> str | None:
    """The run in runs/ that began last and has a checkpoint; None if there is none, or another model is asked for."""
    run = module_from(ALEXNET_FILE.with_name("run.py"))
    folders = [path.parent for path in Path("runs").glob(f"*/{run.ARGUMENTS}")] if model == ALEXNET else []
    begun = sorted(folders, key=lambda folder: (folder / run.ARGUMENTS).stat().st_mtime)
    return next((str(folder) for folder in reversed(begun) if run.list_checkpoints(folder)), None)


def _at_steps(folder: str, steps: Sequence[int]) -> list[tuple[str, Module]]:
    """The network at each of these steps, which the run has checkpoints of; at step 0 as its seed made it."""
    run, model = (module_from(ALEXNET_FILE.with_name(f"{part}.py")) for part in ("run", "model"))
    where = run.find_run(folder)
    there = {int(path.name.removeprefix("step-")): path for path in run.list_checkpoints(where)}
    missing = [step for step in steps if step and step not in there]
    if missing or not there:
        found = ", ".join(map(str, [0, *there] if there else []))
        raise FileNotFoundError(f"explore: {where} has checkpoints of steps {found or '(none)'}, got --steps {steps}")
    networks = []
    for step in steps:
        saved = run.read_checkpoint(there[step] if step else next(iter(there.values())), "give {} instead")
        random.manual_seed(run.arguments_of(where).get("seed", 0))
        network = model.AlexNet(**saved.state["architecture"])
        if step:
            network.load_state_dict(saved.model_state)
        networks.append((f"step {step}", network))
    return networks


@dataclass(frozen=True)
class _Network:
    """What is explored. mean : (H, W, 3), or wider, what its images have subtracted; classes : their names, if known."""

    model: Module
    note: str
    mean: np.ndarray | None = None
    classes: Sequence[str] = ()


def _network(name: str, run_folder: str | None) -> _Network:
    if run_folder is None:
        return _Network(load_model(name), "The network has the weights that it starts with: nothing was trained.")
    if name != ALEXNET:
        raise ValueError(f"explore: a run has a model of its own, got --run {run_folder} and the model {name}")
    run, data, files = (module_from(ALEXNET_FILE.with_name(f"{part}.py")) for part in ("run", "data", "files"))
    folder = run.find_run(run_folder)
    best = (folder / run.BEST).is_file()
    found = run.best_checkpoint(folder) if best else run.find_checkpoint(run_folder)
    if found is None:
        raise FileNotFoundError(f"explore: {folder} has no checkpoint yet")
    saved = run.read_checkpoint(found, "give {} instead")
    copies = saved.state.get("arguments", {}).get("files")
    network = files.open_network(saved.state["architecture"], folder / copies if copies else None)
    network.load_state_dict(saved.model_state)
    note = f"The network was trained: {found}{', the best on its held-out images' if best else ''}."
    mean = data.mean_of(network.profile, data.load_statistics(folder / run.STATISTICS))
    return _Network(network, note, mean, saved.state["classes"])


@dataclass(frozen=True)
class _Example:
    """The image. batch : (1, C, H, W) float32; pixels : (H, W, 3) uint8, if it is a picture; name : its class's, if known."""

    batch: np.ndarray
    note: str
    pixels: np.ndarray | None = None
    name: str = ""


def _example(shape: tuple[int, ...], file: str | None, mean: np.ndarray | None) -> _Example:
    """An image of this shape: from a file, or a pattern; random numbers where the shape is not a picture's."""
    if len(shape) != 4 or shape[1] != 3 or shape[0] != 1:
        if file is not None:
            raise ValueError(f"explore: a picture becomes 1x3xHxW, got --input {'x'.join(map(str, shape))}")
        return _Example(random.Generator(0).normal(shape, np.float32), "What it was given are random numbers, standard normal.")
    height, width = shape[2:]
    stored = max(height, width) * 8 // 7  # 256 for 224, as in training
    pattern = Patterns(PATTERN + 1, train=False)
    whole = pattern[PATTERN][0] if file is None else read_image(file)
    whole = Resize(stored)(whole, SampleKey(0, 0, 0, 0))
    pixels = np.ascontiguousarray(center(whole, height, width))
    if mean is None:
        mean = np.broadcast_to(np.array(MEAN_COLOUR, np.float32), (height, width, 3))
        minus = "ImageNet's mean colour"
    else:
        minus = "the mean image of its training set"
    x = SubtractMean(mean)(pixels, SampleKey(0, 0, 0, 0)).transpose(2, 0, 1)[None]
    name = pattern.classes[PATTERN % len(pattern.classes)] if file is None else ""
    source = f"one of the embedded patterns, a {name}" if file is None else file
    how = f"shorter side to {stored} pixels, the centre {height} x {width}, minus {minus}"
    return _Example(x, f"The image is {source}: {how}.", pixels, name)


if __name__ == "__main__":
    sys.exit(until_the_reader_leaves(main))
