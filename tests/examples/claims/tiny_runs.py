"""Runs of two epochs of 64 drawn images, with dropout, crops, mirrors, colour noise, a drop of the rate and ten views: all that
a resumed run must continue."""

from pathlib import Path

from settings import Settings

CLAIMS = Path(__file__).parents[3] / "examples" / "claims"

IMAGES, BATCH, EPOCHS = 64, 16, 2
STEPS = EPOCHS * IMAGES // BATCH

TINY = Settings(
    "wide",
    epochs=EPOCHS,
    data="patterns",
    batch_size=BATCH,
    crop=24,
    random_crops=True,
    flips=True,
    color_noise=0.1,
    ten_views=True,
    drops=(1,),
)
