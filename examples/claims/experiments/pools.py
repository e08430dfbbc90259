"""Overlapping pools."""

from claim import Claim, Comparison

from experiments.common import BASE, in_each

POOLS = ("pool1", "pool2", "pool3")

CLAIM = Claim(
    title="Pools of 3 x 3 every 2 pixels are better than pools of 2 x 2",
    says="overlapping pools lower the top-1 and top-5 error by 0.4 and 0.3 points, and make it slightly harder to overfit",
    section="3.4",
    paper="0.4 points",
    differs="80sec on CIFAR-10, whose second and third pools take means; maps have the same sizes in both arms",
    arms={"3 x 3": BASE, "2 x 2": BASE.but(changes=in_each(POOLS, sizeX="2"))},
    compared=(
        Comparison("3 x 3", "2 x 2", "test_error", "test error"),
        Comparison("3 x 3", "2 x 2", "gap", "test error minus training error"),
    ),
    place=10,
)
