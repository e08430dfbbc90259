"""Weight decay."""

from claim import Claim, Comparison

from experiments.common import BASE, PAPER_DECAY, in_each

CLAIM = Claim(
    title="Weight decay lowers the training error too",
    says="a little weight decay, 0.0005, is not merely a regulariser: it reduces the training error",
    section="5",
    paper="no figure",
    differs="80sec on CIFAR-10, with the paper's decay, with its own, and with none",
    arms={
        "0.0005": BASE.but(changes=in_each(wc=PAPER_DECAY)),
        "80sec's own": BASE,
        "none": BASE.but(changes=in_each(wc="0")),
    },
    compared=(
        Comparison("0.0005", "none", "train_error", "training error"),
        Comparison("80sec's own", "none", "train_error", "training error"),
        Comparison("0.0005", "none", "test_error", "test error"),
    ),
    place=23,
)
