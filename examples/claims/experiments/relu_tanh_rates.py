"""Which learning rate is best for ReLU and for tanh: what relu_tanh builds on."""

from claim import Claim
from settings import Settings

RELU = Settings(
    "19pct",
    epochs=36,
    changes={layer: {"wc": "0"} for layer in ("conv1", "conv2", "conv3", "fc10")},
    until=0.25,
    test_every=6,
)
TANH = RELU.but(
    changes={
        "pool1": {"neuron": "tanh[1,1]"},
        **{layer: {"wc": "0", "neuron": "tanh[1,1]"} for layer in ("conv2", "conv3")},
        **{layer: {"wc": "0"} for layer in ("conv1", "fc10")},
    }
)
RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

CLAIM = Claim(
    title="The best rates for ReLU and tanh",
    says="the rates were chosen for each network to train as fast as possible",
    section="3.1, below figure 1",
    paper="no figure",
    differs="one seed of each, for 12 epochs",
    arms={
        f"{name}, {rate:g} times the rate": settings.but(rate=rate, epochs=12)
        for rate in RATES
        for name, settings in (("ReLU", RELU), ("tanh", TANH))
    },
    seeds=1,
    curve="train",
    shown=("steps_to_25", "train_error", "test_error"),
    remark="4 times the rate is best for ReLU. With tanh, 8 and 16 times end alike; 8 is taken.",
    place=4,
)
