"""Where the towers meet."""

from claim import Claim, Comparison

from experiments.towers import SEPARATE, TOWERS

WIDER = {
    **{f"conv2{t}": {"filters": "27"} for t in "ab"},
    **{f"pool2{t}": {"channels": "27"} for t in "ab"},
    **{f"conv3{t}": {"channels": "27"} for t in "ab"},
}

CLAIM = Claim(
    title="Towers that meet at layer 3 are better than towers that do not",
    says="the third layer's kernels take input from all maps of the second, the others from their own tower's. The "
    "2012 program's notes: towers that meet only in fc8 have 1.2 and 1.1 points more error",
    section="3.2; layer-params-150.cfg of the 2012 program",
    paper="1.2 points",
    differs="80sec in two towers, on CIFAR-10; separate towers with the same layers, and with as many parameters",
    arms={"meet at conv3": TOWERS, "separate": SEPARATE, "separate, as many parameters": SEPARATE.but(changes=WIDER)},
    compared=(
        Comparison("meet at conv3", "separate", "test_error", "test error"),
        Comparison("meet at conv3", "separate, as many parameters", "test_error", "test error"),
    ),
    place=21,
)
