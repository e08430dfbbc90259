"""Momentum, and what it does when the rate drops."""

from claim import Claim, Comparison

from experiments.common import BASE, in_each

SHORT = BASE.but(epochs=5, drops=(4,))
PLAIN = SHORT.but(changes=in_each(momW="0", momB="0"))

CLAIM = Claim(
    title="Momentum 0.9 is better than none, and the 2012 rule differs from PyTorch's only just after a drop of the rate",
    says="momentum 0.9, with the rate inside the velocity: it coasts on at the old rate after a drop",
    section="5",
    paper="no figure",
    differs="80sec on CIFAR-10 for 5 epochs; without momentum at the same rate, and at ten times the rate, which takes as long "
    "steps on the whole",
    arms={
        "momentum 0.9": SHORT,
        "none": PLAIN,
        "none, ten times the rate": PLAIN.but(rate=10.0),
        "momentum 0.9, PyTorch's rule": SHORT.but(rule="pytorch"),
    },
    compared=(
        Comparison("momentum 0.9", "none", "test_error", "test error"),
        Comparison("momentum 0.9", "none, ten times the rate", "test_error", "test error"),
        Comparison(
            "momentum 0.9, PyTorch's rule", "momentum 0.9", "loss_after_drop", "training loss in the 40 steps after the drop"
        ),
        Comparison("momentum 0.9", "momentum 0.9, PyTorch's rule", "test_error", "test error"),
    ),
    place=24,
)
