"""ReLU against tanh: the paper's figure 1."""

from claim import Claim, Comparison

from experiments.relu_tanh_rates import RELU, TANH

BEST_RELU, BEST_TANH = 4.0, 8.0  # times the rate: by relu_tanh_rates

CLAIM = Claim(
    title="ReLUs train several times faster than tanh",
    says="a four-layer net with ReLUs reaches 25 % training error on CIFAR-10 six times faster than the same with tanh; rates "
    "were chosen for each, nothing regularises; how much faster depends on the network",
    section="3.1, figure 1",
    paper="6 times",
    differs="cuda-convnet's 19pct net, which has four layers with weights, without decay; the paper does not name its net",
    arms={"ReLU": RELU.but(rate=BEST_RELU), "tanh": TANH.but(rate=BEST_TANH)},
    compared=(Comparison("ReLU", "tanh", "steps_to_25", "steps to 25 % training error", ratio=True),),
    curve="train",
    shown=("steps_to_25", "train_error", "test_error"),
    remark="The training error is the running one, over 98 steps at a time. Runs end when they reach 25 %, or after 36 epochs.",
    place=5,
)
