"""Initial biases."""

from claim import Claim, Comparison

from experiments.common import BASE, in_each

ONES = BASE.but(epochs=3, drops=(), changes=in_each(("conv2", "conv3", "fc64"), initB="1"))

CLAIM = Claim(
    title="Biases that start at 1 speed up the first steps",
    says="biases of 1 give the ReLUs positive inputs, which accelerates the early stages of learning",
    section="5",
    paper="no figure",
    differs="80sec on CIFAR-10; 1 in the second and third convolution and the hidden fc layer",
    arms={"biases 1": ONES, "biases 0": BASE},
    compared=(
        Comparison("biases 1", "biases 0", "train_error_at_392", "training error in the last quarter of the first epoch"),
        Comparison("biases 1", "biases 0", "steps_to_50", "steps to 50 % training error", ratio=True),
    ),
    curve="train",
    shown=("steps_to_50", "test_error"),
    place=11,
)
