"""minidl.parallel: shares, threads, BLAS's number of threads, forks, Ctrl-C, scratch memory.

What might hang if it broke runs in a process of its own, which is ended after a minute.
"""

import os
import subprocess
import sys
import threading
from collections import Counter
from contextvars import ContextVar

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from minidl import parallel

NUMBERS = [1, 2, 3, 7]
MINUTE = 60  # longer than anything here takes on a busy machine
LATE = np.random.default_rng(0).random(1_000_000)  # sorting it takes some 50 ms, without the interpreter's lock


@pytest.fixture(autouse=True)
def _number_of_threads_as_before():
    before = parallel.get_num_threads()
    yield
    parallel.set_num_threads(before)


@pytest.fixture(params=NUMBERS)
def number(request):
    parallel.set_num_threads(request.param)
    return request.param


@pytest.fixture
def three_blas_threads():
    with threadpool_limits(3, user_api="blas"):
        assert blas_threads() == {3}
        yield


def blas_threads():
    """The number of threads of every BLAS in this process: one number, if they agree."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def numbers(first, stop):
    return list(range(first, stop))


SCRIPT = """
import os, signal, sys, threading
import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits
from minidl import parallel

def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

def numbers(first, stop):
    return list(range(first, stop))

def run_is_right():
    return [*map(sum, parallel.run(numbers, 10))] == [sum(range(*share)) for share in parallel.shares(10)]

