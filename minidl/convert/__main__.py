"""Convert weights from the command line.

python -m minidl.convert alexnet.pth alexnet.safetensors
                            torchvision's alexnet, a state dict; or from
                            .safetensors
python -m minidl.convert X.caffemodel caffe.safetensors
                            Caffe's bvlc_alexnet or bvlc_reference_caffenet
python -m minidl.convert X.caffemodel caffe.safetensors --mean Y.binaryproto
                            with the mean image of its training set
python -m minidl.convert X.binaryproto mean.safetensors
                            Caffe's mean image alone
python -m minidl.convert X.weights.h5 keras.safetensors
                            a plain sequential net of Keras, or .h5; needs h5py
python -m minidl.convert --to torchvision RUN/checkpoints/X a.pth
                            and back: a checkpoint or a converted file
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from minidl.checkpoint import CheckpointError, load_checkpoint
from minidl.convert import (
    from_caffe,
    from_keras,
    from_torchvision,
    load_weights,
    mean_from_caffe,
    save_weights,
    to_torchvision,
    write_pth,
)
from minidl.convert.weights import MEAN
from minidl.data.errors import BadFileError
from minidl.pipe import until_the_reader_leaves

TORCHVISION = {"variant": "torchvision", "profile": "torchvision"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minidl.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="a file of another program's weights; with --to, minidl's")
    parser.add_argument("target", metavar="DST", type=Path, help="a .safetensors file; with --to torchvision, .pth too")
    parser.add_argument("--to", choices=("minidl", "torchvision"), default="minidl", help="whose names DST has")
    parser.add_argument("--deploy", type=Path, metavar="X.prototxt", help="compare a .caffemodel with this net")
    parser.add_argument("--mean", type=Path, metavar="X.binaryproto", help="keep this mean image with a .caffemodel's weights")
    args = parser.parse_args(arguments)
    try:
        arrays = _back(args) if args.to == "torchvision" else _forth(args)
    except (BadFileError, CheckpointError, OSError, ValueError, ImportError) as error:
        parser.exit(2, f"minidl.convert: error: {error}\n")
    numbers = sum(array.size for array in arrays.values())
    print(f"{args.target}: {len(arrays)} tensors, {numbers:,} numbers")
    return 0


def _forth(args: argparse.Namespace) -> dict[str, np.ndarray]:
    source, target = args.source, args.target
    _check_suffix("DST", target, ".safetensors")
    _check_suffix("SRC", source, ".pth", ".pt", ".safetensors", ".caffemodel", ".binaryproto", ".h5")
    for flag in ("deploy", "mean"):
        if getattr(args, flag) is not None and source.suffix != ".caffemodel":
            raise ValueError(f"--{flag} is for a .caffemodel, got {source}")
    about = TORCHVISION
    if source.suffix == ".caffemodel":
        arrays, about = from_caffe(source, args.deploy)
        if args.mean is not None:
            arrays[MEAN] = mean_from_caffe(args.mean)
    elif source.suffix == ".binaryproto":
        arrays, about = {MEAN: mean_from_caffe(source)}, {}
    elif source.suffix == ".h5":
        arrays, about = from_keras(source), {}
    else:
        arrays = from_torchvision(source)
    save_weights(target, arrays, about)
    return arrays


def _back(args: argparse.Namespace) -> dict[str, np.ndarray]:
    source, target = args.source, args.target
    _check_suffix("DST", target, ".pth", ".pt", ".safetensors")
    if source.is_dir():
        arrays = to_torchvision(source, _merged(load_checkpoint(source).model_state))
    else:
        arrays = to_torchvision(source, load_weights(source)[0])
    (save_weights if target.suffix == ".safetensors" else write_pth)(target, arrays)
    return arrays


def _check_suffix(what: str, path: Path, *suffixes: str) -> None:
    if path.suffix not in suffixes:
        raise ValueError(f"{what} must end in {', '.join(suffixes)}, got {path}")


def _merged(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint's parameters with the towers' kernels side by side, as `AlexNet.merged_state_dict` has them."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, array in sorted(arrays.items()):
        parts.setdefault(name.removeprefix("tower0.").removeprefix("tower1."), []).append(array)
    return {name: np.concatenate(towers) for name, towers in parts.items()}


if __name__ == "__main__":
    sys.exit(until_the_reader_leaves(main))
