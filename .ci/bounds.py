"""What pyproject.toml allows at its ends, for the environments of `make test-newest` and `make test-oldest`.

bounds.py newest     the newest Python on this machine
bounds.py oldest     the oldest Python that pyproject.toml allows; the machine must have it
bounds.py pins       the lower bound of every package that the tests need, as pip's requirements: numpy==2.0 ...
"""

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

EXTRAS = ("plot", "test")


def pythons() -> dict[int, str]:
    """Minor version -> an interpreter of Python 3: this one, and those on the PATH and of pyenv."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in range(11, 100):
        kept = sorted(versions.glob(f"3.{minor}.*/bin/python3.{minor}"))
        path = shutil.which(f"python3.{minor}") if not kept else str(kept[-1])  # on the PATH may be pyenv's shim, which refuses
        if path:
            found[minor] = path
    return {sys.version_info.minor: sys.executable, **found}


def oldest_python(project: dict[str, Any]) -> int:
    """The minor version of the oldest Python."""
    found = re.fullmatch(r">=3\.(\d+)", project["requires-python"])
    if not found:
        raise SystemExit(f"bounds: requires-python must be like >=3.11, got {project['requires-python']}")
    return int(found[1])


def pins(project: dict[str, Any]) -> list[str]:
    """Each requirement with its lower bound as the only version."""
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in project["optional-dependencies"][extra])]
    pinned = []
    for requirement in wanted:
        found = re.fullmatch(r"([\w.-]+)>=([\d.]+)(,.*)?", requirement)
        if not found:
            raise SystemExit(f"bounds: {requirement} in pyproject.toml has no lower bound")
        pinned.append(f"{found[1]}=={found[2]}")
    return pinned


def main(what: str) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    if what == "pins":
        print(*pins(project))
        return
    found = pythons()
    minor = oldest_python(project) if what == "oldest" else max(found)
    if minor not in found:
        raise SystemExit(f"bounds: Python 3.{minor}, the oldest that pyproject.toml allows, is not installed")
    print(found[minor])


if __name__ == "__main__":
    main(sys.argv[1])
