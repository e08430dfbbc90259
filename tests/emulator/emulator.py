"""Runs CUDA C on the CPU: g++ compiles the text of a .cu file behind cuda.h, which explains how threads run.

    program = compile(source, {"real": "float", "index": "int"})
    program.launch("mdl_relu_forward", (4,), (256,), (x, y, x.size))        # NumPy arrays, ints and floats

A GPU's launcher takes whatever it is given; this one raises TypeError or ValueError for arguments that are not what the
kernel's parameters say. A barrier that some threads of a block don't reach is a RuntimeError. Threads and blocks run in any of
three orders, so that a kernel whose result depends on the order is found. With sanitize="address" the process ends at the first
access outside an array, if it was started for that: see `sanitizer_environment`.

Programs are kept in a directory of the user's, so that an unchanged kernel is compiled once.
"""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

HEADER = Path(__file__).parent / "cuda.h"
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-Wno-unknown-pragmas"]
# a shared array lies in a section of its own, which is left unguarded unless asked for; guards inside stacks confuse fibers
SANITIZER = ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-fsanitize-sections=shared_arrays", "--param=asan-stack=0"]
KERNEL = re.compile(r"\b__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")
ORDERS = ("forward", "reverse", "shuffled")
DTYPES = {
    "float": ("float32",),
    "double": ("float64",),
    "unsigned char": ("uint8", "bool"),
    "int": ("int32",),
    "long long": ("int64",),
    "unsigned int": ("uint32",),
}


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    return None if shutil.which("g++") else "the emulator needs g++"


def missing_sanitizer() -> str | None:
    """Why nothing can be run with sanitize="address", or None."""
    absent = missing() or [name for name in ("libasan.so", "libstdc++.so") if not Path(_library(name)).is_absolute()]
    return f"the sanitizer needs {absent}" if absent else None


def sanitizer_environment() -> dict[str, str]:
    """Environment variables for a process that runs programs with sanitize="address": its library must be loaded first."""
    libraries = f"{_library('libasan.so')} {_library('libstdc++.so')}"
    return {"LD_PRELOAD": libraries, "ASAN_OPTIONS": "detect_leaks=0,detect_stack_use_after_return=0"}


def _library(name: str) -> str:
    """Where g++ finds a library; the name itself if nowhere."""
    return _output(("g++", f"-print-file-name={name}")).strip()


class Program:
    """A compiled .cu file. `parameters` says for each kernel the C types of its parameters."""

    def __init__(self, library: Path, kernels: Sequence[str]) -> None:
        # PyDLL keeps Python's lock while a kernel runs: two launches at a time would share the fibers
        self._library = ctypes.PyDLL(str(library))
        self.parameters = {name: self._parameters(name) for name in kernels}

    def _parameters(self, kernel: str) -> list[str]:
        function = self._library[f"parameters_of_{kernel}"]
        function.restype = ctypes.c_char_p
        return function().decode().split(",")[:-1]

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        order: str = "forward",
        seed: int = 0,
    ) -> None:
        """Run a kernel on C-contiguous NumPy arrays, ints and floats; written arrays change in place."""
        values = [_argument(kernel, i, t, a) for i, (t, a) in enumerate(_matched(kernel, self.parameters[kernel], args))]
        _check_overlap(kernel, self.parameters[kernel], args)
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        function = self._library[f"launch_{kernel}"]
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64]
        error = function(pointers, _dim3(grid, 2**31 - 1), _dim3(block, 1024), ORDERS.index(order), seed)
        if error:
            raise RuntimeError(f"{kernel}: {error.decode()}")


def compile(source: str, defines: Mapping[str, str], sanitize: str | None = None, fused: bool = False) -> Program:
    """A program of all kernels in `source`, the text of a .cu file, under these macros; RuntimeError with g++'s words.

    fused : a product that something is added to is not rounded, as where NVIDIA's compiler makes one instruction of both.
    """
    return _program(source, tuple(sorted(defines.items())), sanitize, fused)


def missing_fused() -> str | None:
    """Why nothing can be run with fused=True, or None."""
    about = Path("/proc/cpuinfo")
    if missing():
        return missing()
    return None if about.exists() and " fma" in about.read_text() else "this processor has no fused multiply-add"


