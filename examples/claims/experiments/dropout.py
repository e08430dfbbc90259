"""Dropout in the hidden fc layer."""

from claim import Claim, Comparison
from settings import Settings

from experiments.common import FEW, PAPER_DECAY, in_each

WITH = Settings("wide", epochs=40, drops=(32,), images=FEW, test_every=2, changes=in_each(wc=PAPER_DECAY))
WITHOUT = WITH.but(changes={**WITH.changes, "hs": None})
LONGER = WITH.but(epochs=80, drops=(64,))

CLAIM = Claim(
    title="Without dropout the network overfits, with it training takes twice as long",
    says="without dropout the network exhibits substantial overfitting; dropout roughly doubles the iterations to converge",
    section="4.2",
    paper="twice the iterations",
    differs="80sec with 512 units in its hidden fc layer, on 10,000 images of CIFAR-10",
    arms={"dropout": WITH, "no dropout": WITHOUT, "dropout, twice as long": LONGER},
    compared=(
        Comparison("dropout", "no dropout", "gap", "test error minus training error"),
        Comparison("dropout, twice as long", "no dropout", "test_error", "test error"),
        Comparison("no dropout", "dropout", "epochs_to_test_40", "epochs to 40 % test error", ratio=True),
    ),
    shown=("test_error", "train_error", "epochs_to_test_40"),
    place=16,
)
