"""Response normalisation."""

from claim import Claim, Comparison
from settings import Settings

WITHIN = Settings("18pct", epochs=10, drops=(8,))
ACROSS = WITHIN.but(
    changes={name: {"type": "cmrnorm", "size": "9", "scale": "0.001", "pow": "0.75"} for name in ("rnorm1", "rnorm2")}
)
NONE = WITHIN.but(changes={"rnorm1": None, "rnorm2": None})

CLAIM = Claim(
    title="Response normalisation lowers the test error",
    says="on CIFAR-10 a four-layer net has 13 % without and 11 % with normalisation; on ImageNet it gains 1.4 and 1.2 points",
    section="3.3",
    paper="2 points",
    differs="cuda-convnet's 18pct net, which normalises within maps, for 10 of its 140 epochs; across maps with the numbers of "
    "its 11pct net",
    arms={"across maps": ACROSS, "within maps": WITHIN, "none": NONE},
    compared=(
        Comparison("across maps", "none", "test_error", "test error"),
        Comparison("within maps", "none", "test_error", "test error"),
    ),
    place=22,
)