@functools.cache
def _program(source: str, defines: tuple[tuple[str, str], ...], sanitize: str | None, fused: bool) -> Program:
    kernels = KERNEL.findall(source)
    macros = [f"#define {name} {value}" for name, value in defines]
    launchers = [f"KERNEL({name})" for name in kernels]
    # macros after the header, which has its own names; errors are counted in lines of the source
    text = "\n".join([f'#include "{HEADER}"', *macros, '#line 1 "kernel.cu"', source, *launchers, ""])
    flags = FLAGS + ([f"-fsanitize={sanitize}", *SANITIZER] if sanitize else [])
    flags += ["-mfma", "-ffp-contract=fast", "-fexpensive-optimizations"] if fused else []
    flags += ["-DFLUSH_TO_ZERO"] if ("real", "float") in defines else []
    key = hashlib.sha256("\n".join([_output(("g++", "--version")), *flags, HEADER.read_text(), text]).encode()).hexdigest()
    library = _cache() / f"{key[:32]}.so"
    locks = library.parent / "locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / library.stem):  # two processes that ask at once: one waits while the other compiles
        if not library.exists():
            _build(text, flags, library)
    return Program(library, kernels)


def _build(text: str, flags: list[str], library: Path) -> None:
    """Compile to another name first: a process that is killed leaves no half of a file."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / "program.so"
        command = ["g++", "-x", "c++", *flags, "-", "-o", str(made)]
        alone = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # the sanitizer is for kernels
        done = subprocess.run(command, input=text, text=True, capture_output=True, env=alone)
        if done.returncode:
            raise RuntimeError(f"the emulator's compiler refused the kernel:\n{done.stderr}")
        os.replace(made, library)


def _cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"minidl-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else")  # who could have put any program there
    return folder


@functools.cache
def _output(command: tuple[str, ...]) -> str:
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


# ------------------------------------------------------------------------------------------------------------ arguments


def _matched(kernel: str, types: list[str], args: Sequence[Any]) -> list[tuple[str, Any]]:
    if len(types) != len(args):
        raise TypeError(f"{kernel}: takes {len(types)} arguments ({', '.join(types)}), got {len(args)}")
    return list(zip(types, args, strict=True))


def _argument(kernel: str, place: int, kind: str, value: Any) -> Any:
    """A C value for a parameter of this type; TypeError or ValueError if it is not such a value."""
    where = f"{kernel}: argument {place} must be {kind}"
    if kind.endswith("*"):
        return _pointer(where, kind, value)
    if type(value) is not (int if kind == "long long" else float):
        raise TypeError(f"{where}, got {type(value).__name__}")
    if kind == "double":
        return ctypes.c_double(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{where}, got {value}")
    return ctypes.c_longlong(value)


def _pointer(where: str, kind: str, value: Any) -> ctypes.c_void_p:
    if kind.startswith("const ") and type(value) is int and value == 0:
        return ctypes.c_void_p(None)  # what CuPy makes of the int: a null pointer
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{where}, got {type(value).__name__}")
    if value.dtype.name not in DTYPES[kind.removeprefix("const ").removesuffix("*")]:
        raise TypeError(f"{where}, got an array of {value.dtype}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{where} in C order, got strides {value.strides} of shape {value.shape}")
    if not kind.startswith("const ") and not value.flags.writeable:
        raise ValueError(f"{where}, got a read-only array")
    return ctypes.c_void_p(value.ctypes.data)


def _check_overlap(kernel: str, types: list[str], args: Sequence[Any]) -> None:
    """An array that is written may not be given twice: the compiler is told that pointers lead to different arrays."""
    pointers = ((i, kind, a) for i, (kind, a) in enumerate(zip(types, args, strict=True)) if kind.endswith("*"))
    arrays = [(i, kind, a) for i, kind, a in pointers if isinstance(a, np.ndarray)]  # an int is a null pointer
    for i, kind, a in arrays:
        for j, _, b in arrays:
            if i != j and not kind.startswith("const ") and np.may_share_memory(a, b):
                raise ValueError(f"{kernel}: argument {i} is written, and shares memory with argument {j}")


def _dim3(sizes: Sequence[int], largest: int) -> Any:
    """(x,), (x, y) or (x, y, z) -> three numbers, at least 1 as CuPy makes them."""
    full = [max(int(s), 1) for s in (*sizes, 1, 1)][:3]
    if len(sizes) > 3 or full[0] * full[1] * full[2] > largest:
        raise ValueError(f"a grid or block of {tuple(sizes)} is too large")
    return (ctypes.c_uint * 3)(*full)
