"""pipe.py: a program whose reader leaves, at whatever moment, ends in silence and with the exit code of SIGPIPE."""

import os
import subprocess
import sys

import pytest

from minidl import pipe

PREFACE = "import sys\nfrom minidl.pipe import going_on, reader_left, until_the_reader_leaves\n"


def ended(program, *, errors=subprocess.PIPE):
    """The exit code and the standard error of a program whose reader has left before it writes."""
    command = [sys.executable, "-c", f"{PREFACE}sys.stdin.read()\n{program}"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
    with subprocess.Popen(command, **pipes, text=True, env=buffered) as process:
        process.stdout.close()
        process.stdin.close()
        text = process.stderr.read() if errors == subprocess.PIPE else ""
        return process.wait(timeout=60), text


@pytest.mark.parametrize(
    "main",
    [
        'print("x", flush=True) or 0',
        'print("x") or 0',  # written at the end of the program
        'print("x" * 100000) or 0',
        'sys.exit(print("x"))',  # as argparse does after --help
    ],
)
def test_it_ends_in_silence(main):
    assert ended(f"sys.exit(until_the_reader_leaves(lambda: {main}))") == (141, "")


def test_what_the_interpreter_would_do_alone():
    """The same program without it: or the tests above would prove nothing."""
    code, text = ended("print('x')")
    assert code == 120 and "BrokenPipeError" in text


def test_errors_in_the_same_pipe():
    program = "sys.exit(until_the_reader_leaves(lambda: print('x', file=sys.stderr, flush=True)))"
    assert ended(program, errors=subprocess.STDOUT) == (141, "")


def test_a_program_that_goes_on_is_told():
    program = """
def main():
    with going_on():
        before = reader_left()
        print("x", flush=True)
        print("y", flush=True)
        sys.stderr.write(f"{before} {reader_left()}")
    return 0
sys.exit(until_the_reader_leaves(main))
"""
    assert ended(program) == (141, "False True")


def test_an_error_keeps_its_exit_code():
    program = "sys.exit(until_the_reader_leaves(lambda: (sys.stderr.write('bad'), 2)[1]))"
    assert ended(program) == (2, "bad")


def test_with_a_reader_nothing_is_different():
    program = f"{PREFACE}print(until_the_reader_leaves(lambda: print('caf\\u00e9', '\\udcff.jpg', reader_left()) or 3))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8:strict"},
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("caf\u00e9 \\udcff.jpg False\n3\n", "")


def test_streams_come_back(capsys):
    streams = sys.stdout, sys.stderr
    assert pipe.until_the_reader_leaves(lambda: print("x") or 0) == 0
    assert (sys.stdout, sys.stderr) == streams and capsys.readouterr().out == "x\n" and not pipe.reader_left()
