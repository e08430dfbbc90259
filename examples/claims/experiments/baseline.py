"""The nets of cuda-convnet's page."""

from claim import Claim
from settings import Settings

BASE = Settings("80sec", epochs=10, drops=(8,))

CLAIM = Claim(
    title="cuda-convnet's 80sec net on CIFAR-10",
    says="26 % test error",
    section="cuda-convnet's page and the header of its layers-80sec.cfg",
    paper="26 %",
    differs="data",
    arms={"80sec": BASE},
    place=1,
)
