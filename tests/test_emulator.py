"""The emulator of CUDA C, which must find what it is there to find; and the stand-in's modules, which run on it."""

import math
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from emulator import emulator

from minidl import Device

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))

DEFINES = {"real": "double", "index": "int"}
SOURCE = """
extern "C" __global__ void mdl_scale(const real* __restrict__ x, real* __restrict__ y, long long size, double factor) {
  for (index i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) y[i] = x[i] * real(factor);
}

extern "C" __global__ void mdl_number(int* numbers) {
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  numbers[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1000 * block + thread;
}

extern "C" __global__ void mdl_sum(const real* x, real* sums, long long size, long long with_barrier) {
  __shared__ real part[64];
  real sum = 0;
  for (index i = blockIdx.x * 64 + threadIdx.x; i < size; i += gridDim.x * 64) sum += x[i];
  part[threadIdx.x] = sum;
  __syncthreads();
  for (int half = 32; half > 0; half /= 2) {
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    if (with_barrier) __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}

extern "C" __global__ void mdl_last(int* last) { last[0] = blockIdx.x * blockDim.x + threadIdx.x; }

extern "C" __global__ void mdl_never_written(real* x) {
  __shared__ real forgotten[4];
  x[blockIdx.x] = forgotten[3];
  if (blockIdx.x == 0) forgotten[3] = 1;
}

extern "C" __global__ void mdl_early_end(real* x) {
  if (threadIdx.x == 3) return;
  __syncthreads();
}

extern "C" __global__ void mdl_two_barriers(real* x) {
  if (threadIdx.x < 2)
    __syncthreads();
  else
    __syncthreads();
}

extern "C" __global__ void mdl_write(real* x, long long i) { x[i] = 1; }
extern "C" __global__ void mdl_read(real* x, long long i) { x[0] = x[i]; }
extern "C" __global__ void mdl_shared(real* x, long long i) {
  __shared__ real before[4], after[4];
  real* p = before;
  p[i] = after[0] = 1;
  x[0] = p[0];
}

extern "C" __global__ void __launch_bounds__(32, 2)
    mdl_types(const unsigned char* a, unsigned char* b, const long long* c, const unsigned int* d, const float* e) {}

extern "C" __global__ void mdl_functions(const real* x, real* y) {
  const real v = x[threadIdx.x];
  const real all[] = {sqrt(v), rsqrt(v), exp(v), log(v), pow(v, real(1.5)), fabs(-v), tanh(v), min(v, real(2)),
                      max(v, real(2))};
  for (int k = 0; k < 9; k++) y[threadIdx.x * 9 + k] = all[k];
}
"""


@pytest.fixture(scope="module")
def program():
    return emulator.compile(SOURCE, DEFINES)


@pytest.fixture(params=emulator.ORDERS)
def order(request):
    return request.param


# -------------------------------------------------------------------------------------------------------------- running


def test_a_kernel_runs_on_numpy_arrays(program, order, rng):
    x, y = rng.standard_normal((11, 13)), np.full((11, 13), np.nan)
    program.launch("mdl_scale", (2,), (32,), (x, y, x.size, 0.1), order)
    np.testing.assert_array_equal(y, x * 0.1)


def test_the_macros_are_the_sources_types():
    x, y = np.arange(5, dtype="float32"), np.zeros(5, "float32")
    emulator.compile(SOURCE, {"real": "float", "index": "long long"}).launch("mdl_scale", (1,), (2,), (x, y, 5, 0.1))
    np.testing.assert_array_equal(y, x * np.float32(0.1))


@pytest.mark.parametrize(
    "grid, block", [((1,), (1,)), ((5,), (7,)), ((2, 3), (4, 5)), ((2, 3, 4), (5, 2, 3)), ((1, 1, 3), (1024,))]
)
def test_every_thread_of_every_block_runs_once(program, order, grid, block):
    threads, blocks = math.prod(block), math.prod(grid)
    numbers = np.zeros(blocks * threads, "int32")
    program.launch("mdl_number", grid, block, (numbers,), order)
    np.testing.assert_array_equal(numbers.reshape(blocks, threads), 1000 * np.arange(blocks)[:, None] + np.arange(threads))


