"""Does a trained net decide the same in onnxruntime?

    python benchmarks/onnx_decisions.py RUN

RUN is a run folder of examples/alexnet; its newest checkpoint is exported to a file, which onnxruntime reads. Both then score
the held-out images, centre view, in batches of 50: how many decisions are the same, how many right, and how far the scores lie
apart. Exit status 1 if a decision differs.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from common import print_table

import minidl.onnx
from minidl import no_grad

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "alexnet"))
import run
from data import load_statistics, open_data, test_loader
from files import FileNet, open_network

BATCH = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="a run folder of examples/alexnet, or a checkpoint in it")
    args = parser.parse_args()
    folder, found = run.find_run(args.run), run.find_checkpoint(args.run)
    if found is None:
        parser.error(f"{folder} has no checkpoint yet")
    saved = run.read_checkpoint(found, "give {} instead")
    settings = saved.state["arguments"]
    files = folder / settings["files"] if settings.get("layers") else None
    model = open_network(saved.state["architecture"], files, run.device_names(settings["device"]))
    model.load_state_dict(saved.model_state)
    if isinstance(model, FileNet):
        model.net.set_epoch(saved.state["epoch"])
    model.eval()
    data = run.find_data(folder, "give its folder a name that arguments.json has")
    _, held_out = open_data(data, settings.get("hold_out"), model.profile.stored_size)
    statistics = load_statistics(folder / run.STATISTICS)
    loader = test_loader(held_out, model.profile, statistics, batch_size=BATCH, workers=2, on_error="stop")
    batches = list(loader.epoch_batches(0))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "net.onnx")
        minidl.onnx.export(model, batches[0][0][:2], path)
        session = onnxruntime.InferenceSession(str(path))
        with no_grad():
            ours = np.concatenate([model(images).numpy() for images, _ in batches])
        theirs = np.concatenate([session.run(None, {"input": np.ascontiguousarray(images)})[0] for images, _ in batches])
        size = path.stat().st_size
    labels = np.concatenate([labels for _, labels in batches])
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    ranked = np.sort(ours, axis=1)
    print(f"{found}: {size:,} bytes of ONNX, onnxruntime {onnxruntime.__version__}")
    print_table(
        [
            "images",
            "same decisions",
            "right, minidl",
            "right, onnxruntime",
            "largest difference",
            "largest score",
            "closest call",
        ],
        [
            [
                str(len(labels)),
                str(same),
                str((ours.argmax(axis=1) == labels).sum()),
                str((theirs.argmax(axis=1) == labels).sum()),
                f"{np.abs(ours - theirs).max():.1e}",
                f"{np.abs(ours).max():.1f}",
                f"{(ranked[:, -1] - ranked[:, -2]).min():.1e}",  # between the best score and the next
            ]
        ],
    )
    return 0 if same == len(labels) else 1


if __name__ == "__main__":
    sys.exit(main())