def in_child(check):
    "Exit status of a forked child: 0 if check() is true there, below 0 if it hangs."
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os._exit(0 if check() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def late():
    np.sort(np.random.default_rng(0).random(1_000_000))
"""


def outcome(script, **environment):
    """What a fresh Python process prints that runs SCRIPT and then `script`."""
    before = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = [sys.executable, "-W", "ignore", "-c", SCRIPT + script]
    done = subprocess.run(process, capture_output=True, text=True, timeout=MINUTE, env={**before, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


# --------------------------------------------------------------------------------------------------- shares and slabs


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 7, 8, 100])
@pytest.mark.parametrize("at_least", [1, 2, 3, 50, 1000])
def test_shares_cover_the_range_in_order_and_are_alike(number, n, at_least):
    shares = parallel.shares(n, at_least)
    assert [i for first, stop in shares for i in range(first, stop)] == list(range(n))
    sizes = [stop - first for first, stop in shares]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(shares) == min(number, max(n // at_least, 1), n)
    assert len(shares) <= 1 or min(sizes) >= at_least


def test_slabs_cover_their_share_in_order():
    assert list(parallel.slabs(3, 10, 3)) == [slice(3, 6), slice(6, 9), slice(9, 10)]
    assert list(parallel.slabs(3, 5, 100)) == [slice(3, 5)]
    assert list(parallel.slabs(3, 3, 2)) == []
    assert list(parallel.slabs(0, 2, 0)) == [slice(0, 1), slice(1, 2)]


# ---------------------------------------------------------------------------------------------------------------- run


@pytest.mark.parametrize("n", [0, 1, 2, 3, 20])
def test_results_come_in_the_order_of_the_shares(number, n):
    for _ in range(20):
        assert parallel.run(numbers, n) == [numbers(*share) for share in parallel.shares(n)]


def test_at_least_reaches_the_shares(number):
    assert parallel.run(lambda *share: share, 10, at_least=4) == parallel.shares(10, at_least=4)


def test_every_share_has_a_thread_of_its_own_and_the_caller_takes_the_last(number):
    meeting = threading.Barrier(number)

    def meet(first, stop):
        meeting.wait(MINUTE)  # nobody passes before all are there
        return threading.get_ident()

    threads = parallel.run(meet, 2 * number)
    assert len(set(threads)) == number and threads[-1] == threading.get_ident()


def test_no_more_threads_are_kept_than_asked_for():
    parallel.set_num_threads(1)
    parallel.set_num_threads(3)
    others = set(threading.enumerate())  # among them threads that are about to end
    all_asked = threading.Event()
    meeting = threading.Barrier(3, action=all_asked.set)

    def work(first, stop):
        return meeting.wait(MINUTE) if first == 2 else all_asked.wait(MINUTE)

    users = [threading.Thread(target=parallel.run, args=(work, 3)) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join(MINUTE)
    kept = set(threading.enumerate()) - others
    assert all_asked.is_set() and len(kept) == 2
    parallel.set_num_threads(2)
    for thread in kept:
        thread.join(MINUTE)
        assert not thread.is_alive()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_after_every_share_has_finished(failing):
    parallel.set_num_threads(3)
    finished, failed = [], threading.Event()

    def work(first, stop):
        if first == failing:
            failed.set()
            raise KeyError(f"share {first}")
        assert failed.wait(MINUTE)
        np.sort(LATE)
        finished.append(first)

    with pytest.raises(KeyError, match=f"share {failing}"):
        parallel.run(work, 3)
    assert sorted([*finished, failing]) == [0, 1, 2]
    assert parallel.run(numbers, 3) == [[0], [1], [2]]


def test_the_first_share_s_error_is_raised_whichever_comes_first():
    parallel.set_num_threads(3)
    second_failed = threading.Event()

    def work(first, stop):
        if first == 0:
            assert second_failed.wait(MINUTE)
        if first == 1:
            second_failed.set()
        if first < 2:
            raise KeyError(f"share {first}")

    with pytest.raises(KeyError, match="share 0"):
        parallel.run(work, 3)


def test_the_calling_thread_s_error_comes_before_the_others():
    parallel.set_num_threads(2)

    def work(first, stop):
        raise (KeyError if first == 0 else KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        parallel.run(work, 2)


def test_a_run_inside_a_share_runs_on_its_thread_and_does_not_wait_for_others():
    script = """
def inner(first, stop):
    return numbers(first, stop), threading.get_ident()

def outer(first, stop):
    result = parallel.run(lambda *share: parallel.run(inner, 5), 3)
    assert {thread for row in result for _, thread in row} == {threading.get_ident()}
    return [[share for share, _ in row] for row in result]

for number in (1, 2, 3, 7):
    parallel.set_num_threads(number)
    row = [numbers(*share) for share in parallel.shares(5)]
    for n in (1, 2, 20):
        assert parallel.run(outer, n) == [[row] * len(parallel.shares(3))] * len(parallel.shares(n))
print("done")
"""
    assert outcome(script) == "done"


def test_after_a_failed_share_its_thread_is_free_for_others():
    parallel.set_num_threads(2)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            parallel.run(lambda first, stop: 1 // 0, 2)
    meeting = threading.Barrier(2)
    assert parallel.run(lambda first, stop: meeting.wait(MINUTE) >= 0, 2) == [True, True]


def test_several_threads_of_the_user_at_once():
    script = """
wrong = []

def user():
    for n in range(1, 200):
        if parallel.run(numbers, n) != [numbers(*share) for share in parallel.shares(n)]:
            wrong.append(n)

for number in (1, 2, 3, 7):
    parallel.set_num_threads(number)
    users = [threading.Thread(target=user) for _ in range(4)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
print(wrong, parallel._threads.blas_holders)
"""
    assert outcome(script) == "[] 0"


def test_a_user_s_thread_goes_on_after_the_main_thread_has_ended():
    script = """
def user():
    threading.main_thread().join()
    print(parallel.run(numbers, 4))
    parallel.set_num_threads(3)
    print(parallel.run(numbers, 3))
    try:
        parallel.run(lambda first, stop: 1 // 0, 2)
    except ZeroDivisionError:
        print("raised", flush=True)

parallel.set_num_threads(2)
parallel.run(numbers, 4)
threading.Thread(target=user).start()
"""
    assert outcome(script).splitlines() == ["[[0, 1], [2, 3]]", "[[0], [1], [2]]", "raised"]


def test_the_number_may_change_while_shares_run():
    parallel.set_num_threads(2)
    inside, go, results = threading.Barrier(3), threading.Event(), []

    def work(first, stop):
        inside.wait(MINUTE)
        assert go.wait(MINUTE)
        return first, stop

    user = threading.Thread(target=lambda: results.extend(parallel.run(work, 4)))
    user.start()
    inside.wait(MINUTE)
    parallel.set_num_threads(3)
    assert parallel.run(numbers, 3) == [[0], [1], [2]]
    go.set()
    user.join(MINUTE)
    assert results == [(0, 2), (2, 4)]


def test_shares_see_the_caller_s_context(number):
    here = ContextVar("here", default="default")
    here.set("the caller's")
    assert set(parallel.run(lambda first, stop: here.get(), 7)) == {"the caller's"}


@pytest.mark.parametrize("failing", [0, 1])
def test_numpy_s_error_state_holds_in_every_share(failing):
    parallel.set_num_threads(2)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel.run(lambda first, stop: np.ones(1) / (first != failing), 2)


# --------------------------------------------------------------------------------------------------------------- BLAS


def test_blas_is_on_one_thread_inside_and_as_before_after(number, three_blas_threads):
    assert parallel.run(lambda first, stop: blas_threads(), 5) == [{1}] * len(parallel.shares(5))
    assert blas_threads() == {3}


def test_blas_is_on_one_thread_in_one_share_too(number, three_blas_threads):
    assert parallel.run(lambda first, stop: blas_threads(), 1) == [{1}]
    assert parallel.run(lambda first, stop: blas_threads(), 5, at_least=5) == [{1}]
    assert blas_threads() == {3}


def test_blas_stays_on_one_thread_after_an_inner_run(number, three_blas_threads):
    def work(first, stop):
        parallel.run(numbers, 5)
        return blas_threads()

    assert parallel.run(work, 5) == [{1}] * min(number, 5)
    assert blas_threads() == {3}


def test_blas_is_as_before_after_an_error(number, three_blas_threads):
    def work(first, stop):
        raise KeyError

    with pytest.raises(KeyError):
        parallel.run(work, 5)
    assert blas_threads() == {3}


def test_blas_stays_on_one_thread_until_the_last_of_two_callers_has_left(number, three_blas_threads):
    first_inside, second_inside, first_left = (threading.Event() for _ in range(3))
    seen = []

    def first_work(first, stop):
        first_inside.set()
        assert second_inside.wait(MINUTE)

    def second_work(first, stop):
        second_inside.set()
        assert first_left.wait(MINUTE)
        seen.append(blas_threads())

    def second_caller():
        assert first_inside.wait(MINUTE)
        parallel.run(second_work, 2)

    other = threading.Thread(target=second_caller)
    other.start()
    parallel.run(first_work, 2)
    first_left.set()
    other.join(MINUTE)
    assert seen == [{1}] * min(number, 2) and blas_threads() == {3}


def test_blas_is_on_one_thread_and_back_whichever_thread_asks(three_blas_threads):
    seen, done, checked = [], threading.Event(), threading.Event()

    def ask():
        seen.extend([*parallel.run(lambda *_: blas_threads(), 2), blas_threads()])
        done.set()
        assert checked.wait(MINUTE)

    parallel.set_num_threads(2)
    parallel.run(numbers, 2)
    user = threading.Thread(target=ask)
    user.start()
    assert done.wait(MINUTE)
    with threadpool_limits(2, user_api="blas"):
        mine = blas_threads()
    checked.set()
    user.join(MINUTE)
    assert seen == [{1}, {1}, {3}] and mine == {2} and blas_threads() == {3}


def test_blas_s_number_is_looked_up_anew_each_time(three_blas_threads):
    parallel.run(numbers, 2)
    with threadpool_limits(2, user_api="blas"):
        parallel.run(numbers, 2)
        assert blas_threads() == {2}


# ------------------------------------------------------------------------------------------------- number of threads


def test_the_number_that_was_set(number):
    assert parallel.get_num_threads() == number


def test_a_numpy_int_will_do():
    parallel.set_num_threads(np.int64(3))
    assert parallel.get_num_threads() == 3 and type(parallel.get_num_threads()) is int


@pytest.mark.parametrize(
    "wrong, error, rule",
    [
        *((wrong, TypeError, "an int") for wrong in (1.0, "2", None, True, [2])),
        *((wrong, ValueError, "at least 1") for wrong in (0, -3)),
    ],
)
def test_a_wrong_number(wrong, error, rule):
    before = parallel.get_num_threads()
    with pytest.raises(error) as raised:
        parallel.set_num_threads(wrong)
    assert str(raised.value) == f"set_num_threads: n must be {rule}, got {wrong!r}"
    assert parallel.get_num_threads() == before


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize("given, expected", [("5", 5), ("6,2", 6), (" 7 , 1", 7)])
def test_omp_num_threads_is_honoured(given, expected):
    assert outcome("print(parallel.get_num_threads())", OMP_NUM_THREADS=given) == str(expected)


@pytest.mark.parametrize("malformed", ["", "0", "-2", "two", "1.5", "²", ",3"])
def test_a_malformed_omp_num_threads_is_ignored(malformed):
    assert outcome("print(parallel.get_num_threads())", OMP_NUM_THREADS=malformed) == str(cores())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not say which cores a process may use")
def test_the_default_is_the_number_of_cores_that_the_process_may_use():
    assert outcome("print(parallel.get_num_threads())") == str(cores())
    script = "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]); print(parallel._default_threads())"
    assert outcome(script) == "1"


# --------------------------------------------------------------------------------------------------------------- fork


@needs_fork
def test_a_child_of_a_process_with_live_threads_computes():
    script = """
for number in (1, 2, 3):
    parallel.set_num_threads(number)
    assert run_is_right()
    print(in_child(run_is_right), run_is_right(), parallel.get_num_threads())
"""
    assert outcome(script).splitlines() == ["0 True 1", "0 True 2", "0 True 3"]


@needs_fork
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_child_forked_while_another_thread_s_shares_run(number):
    script = f"""
parallel.set_num_threads({number})
inside, go = threading.Barrier({number} + 1), threading.Event()

def work(first, stop):
    inside.wait()
    go.wait()
    return blas_threads()

def child():
    before, result = blas_threads(), run_is_right()
    during, after = parallel.run(lambda first, stop: blas_threads(), 4), blas_threads()
    return result and before == after == {{3}} and during == [{{1}}] * {number}

with threadpool_limits(3, user_api="blas"):
    results = []
    user = threading.Thread(target=lambda: results.extend(parallel.run(work, {number})))
    user.start()
    inside.wait()
    print(in_child(child))
    go.set()
    user.join()
    print(results == [{{1}}] * {number}, blas_threads())
"""
    assert outcome(script).splitlines() == ["0", "True {3}"]


@needs_fork
def test_a_child_forked_by_a_share_computes_on_all_its_threads():
    script = """
def child():
    return run_is_right() and len({*parallel.run(lambda first, stop: threading.get_ident(), 2)}) == 2

parallel.set_num_threads(2)
print(parallel.run(lambda first, stop: in_child(child) if first == 0 else 0, 2), run_is_right())
"""
    assert outcome(script) == "[0, 0] True"


BLAS_IS_SLOW = """
library = parallel._threads.blas_libraries()[0]
set_num_threads = library.set_num_threads

def slowly(number):
    set_num_threads(number)
    if number == 1:
        at_one()
"""


@needs_fork
def test_a_fork_waits_until_a_change_of_blas_s_number_is_complete():
    script = f"""{BLAS_IS_SLOW}
changing = threading.Event()

def at_one():
    changing.set()
    late()

with threadpool_limits(3, user_api="blas"):
    library.set_num_threads = slowly
    user = threading.Thread(target=lambda: parallel.run(numbers, 2))
    user.start()
    changing.wait()
    print(in_child(lambda: blas_threads() == {{3}}))
    user.join()
"""
    assert outcome(script) == "0"


@needs_fork
def test_a_signal_s_handler_may_fork_at_any_time():
    script = f"""{BLAS_IS_SLOW}
at_one = lambda: signal.raise_signal(signal.SIGUSR1)
signal.signal(signal.SIGUSR1, lambda *_: print(in_child(lambda: True)))
signal.alarm(40)
with threadpool_limits(3, user_api="blas"):
    library.set_num_threads = slowly
    parallel.run(numbers, 2)
"""
    assert set(outcome(script).split()) == {"0"}


@needs_fork
def test_processes_of_multiprocessing_s_fork_context():
    script = """
import multiprocessing

def work(n):
    return parallel.run(numbers, n)

parallel.set_num_threads(2)
parallel.run(numbers, 4)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map_async(work, [2, 3]).get(30))
"""
    assert outcome(script) == "[[[0], [1]], [[0], [1, 2]]]"


# ------------------------------------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_in_the_caller_s_share_leaves_the_threads_usable(number, three_blas_threads):
    def work(first, stop):
        if stop == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parallel.run(work, 8)
    assert blas_threads() == {3}
    assert parallel.run(numbers, 8) == [numbers(*share) for share in parallel.shares(8)]
    meeting = threading.Barrier(number)
    assert all(parallel.run(lambda first, stop: meeting.wait(MINUTE) >= 0, number))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not send a signal to a thread")
def test_ctrl_c_while_the_caller_waits_is_raised_after_the_other_shares_have_finished():
    script = """
parallel.set_num_threads(2)
caller_done, pressed, finished = threading.Event(), threading.Event(), []

def press(*_):
    pressed.set()
    raise KeyboardInterrupt

def work(first, stop):
    if first == 1:
        caller_done.set()
    else:
        caller_done.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        pressed.wait()
        late()
        finished.append(first)

signal.signal(signal.SIGUSR1, press)
try:
    parallel.run(work, 2)
except KeyboardInterrupt:
    print([*finished], run_is_right())
"""
    assert outcome(script) == "[0] True"


# ------------------------------------------------------------------------------------------------------------ scratch


def address(name, shape, dtype=np.float32):
    return parallel.scratch(name, shape, dtype).ctypes.data


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4), [6, 7]])
@pytest.mark.parametrize("dtype", [np.float32, "float64", np.uint8, bool])
def test_scratch_is_as_asked_for(shape, dtype):
    array = parallel.scratch("asked", shape, dtype)
    assert array.shape == tuple(shape) and array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned


def test_scratch_of_one_name_is_the_same_memory():
    first = address("same", (8, 8))
    assert first == address("same", (8, 8)) == address("same", (63,)) == address("same", (8, 8))


def test_scratch_grows_and_stays_grown():
    parallel.scratch("grow", (4,), np.float32)[:] = 1
    large = parallel.scratch("grow", (1000, 1000), np.float32)
    large[...] = 2
    small = parallel.scratch("grow", (4,), np.float32)
    assert np.shares_memory(large, small) and large.ctypes.data == small.ctypes.data
    assert np.shares_memory(large, parallel.scratch("grow", (1000, 1000), np.float32))


def test_scratch_of_different_names_does_not_overlap():
    arrays = [parallel.scratch(name, (50,), np.float64) for name in "abcd"]
    for i, array in enumerate(arrays):
        array[...] = i
    assert [Counter(array.tolist()) for array in arrays] == [{i: 50} for i in range(4)]


def test_scratch_in_more_shapes_than_are_remembered():
    large = parallel.scratch("shapes", (1000,), np.float64)
    for n in [*range(300), 7, 299]:
        array = parallel.scratch("shapes", (n,), np.float64)
        assert array.shape == (n,) and (n == 0 or array.ctypes.data == large.ctypes.data)


def test_scratch_is_each_thread_s_own(number):
    meeting = threading.Barrier(number)

    def work(first, stop):
        mine = parallel.scratch("own", (100,), np.float64)
        mine[...] = first
        meeting.wait(MINUTE)  # all have written
        assert (mine == first).all()
        return mine.ctypes.data

    for _ in range(3):
        assert len(set(parallel.run(work, number))) == number


def test_scratch_of_a_thread_is_reused_from_run_to_run():
    parallel.set_num_threads(2)

    def work(first, stop):
        return threading.get_ident(), address("again", (100,))

    parallel.run(work, 2)
    seen = {pair for _ in range(5) for pair in parallel.run(work, 2)}
    assert len(seen) == len({thread for thread, _ in seen})


def test_scratch_memory_is_given_back():
    first = parallel.scratch("of this test", (1000,), np.float32)
    address = first.ctypes.data
    assert parallel.scratch("of this test", (1000,), np.float32).ctypes.data == address
    parallel.release_scratch()
    assert parallel.scratch("of this test", (1000,), np.float32).ctypes.data != address  # `first` keeps the old memory
