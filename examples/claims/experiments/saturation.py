"""Units that saturate."""

from claim import Claim, Comparison

from experiments.common import BASE, in_each

UNITS = ("pool1", "conv2", "conv3", "fc64")  # where 80sec has its ReLUs

CLAIM = Claim(
    title="Gradients shrink on their way down through sigmoids and tanh",
    says="two write-ups: where sigmoid and tanh saturate their slope is near 0, so gradients vanish in the lower layers; "
    "ReLU's slope is 1",
    section="of the paper 3.1: saturating nonlinearities train much slower",
    paper="no figure",
    differs="80sec on CIFAR-10; weights start as in its file in all arms",
    arms={
        "relu": BASE,
        "tanh": BASE.but(epochs=2, drops=(), changes=in_each(UNITS, neuron="tanh[1,1]")),
        "sigmoid": BASE.but(epochs=2, drops=(), changes=in_each(UNITS, neuron="logistic")),
    },
    compared=(
        Comparison("relu", "tanh", "gradient_loss", "fc10's mean gradient over conv1's, after an epoch", ratio=True),
        Comparison("relu", "sigmoid", "gradient_loss", "fc10's mean gradient over conv1's, after an epoch", ratio=True),
    ),
    curve="gradients",
    shown=("gradient_loss", "saturated", "test_error"),
    place=12,
)