def test_grids_and_blocks_have_at_least_one_thread_as_cupy_makes_them(program):
    numbers = np.zeros(1, "int32")
    program.launch("mdl_number", (0,), (0, 0), (numbers,))
    assert numbers[0] == 0
    last = np.full(1, -1, "int32")
    program.launch("mdl_last", (0,), (0,), (last,))
    assert last[0] == 0


@pytest.mark.parametrize("grid, block", [((1,), (1025,)), ((1,), (32, 33)), ((2**31,), (1,)), ((1, 1, 1, 1), (1,))])
def test_too_large_grids_and_blocks(program, grid, block):
    with pytest.raises(ValueError, match="is too large"):
        program.launch("mdl_last", grid, block, (np.zeros(1, "int32"),))


def test_orders_differ(program):
    def last(order, seed=0):
        result = np.zeros(1, "int32")
        program.launch("mdl_last", (3,), (8,), (result,), order, seed)
        return int(result[0])

    assert (last("forward"), last("reverse")) == (23, 0)
    shuffled = [last("shuffled", seed) for seed in range(50)]
    assert shuffled == [last("shuffled", seed) for seed in range(50)]
    assert len(set(shuffled)) > 15 and set(shuffled) <= set(range(24))
    with pytest.raises(ValueError, match="not in tuple"):
        last("sideways")


def test_mathematical_functions(program):
    x, y = np.array([0.3, 1.0, 5.0]), np.empty((3, 9))
    program.launch("mdl_functions", (1,), (3,), (x, y))
    expected = [np.sqrt(x), x**-0.5, np.exp(x), np.log(x), x**1.5, x, np.tanh(x), np.minimum(x, 2), np.maximum(x, 2)]
    np.testing.assert_allclose(y, np.stack(expected, axis=1), rtol=1e-15)


# ------------------------------------------------------------------------------------------------- barriers and memory


def sums(program, order, with_barrier, x):
    result = np.zeros(3)
    program.launch("mdl_sum", (3,), (64,), (x, result, x.size, with_barrier), order, seed=5)
    return result


