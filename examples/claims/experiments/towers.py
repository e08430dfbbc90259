"""Two towers against one."""

from claim import Claim, Comparison
from settings import Changes, Settings

from experiments.common import BASE

TOWERS = Settings("towers", epochs=10, drops=(8,))
SEPARATE = Settings("separate", epochs=10, drops=(8,))


def narrower(first: str, second: str, third: str) -> Changes:
    """80sec with so many filters in its three convolutions."""
    return {
        "conv1": {"filters": first},
        "pool1": {"channels": first},
        "conv2": {"channels": first, "filters": second},
        "pool2": {"channels": second},
        "conv3": {"channels": second, "filters": third},
        "pool3": {"channels": third},
    }


HALF = BASE.but(changes=narrower("16", "16", "64"))

CLAIM = Claim(
    title="Two towers are better than one of half the size",
    says="the two-tower net has 1.7 and 1.2 points less error than a net with half as many kernels in each convolution but the "
    "last, and takes slightly less time to train",
    section="3.2",
    paper="1.7 points",
    differs="80sec in two towers, on CIFAR-10. On one core two towers take twice as long as half a net: so the half net also "
    "trains for twice the epochs, and there is one undivided net with as many parameters",
    arms={
        "two towers": TOWERS,
        "half the size": HALF,
        "half the size, as much time": HALF.but(epochs=20, drops=(16,)),
        "one tower, as many parameters": BASE.but(changes=narrower("30", "30", "60")),
    },
    compared=(
        Comparison("two towers", "half the size", "test_error", "test error"),
        Comparison("two towers", "half the size, as much time", "test_error", "test error"),
        Comparison("two towers", "one tower, as many parameters", "test_error", "test error"),
    ),
    place=20,
)
