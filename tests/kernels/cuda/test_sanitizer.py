"""Every test of a kernel again, in a process where the first access outside an array ends it: in C++ nothing else notices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulator import emulator

HERE = Path(__file__).parent


@pytest.mark.skipif(emulator.missing_sanitizer() is not None, reason=str(emulator.missing_sanitizer()))
def test_kernels_stay_inside_their_arrays():
    environment = {**os.environ, **emulator.sanitizer_environment(), "MINIDL_EMULATOR": "address"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE), "--ignore", __file__]
    done = subprocess.run(command, cwd=HERE, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
