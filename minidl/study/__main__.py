"""Study a network from the command line.

python -m minidl.study summary                                       AlexNet, a row a layer
python -m minidl.study summary net.py:make --input 1x3x32x32         any network: make() returns a module
python -m minidl.study ledger --input 8x3x224x224                    every op of a training step, and the memory
"""

import argparse
import sys

import numpy as np

import minidl.nn.functional as F
from minidl.nn import Module
from minidl.study.ledger import Ledger
from minidl.study.models import ALEXNET, load_model, random_batch
from minidl.study.summary import summary

DEFAULT_INPUT = (1, 3, 224, 224)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minidl.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    summarise = commands.add_parser("summary", help="a row a layer: shapes, parameters, multiply-adds, bytes")
    summarise.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    account = commands.add_parser("ledger", help="every op of a training step: times, what is kept, and whose the memory is")
    for command in (summarise, account):
        command.add_argument("model", nargs="?", default=ALEXNET, help="alexnet (default), or file.py:function")
        command.add_argument("--input", type=batch_shape, default=DEFAULT_INPUT, metavar="NxCxHxW", help="the batch's shape")
    args = parser.parse_args(arguments)
    try:
        model = load_model(args.model)
        print(_summary(model, args) if args.command == "summary" else _ledger(model, args.input))
    except (ValueError, TypeError, RuntimeError, OSError) as error:
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


def _summary(model: Module, args: argparse.Namespace) -> str:
    result = summary(model, args.input)
    return {"text": result.__str__, "markdown": result.markdown, "json": result.json}[args.format]()


def _ledger(model: Module, shape: tuple[int, ...]) -> Ledger:
    """Of the second of two steps on random images: the first prepares memory that later ones use again."""
    images = random_batch(model, shape)
    for _ in range(2):
        model.zero_grad()
        with Ledger() as ledger:
            scores = model(images)
            labels = np.arange(shape[0]) % scores.shape[1]
            F.cross_entropy(scores, labels).backward()
    return ledger


if __name__ == "__main__":
    sys.exit(main())
