"""Crops, mirrors, colour noise, ten views."""

from claim import Claim, Comparison

from experiments.common import BASE, FEW, PAPER_DECAY, in_each

CENTRE = BASE.but(images=FEW, epochs=40, drops=(32,), test_every=2, crop=24, ten_views=True, changes=in_each(wc=PAPER_DECAY))
CROPS = CENTRE.but(random_crops=True)
FLIPS = CENTRE.but(flips=True)
BOTH = CENTRE.but(random_crops=True, flips=True)

CLAIM = Claim(
    title="Without random crops and mirrors the network overfits",
    says="without this scheme the network suffers from substantial overfitting, which would force much smaller networks",
    section="4.1",
    paper="no figure",
    differs="80sec on 24 x 24 crops of 10,000 images of CIFAR-10",
    arms={"crops and mirrors": BOTH, "crops": CROPS, "mirrors": FLIPS, "neither": CENTRE},
    compared=(
        Comparison("crops and mirrors", "neither", "test_error", "test error"),
        Comparison("crops and mirrors", "neither", "gap", "test error minus training error"),
        Comparison("crops", "neither", "test_error", "test error"),
        Comparison("mirrors", "neither", "test_error", "test error"),
    ),
    shown=("test_error", "ten_views_error", "train_error"),
    place=13,
)