def test_barriers(program, order):
    x = np.arange(1000.0)  # whole numbers: sums in any order are equal
    np.testing.assert_array_equal(sums(program, order, 1, x), [x[np.arange(1000) // 64 % 3 == b].sum() for b in range(3)])


def test_a_missing_barrier_shows_in_another_order(program):
    x = np.arange(1000.0)
    right = sums(program, "forward", 1, x)
    wrong = [order for order in emulator.ORDERS if (sums(program, order, 0, x) != right).any()]
    assert {"forward", "shuffled"} <= set(wrong)


@pytest.mark.parametrize(
    "kernel, message",
    [
        ("mdl_early_end", "mdl_early_end: divergent __syncthreads: thread 0 waits in line 35, thread 3 is done"),
        ("mdl_two_barriers", "thread 0 waits in line 40, thread 2 waits in line 42"),
    ],
)
def test_a_barrier_that_some_threads_do_not_reach(program, order, kernel, message):
    with pytest.raises(RuntimeError, match=message):
        program.launch(kernel, (2,), (4,), (np.zeros(1),), order)
    test_barriers(program, order)  # what is left of the threads is gone


def test_shared_memory_begins_as_nan_in_every_block(program):
    x = np.zeros(2)
    program.launch("mdl_never_written", (2,), (1,), (x,))
    assert np.isnan(x).all()


def run(sanitize, kernel, place):
    """Launch a kernel with an array of 5 numbers in another process."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from emulator import emulator
program = emulator.compile({SOURCE!r}, {DEFINES!r}, {sanitize!r})
program.launch({kernel!r}, (1,), (1,), (np.zeros(5), {place}))
print("done")
"""
    environment = {**os.environ, **(emulator.sanitizer_environment() if sanitize else {})}
    return subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, timeout=120)


@pytest.mark.skipif(emulator.missing_sanitizer() is not None, reason=str(emulator.missing_sanitizer()))
@pytest.mark.parametrize(
    "kernel, place, message",
    [
        ("mdl_write", 4, None),
        ("mdl_write", 5, "AddressSanitizer: heap-buffer-overflow"),
        ("mdl_write", -1, "AddressSanitizer: heap-buffer-overflow"),
        ("mdl_read", 5, "AddressSanitizer: heap-buffer-overflow"),
        ("mdl_shared", 3, None),
        ("mdl_shared", 4, "insufficient space"),
    ],
)
def test_the_sanitizer_ends_the_process_at_an_access_outside_an_array(kernel, place, message):
    done = run("address", kernel, place)
    if message is None:
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    else:
        assert done.returncode != 0 and done.stdout == "" and message in done.stderr and "kernel.cu:" in done.stderr


# ------------------------------------------------------------------------------------------------------------ arguments

X, Y = np.zeros(4), np.zeros(4)
READ_ONLY = np.zeros(4)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "args, error, message",
    [
        ((X, Y, 4), TypeError, r"mdl_scale: takes 4 arguments \(const double\*, double\*, long long, double\), got 3"),
        ((X, Y, 4, 1.0, 1.0), TypeError, "takes 4 arguments .* got 5"),
        ((X.astype("f"), Y, 4, 1.0), TypeError, r"argument 0 must be const double\*, got an array of float32"),
        ((X, Y.astype("int64"), 4, 1.0), TypeError, r"argument 1 must be double\*, got an array of int64"),
        ((X, 0, 4, 1.0), TypeError, r"argument 1 must be double\*, got int"),
        ((X, Y, 4.0, 1.0), TypeError, "argument 2 must be long long, got float"),
        ((X, Y, True, 1.0), TypeError, "argument 2 must be long long, got bool"),
        ((X, Y, np.int64(4), 1.0), TypeError, "argument 2 must be long long, got int64"),
        ((X, Y, X, 1.0), TypeError, "argument 2 must be long long, got ndarray"),
        ((X, Y, 2**63, 1.0), ValueError, "argument 2 must be long long, got 9223372036854775808"),
        ((X, Y, 4, 1), TypeError, "argument 3 must be double, got int"),
        ((X, Y, 4, np.float32(1)), TypeError, "argument 3 must be double, got float32"),
        ((X[::2], Y, 2, 1.0), ValueError, r"in C order, got strides \(16,\) of shape \(2,\)"),
        ((X, np.zeros((2, 2)).T, 4, 1.0), ValueError, "argument 1 .* in C order"),
        ((X, READ_ONLY, 4, 1.0), ValueError, "got a read-only array"),
        ((X, X, 4, 1.0), ValueError, "argument 1 is written, and shares memory with argument 0"),
        ((X[:3], X[1:], 3, 1.0), ValueError, "shares memory"),
    ],
)
def test_arguments_that_are_not_what_the_parameters_say(program, args, error, message):
    with pytest.raises(error, match=message):
        program.launch("mdl_scale", (1,), (4,), args)


def test_arguments_that_are(program):
    program.launch("mdl_scale", (1,), (4,), (READ_ONLY, Y, 4, 1.0))
    program.launch("mdl_scale", (1,), (4,), (X[:2], X[2:], 2, 1.0))
    b, c, d, e = np.zeros(1, bool), np.zeros(1, "int64"), np.zeros(1, "uint32"), np.zeros(1, "float32")
    program.launch("mdl_types", (1,), (1,), (np.zeros(1, "uint8"), b, c, d, e))
    types = ["const unsigned char*", "unsigned char*", "const long long*", "const unsigned int*", "const float*"]
    assert program.parameters["mdl_types"] == types


@pytest.mark.parametrize("parameter", ["int n", "float f", "const char* text", "size_t n", "real** p"])
def test_parameters_that_the_launcher_does_not_pass(parameter):
    with pytest.raises(RuntimeError, match="a kernel's parameters are long long, double, or pointers"):
        emulator.compile(f'extern "C" __global__ void mdl_bad({parameter}) {{}}', DEFINES)


@pytest.mark.parametrize("name", ["INFINITY", "NAN", "undeclared"])
def test_what_the_gpus_compiler_lacks_is_lacking_here(name):
    with pytest.raises(RuntimeError, match=rf"kernel.cu:2:.*{name}"):
        emulator.compile(f'extern "C" __global__ void mdl_bad(real* x) {{\n  x[0] = {name};\n}}', DEFINES)


# ------------------------------------------------------------------------------------------------------ kept programs


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty directory for programs, and a process that knows none."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    emulator._program.cache_clear()
    return tmp_path / f"minidl-emulator-{os.getuid()}"


def programs(folder):
    return list(folder.glob("*.so"))


TINY = 'extern "C" __global__ void mdl_tiny(real* x) { x[0] = 1; }'


def test_a_program_is_compiled_once(elsewhere, monkeypatch):
    emulator.compile(TINY, DEFINES)
    assert len(programs(elsewhere)) == 1 and elsewhere.stat().st_mode & 0o777 == 0o700
    emulator._program.cache_clear()
    monkeypatch.setattr(emulator, "_build", None)
    x = np.zeros(1)
    emulator.compile(TINY, DEFINES).launch("mdl_tiny", (1,), (1,), (x,))
    assert x[0] == 1


def test_a_program_that_two_ask_for_at_once_is_compiled_once(elsewhere, monkeypatch):
    built, build = [], emulator._build
    monkeypatch.setattr(emulator, "_build", lambda *args: (built.append(args), build(*args)))
    ask = lambda _: emulator._program.__wrapped__(TINY, tuple(DEFINES.items()), None, False)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(ask, range(2)))) == 2
    assert len(built) == 1


