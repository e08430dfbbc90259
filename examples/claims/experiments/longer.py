"""The nets that take long."""

from claim import Claim, Level
from settings import Settings

CLAIM = Claim(
    title="The 18pct and 13pct nets, in a fifth of their time and less",
    says="18 % in 20 minutes, 13 % in 25 minutes with crops and mirrors",
    section="cuda-convnet's page",
    paper="18 %; 13 %",
    differs="the data, and the time: the rates drop after 24 and 26 of 28 epochs; 18pct's own drop after 120 and 130 of 140",
    arms={
        "18pct": Settings("18pct", epochs=28, drops=(24, 26), test_every=2),
        "13pct": Settings(
            "13pct", epochs=28, drops=(24, 26), test_every=2, crop=24, random_crops=True, flips=True, ten_views=True
        ),
    },
    levels=(
        Level("18pct", "test_error", 0.18, "test error", in_full=False),
        Level("13pct", "test_error", 0.13, "test error, one view", in_full=False),
        Level("13pct", "ten_views_error", 0.13, "test error, ten views", in_full=False),
    ),
    seeds=2,
    shown=("test_error", "ten_views_error", "train_error"),
    place=31,
)
