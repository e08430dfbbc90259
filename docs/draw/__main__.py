"""`PYTHONPATH=docs python -m draw`: writes every figure, or those that are named."""

import sys
from pathlib import Path

from draw import FIGURES

FOLDER = Path(__file__).parents[1] / "figures"

for name in sys.argv[1:] or FIGURES:
    (FOLDER / f"{name}.svg").write_text(FIGURES[name]().svg())
