"""The files of examples/claims import each other by name; so do the tests. Their runs are tiny: 2 epochs of 64 drawn images."""

import sys
from pathlib import Path

import pytest

CLAIMS = Path(__file__).parents[3] / "examples" / "claims"
sys.path.insert(0, str(CLAIMS))

from pictures import Pictures, patterns  # noqa: E402
from settings import Run, Settings  # noqa: E402

IMAGES, BATCH, EPOCHS = 64, 16, 2
STEPS = EPOCHS * IMAGES // BATCH

# with dropout, crops, mirrors, colour noise, a drop of the rate and ten views: all that a resumed run must continue
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


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return patterns(IMAGES, 32)


@pytest.fixture
def tiny(pictures: Pictures) -> Run:
    return Run(TINY, 0, pictures.fingerprint)
