"""The optimizer's rule of 2012 when the rate drops."""

from claim import Claim, Comparison

from experiments.momentum import SHORT

CLAIM = Claim(
    title="With the rule of 2012 a drop of the rate takes effect some steps later",
    says="the rate is inside the velocity: what was gathered at the old rate coasts on",
    section="5, the update rule; minidl/optim/sgd.py says what follows from it",
    paper="no figure",
    differs="80sec on CIFAR-10 for 5 epochs, with the rule of 2012 and with PyTorch's, where the drop holds for the whole "
    "velocity. Until the drop both take the same steps",
    arms={"2012": SHORT, "PyTorch": SHORT.but(rule="pytorch")},
    compared=(
        Comparison("PyTorch", "2012", "loss_after_drop", "training loss in the 40 steps after the drop"),
        Comparison("PyTorch", "2012", "test_error", "test error at the end", judged=False),
    ),
    curve="after drop",
    shown=("loss_after_drop", "test_error"),
    place=25,
)
