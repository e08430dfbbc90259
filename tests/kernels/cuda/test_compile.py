"""Every CUDA file compiled as CuPy would, for each kind of GPU; it needs CuPy and NVRTC, but no GPU.

A kernel fails that does not compile, compiles with a warning, spills registers to memory, has more than 48 KB of static shared
memory, or is not named `mdl_...` as extern "C" (C functions of the same name would collide where the kernels run on the CPU).
Run with `pytest -m nvrtc`.
"""

import re
from pathlib import Path

import pytest

import minidl
from minidl.kernels.cuda import winograd
from minidl.kernels.winograd import LONGEST

FILES = sorted((Path(minidl.__file__).parent / "kernels" / "cuda").glob("*.cu"))
MACROS = {"winograd.cu": [winograd.defines(r) for r in range(2, LONGEST + 1)]}  # of files that are compiled in several ways
WAYS = [
    pytest.param(path, macros, id=f"{path.name} {' '.join(macros[:1])}".strip())
    for path in FILES
    for macros in MACROS.get(path.name, [()])
]
GPUS = [75, 80, 90, 120]
REALS = ["float", "double"]
INDICES = ["int", "long long"]
SHARED_MEMORY = 48 * 1024

pytestmark = pytest.mark.nvrtc


@pytest.fixture(scope="module")
def nvrtc():
    """CuPy's binding of NVRTC; skips where either is missing."""
    module = pytest.importorskip("cupy", reason="NVRTC's gate needs CuPy: pip install -e '.[cuda13]'").cuda.nvrtc
    try:
        module.getVersion()
    except RuntimeError as error:
        pytest.skip(f"NVRTC's gate needs NVRTC: pip install -e '.[cuda13]' ({str(error).splitlines()[0]})")
    return module


def compiled(nvrtc, source, real, index, gpu, macros=()):
    """Does it compile, and the compiler's log."""
    from cupy._core.core import assemble_cupy_compiler_options  # headers and language, as for every module of CuPy's

    options = assemble_cupy_compiler_options((f"-Dreal={real}", f"-Dindex={index}", *macros))
    options += ("-ftz=true", f"-arch=sm_{gpu}", "--device-as-default-execution-space", "--ptxas-options=-v")
    program = nvrtc.createProgram(source, "kern.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        passed = True
    except nvrtc.NVRTCError:
        passed = False
    log = nvrtc.getProgramLog(program)
    nvrtc.destroyProgram(program)
    return passed, log


def faults(passed, log):
    """What is wrong with a file, from the compiler's log: a list of texts."""
    wrong = [] if passed else ["it does not compile"]
    wrong += [line.strip() for line in log.splitlines() if re.search(r"\b(error|warning)\b", line) and "Remark" not in line]
    kernels = re.split(r"Compiling entry function '(\w+)'", log)[1:]
    for name, report in zip(kernels[::2], kernels[1::2], strict=True):
        spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
        used = re.search(r"Used \d+ registers", report)
        shared = re.search(r"(\d+) bytes smem", report)
        if spilled is None or used is None:
            wrong.append(f"{name}: nothing in the log about its registers")
        elif spilled[0] != "0 bytes spill stores, 0 bytes spill loads":
            wrong.append(f"{name}: {spilled[0]}")
        if shared is not None and int(shared[1]) > SHARED_MEMORY:
            wrong.append(f"{name}: {shared[1]} bytes of shared memory")
        if not name.startswith("mdl_"):
            wrong.append(f'{name}: a kernel is extern "C" and named mdl_...')
    return wrong if kernels or wrong else ["no kernel in it"]


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("path, macros", WAYS)
def test_a_file_compiles(nvrtc, path, macros, real, index, gpu):
    passed, log = compiled(nvrtc, path.read_text(), real, index, gpu, macros)
    assert faults(passed, log) == [], log


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_includes_nothing(path):
    """Where the toolkit's headers are missing or differ, it still compiles."""
    assert not re.search(r"^\s*#\s*include", path.read_text(), re.MULTILINE)


# ---------------------------------------------------------------------------------------------- the gate can be shut

KERNEL = 'extern "C" __global__ void mdl_planted(real* y, long long n) {{ {} }}'
GOOD = KERNEL.format("if (threadIdx.x < (index)n) y[threadIdx.x] = real(0);")
SPILLS = """extern "C" __global__ void __launch_bounds__(1024, 2) mdl_planted(real* y, long long n) {
    real a[64];
    #pragma unroll
    for (index i = 0; i < 64; ++i) a[i] = y[i];
    __syncthreads();
    #pragma unroll
    for (index i = 0; i < 64; ++i) y[i] = a[63 - i] * a[i];
}"""
SHARED = "__shared__ char s[{}]; s[threadIdx.x] = 0; __syncthreads(); y[0] = s[threadIdx.x ^ 1];"
PLANTED = [
    (KERNEL.format("y[0] = INFINITY;"), 'error: identifier "INFINITY" is undefined'),
    (KERNEL.format("y[0] = 0"), "it does not compile"),
    (KERNEL.format("int unused; y[0] = 0;"), 'warning #177-D: variable "unused" was declared but never referenced'),
    (SPILLS, "bytes spill stores"),
    (KERNEL.format(SHARED.format(SHARED_MEMORY + 1)), "too much shared data"),
    (GOOD.replace("mdl_planted", "planted"), 'planted: a kernel is extern "C" and named mdl_...'),
    (GOOD.replace('extern "C" ', ""), 'mdl_plantedPfx: a kernel is extern "C" and named mdl_...'),
    ("__device__ real mdl_planted(real y) { return y; }", "no kernel in it"),
    (GOOD + GOOD.replace("mdl_planted", "second"), "second: a kernel is"),
]


@pytest.mark.parametrize("real", REALS)
def test_a_good_kernel_passes(nvrtc, real):
    for source in (GOOD, KERNEL.format(SHARED.format(SHARED_MEMORY))):
        assert faults(*compiled(nvrtc, source, real, "long long", 90)) == []


@pytest.mark.parametrize("source, reason", PLANTED, ids=[reason for _, reason in PLANTED])
def test_a_bad_kernel_fails(nvrtc, source, reason):
    assert any(reason in fault for fault in faults(*compiled(nvrtc, source, "float", "int", 90)))


def test_the_limits_are_read_from_the_log():
    """Shared memory over the limit, which the compiler refuses by itself, and a log without the numbers."""
    log = "Compiling entry function 'mdl_a' for 'sm_90'\n 0 bytes spill stores, {} bytes spill loads\n"
    log += "Used 9 registers, {} bytes smem"
    assert faults(True, log.format(0, SHARED_MEMORY)) == []
    assert faults(True, log.format(0, SHARED_MEMORY + 1)) == ["mdl_a: 49153 bytes of shared memory"]
    assert faults(True, log.format(4, 0)) == ["mdl_a: 0 bytes spill stores, 4 bytes spill loads"]
    assert faults(True, log[:60]) == ["mdl_a: nothing in the log about its registers"]
