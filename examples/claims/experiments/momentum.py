"""Momentum."""

from claim import Claim, Comparison

from experiments.common import BASE, in_each

SHORT = BASE.but(epochs=5, drops=(4,))
PLAIN = SHORT.but(changes=in_each(momW="0", momB="0"))

CLAIM = Claim(
    title="Momentum 0.9 is better than none",
    says="trained with momentum 0.9; why, the paper does not say",
    section="5",
    paper="no figure",
    differs="80sec on CIFAR-10 for 5 epochs; without momentum at the same rate, and at ten times the rate, whose steps are as "
    "long on the whole",
    arms={"momentum 0.9": SHORT, "none": PLAIN, "none, ten times the rate": PLAIN.but(rate=10.0)},
    compared=(
        Comparison("momentum 0.9", "none", "test_error", "test error"),
        Comparison("momentum 0.9", "none, ten times the rate", "test_error", "test error"),
    ),
    place=24,
)
