"""The first net of cuda-convnet's page."""

from claim import Claim, Level

from experiments.common import BASE

CLAIM = Claim(
    title="The 80sec net reaches 26 % test error",
    says="26 % test error on CIFAR-10 after 80 seconds of 2011's GPU",
    section="cuda-convnet's page, and the head of its layers-80sec.cfg",
    paper="26 %",
    differs="the data",
    arms={"80sec": BASE},
    levels=(Level("80sec", "test_error", 0.26, "test error"),),
    place=1,
)