@pytest.mark.parametrize("change", ["source", "macro", "header", "sanitizer"])
def test_another_program_is_compiled_again(elsewhere, monkeypatch, tmp_path, change):
    emulator.compile(TINY, DEFINES)
    emulator._program.cache_clear()
    if change == "header":
        copy = tmp_path / "cuda.h"
        copy.write_text(emulator.HEADER.read_text() + "// changed\n")
        monkeypatch.setattr(emulator, "HEADER", copy)
    monkeypatch.setattr(emulator, "Program", lambda library, kernels: None)
    source = TINY.replace("1;", "2;") if change == "source" else TINY
    emulator.compile(source, {**DEFINES, **({"index": "long long"} if change == "macro" else {})},
                     sanitize="address" if change == "sanitizer" else None)  # fmt: skip
    assert len(programs(elsewhere)) == 2


def test_a_program_that_is_not_right_leaves_nothing(elsewhere):
    with pytest.raises(RuntimeError, match="the emulator's compiler refused the kernel"):
        emulator.compile("this is no program", DEFINES)
    assert programs(elsewhere) == []


def test_a_directory_of_somebody_else_is_not_used(elsewhere, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 123456)
    with pytest.raises(RuntimeError, match="belongs to somebody else"):
        emulator.compile(TINY, DEFINES)


# ------------------------------------------------------------------------------------------------ the stand-in's modules


@pytest.fixture
def two_gpus(monkeypatch):
    yield fake_cupy.install(monkeypatch, gpus=2)
    assert fake_cupy.errors == []


def scale(cupy):
    return cupy.RawModule(code=SOURCE, options=("-Dreal=double", "-Dindex=int")).get_function("mdl_scale")


def test_a_modules_kernel(two_gpus):
    device = Device("cuda:0")
    with device.active():
        x, y = device.asarray(np.arange(6.0)), two_gpus.empty((6,))
        scale(two_gpus)((2,), (2,), (x, y, 6, 2.0))
    assert device.to_host(y).tolist() == [0, 2, 4, 6, 8, 10]
    assert two_gpus.launches == ["mdl_scale"]


def test_a_module_has_the_order_of_the_stand_in(two_gpus, monkeypatch):
    with Device("cuda:0").active():
        last = two_gpus.RawModule(code=SOURCE, options=("-Dreal=float", "-Dindex=int")).get_function("mdl_last")
        result = two_gpus.zeros((1,), "int32")
        last((2,), (4,), (result,))
        assert int(result[0]) == 7
        monkeypatch.setattr(two_gpus, "order", "reverse")
        last((2,), (4,), (result,))
        assert int(result[0]) == 0


def test_options_and_names_of_a_module(two_gpus):
    for options in ("-Dreal=float", ["-Dreal=float"], ("-O3",), ("-Dreal",), (1,)):
        with pytest.raises(TypeError, match="options must be a tuple of -Dname=value"):
            two_gpus.RawModule(code=SOURCE, options=options)
    with Device("cuda:0").active(), pytest.raises(RuntimeError, match=r"symbol not found \(mdl_none\)"):
        two_gpus.RawModule(code=SOURCE, options=("-Dreal=float", "-Dindex=int")).get_function("mdl_none")


