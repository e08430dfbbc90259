"""One tower for colour, one for form."""

from claim import Claim, Comparison
from settings import Settings

from experiments.towers import SEPARATE, TOWERS

PHOTOGRAPHS = Settings(
    "alexnet",
    epochs=200,
    data="photographs",
    crop=224,
    random_crops=True,
    flips=True,
    drops=(160,),
    rate=0.3,
    batch_size=50,
)
NETS = {"80sec": TOWERS, "80sec, separate towers": SEPARATE, "narrow AlexNet, photographs": PHOTOGRAPHS}

CLAIM = Claim(
    title="The first layer's filters specialise: one tower for colour, the other without",
    says="one GPU's filters are largely colour-agnostic, the other's largely colour-specific; it occurs in every run, "
    "whatever the initial weights",
    section="6.1, figure 3",
    paper="every run",
    differs="16 filters of 5 x 5 a tower on CIFAR-10; 12 of 11 x 11 a tower on 200 photographs, each a class of its own",
    arms=NETS,
    compared=tuple(
        Comparison(
            arm, arm, "color_by_chance", "the towers' mean shares of colour apart, against random pairs", than="color_apart"
        )
        for arm in NETS
    ),
    curve="colors",
    shown=("color_apart", "color_by_chance", "test_error"),
    remark="A filter's share of colour is the part of its squared weights that is off the grey axis: 0 sees brightness alone. "
    "Random weights have 2/3, as two of three directions are off that axis.",
    place=26,
)
