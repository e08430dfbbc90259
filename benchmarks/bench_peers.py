"""AlexNet against its fastest peers, a process each: PyTorch eager and compiled, TensorFlow, onnxruntime, OpenVINO.

    python benchmarks/bench_peers.py [--batch 1 4 16 128] [--kinds training inference] [--rounds 5] [--only NAME ...]
                                     [--env build/peers]

The network has local response normalisation in all of them. Training is forward, loss, backward and SGD with momentum;
inference is float32. All processes live at the same time, and run in turn, one step each; the others are stopped meanwhile, so
that their threads do not spin. Medians are compared. minidl's network is the one that examples/alexnet/train.py trains, in two
towers. TensorFlow and OpenVINO get an environment of their own in --env, which is made if it is not there (some 2 GB; needs the
package index). onnxruntime and OpenVINO read the file that minidl.onnx.export writes. Needs torch, onnx and onnxruntime.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import nets
import numpy as np
from common import cores, machine_line, print_table

import minidl.onnx
from minidl import Tensor, nn

HERE = Path(__file__).parent
PACKAGES = ("tensorflow-cpu==2.21.0", "openvino==2026.4.1")
APART = ("TensorFlow", "TensorFlow, XLA", "OpenVINO")  # in the environment of their own
KINDS = {
    "training": [
        *("minidl", "PyTorch", "PyTorch, channels_last", "PyTorch compiled", "PyTorch compiled, channels_last"),
        *("TensorFlow", "TensorFlow, XLA"),
    ],
    "inference": [
        *("minidl", "PyTorch", "PyTorch, channels_last", "PyTorch compiled", "PyTorch compiled, channels_last"),
        *("onnxruntime", "OpenVINO"),
    ],
}


class Peer:
    """A program in its process, stopped when it is not its turn."""

    def __init__(self, python: str, name: str, kind: str, batch: int, model: Path) -> None:
        self.name = name
        threads = str(cores())
        self.process = subprocess.Popen(
            [python, str(HERE / "peer_programs.py"), name, kind, str(batch), threads, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )
        if self._answer() != "ready":
            raise RuntimeError(f"{name}: {self.process.communicate()[1][-2000:]}")
        self._send(signal.SIGSTOP)

    def seconds(self) -> float:
        """Of one step."""
        self._send(signal.SIGCONT)
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        taken = float(self._answer())
        self._send(signal.SIGSTOP)
        return taken

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _send(self, what: signal.Signals) -> None:
        self.process.send_signal(what)


def environment(folder: Path) -> str:
    """The interpreter of the environment of their own, which is made first if need be."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "complete").touch()
    return str(python)


def export(path: Path) -> None:
    """The one-device network, which is what two towers compute, for who reads ONNX files."""
    net = nets.alexnet(nn).eval()
    minidl.onnx.export(net, Tensor(np.zeros((1, 3, 224, 224), np.float32)), path)


def compare(kind: str, batch: int, names: list[str], rounds: int, apart: str, model: Path) -> None:
    peers: list[Peer] = []
    try:
        peers += [Peer(apart if name in APART else sys.executable, name, kind, batch, model) for name in names]
        times: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for _ in range(rounds + 1):
            for peer in peers:
                times[peer.name].append(peer.seconds())
    finally:
        for peer in peers:
            peer.end()
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}  # the first round warms up
    own = medians.get("minidl")
    rows = [[name, f"{batch / t:.1f}", f"{t / own:.2f}" if own else ""] for name, t in medians.items()]
    print_table([f"{kind}, batch {batch}", "images/s", "minidl / this"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16, 128])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(dict.fromkeys(name for names in KINDS.values() for name in names)))
    parser.add_argument("--env", type=Path, default=Path("build/peers"))
    args = parser.parse_args()
    chosen = {kind: [name for name in KINDS[kind] if args.only is None or name in args.only] for kind in args.kinds}
    apart = environment(args.env) if any(name in APART for names in chosen.values() for name in names) else ""
    print(machine_line())
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "alexnet.onnx"
        export(model)
        for kind, names in chosen.items():
            for batch in args.batch:
                compare(kind, batch, names, args.rounds, apart, model)


if __name__ == "__main__":
    main()
