"""Which minidl the programs of a checkout run: importing this file makes it the checkout's own, installed or not.

Where another minidl is installed, a line on the standard error says which of the two runs. Where this file has no minidl two
folders up, as in a copy of this folder, the installed one does.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def prefer(root: Path) -> None:
    """`import minidl` finds the one in `root`, if there is one and none was imported so far."""
    if "minidl" in sys.modules or not (root / "minidl" / "__init__.py").is_file():
        return
    found = importlib.util.find_spec("minidl")
    installed = Path(found.origin).resolve().parent if found is not None and found.origin else None
    if installed == root / "minidl":
        return
    sys.path.insert(0, str(root))
    if installed is not None:
        print(f"this checkout's minidl is used, {root / 'minidl'}, not the installed one, {installed}", file=sys.stderr)


prefer(ROOT)
