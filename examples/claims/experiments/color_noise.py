"""Noise along the principal components of colour."""

from claim import Claim, Comparison

from experiments.crops_flips import BOTH

CLAIM = Claim(
    title="Colour noise lowers the test error",
    says="it reduces the top-1 error by over 1 %",
    section="4.1",
    paper="over 1 point",
    differs="80sec on random 24 x 24 crops and mirrors of 10,000 images of CIFAR-10; the noise as in the 2012 program, "
    "with the standard deviations where the paper writes eigenvalues",
    arms={"noise": BOTH.but(color_noise=0.1), "no noise": BOTH},
    compared=(Comparison("noise", "no noise", "test_error", "test error"),),
    place=15,
)
