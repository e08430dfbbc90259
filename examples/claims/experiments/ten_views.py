"""The mean of ten views at test time."""

from claim import Claim, Comparison

from experiments.crops_flips import BOTH

CLAIM = Claim(
    title="The mean of ten views is better than one view",
    says="with the centre patch alone the errors are 39.0 % and 18.3 %, with ten patches 37.5 % and 17.0 %",
    section="6, a footnote",
    paper="1.5 points",
    differs="80sec trained on random 24 x 24 crops and mirrors of 10,000 images of CIFAR-10",
    arms={"crops and mirrors": BOTH},
    compared=(Comparison("crops and mirrors", "crops and mirrors", "ten_views_error", "test error", than="test_error"),),
    shown=("test_error", "ten_views_error", "train_error"),
    place=14,
)
