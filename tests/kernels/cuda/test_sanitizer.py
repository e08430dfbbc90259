"""Every test of a kernel again, in a process where the first access outside an array ends it: in C++ nothing else notices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulator import emulator

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
PARTS = 9  # processes, which start slowly: at this number the files that compile longest are apart


@pytest.mark.skipif(emulator.missing_sanitizer() is not None, reason=str(emulator.missing_sanitizer()))
@pytest.mark.parametrize("files", [FILES[part::PARTS] for part in range(PARTS)], ids=lambda files: files[0])
def test_kernels_stay_inside_their_arrays(files):
    environment = {**os.environ, **emulator.sanitizer_environment(), "MINIDL_EMULATOR": "address"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=HERE, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