def test_a_kernel_belongs_to_one_gpu_and_takes_its_arrays_only(two_gpus):
    first, second = Device("cuda:0"), Device("cuda:1")
    with first.active():
        kernel, x, y = scale(two_gpus), two_gpus.ones((4,)), two_gpus.ones((4,))
    with second.active():
        z = two_gpus.ones((4,))
        with pytest.raises(RuntimeError, match="mdl_scale was loaded on GPU 0"):
            kernel((1,), (4,), (z, two_gpus.ones((4,)), 4, 1.0))
    with first.active():
        for arrays in ((z, y), (x, z)):
            with pytest.raises(RuntimeError, match="an array of GPU 1 is used while GPU 0 is current"):
                kernel((1,), (4,), (*arrays, 4, 1.0))
        with pytest.raises(TypeError, match="Unsupported type"):
            kernel((1,), (4,), (np.ones(4), y, 4, 1.0))
        with pytest.raises(TypeError, match="argument 2 must be long long"):
            kernel((1,), (4,), (x, y, 4.0, 1.0))


def test_a_kernel_needs_a_stream(two_gpus):
    with Device("cuda:0").active():
        kernel, x, y = scale(two_gpus), two_gpus.ones((4,)), two_gpus.ones((4,))
    with pytest.raises(RuntimeError, match="a kernel on the null stream"):
        kernel((1,), (4,), (x, y, 4, 1.0))


def test_a_kernel_reads_const_arrays_and_writes_others(two_gpus, monkeypatch):
    monkeypatch.setattr(two_gpus, "devices", 1)
    first = Device("cuda:0")
    with pytest.warns(UserWarning, match="second context"):
        second = Device("cuda:1")  # another stream on the same GPU
    with first.active():
        kernel, x, y = scale(two_gpus), two_gpus.ones((4,)), two_gpus.ones((4,))
        kernel((1,), (4,), (x, y, 4, 1.0))
        written = first.stream.record()
    with second.active():
        mine = two_gpus.ones((4,))
        with pytest.raises(RuntimeError, match=r"uses what .* wrote, with no event in between"):
            kernel((1,), (4,), (y, mine, 4, 1.0))
        second.stream.wait_event(written)
        kernel((1,), (4,), (y, mine, 4, 1.0))  # reads y
        read = second.stream.record()
    with first.active():
        kernel((1,), (4,), (y, x, 4, 1.0))  # two may read
        with pytest.raises(RuntimeError, match="writes what another stream still reads"):
            kernel((1,), (4,), (x, y, 4, 1.0))
        first.stream.wait_event(read)
        kernel((1,), (4,), (x, y, 4, 1.0))


ROUNDED = """
extern "C" __global__ void mdl_rest(const real* __restrict__ x, real* __restrict__ y, long long n) {
  if (threadIdx.x < n) y[threadIdx.x] = x[0] * x[1] + x[2];
}
extern "C" __global__ void mdl_half(const real* __restrict__ x, real* __restrict__ y, long long n) {
  if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x] * real(0.5);
}
"""


def ran(kernel, x, real, **settings):
    y = np.full(len(x), np.nan, x.dtype)
    program = emulator.compile(ROUNDED, {"real": real, "index": "int"}, **settings)
    program.launch(kernel, (1,), (32,), (x, y, len(x)))
    return y


@pytest.mark.skipif(emulator.missing_fused() is not None, reason=str(emulator.missing_fused()))
def test_a_fused_multiply_add_keeps_what_a_product_would_lose():
    x = np.array([1 + 2.0**-20, 1 + 2.0**-20, -1 - 2.0**-19], "f")
    assert ran("mdl_rest", x, "float")[0] == 0
    assert ran("mdl_rest", x, "float", fused=True)[0] == 2.0**-40


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 flushes to zero here")
def test_small_floats_are_zero_as_on_a_gpu_and_doubles_are_not():
    tiny = np.finfo("f").tiny
    assert ran("mdl_half", np.array([tiny, -tiny, tiny / 4, 2 * tiny], "f"), "float").tolist() == [0, 0, 0, tiny]
    assert ran("mdl_half", np.array([np.finfo("d").tiny]), "double")[0] == np.finfo("d").tiny / 2
    assert np.float32(tiny) * np.float32(0.5) > 0, "and the program's own arithmetic is as before"
