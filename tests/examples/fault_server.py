"""Runs train.py many times, each in a process of its own that a signal may end anywhere, without importing it many times.

Reads a job as a line of JSON from standard input, forks, and answers with two lines: the child's process number at once, and
how it ended, a JSON list: its exit code (negative: the signal's number) and the number of points it passed.

    {"arguments": [...], "signal": 9, "at": 17}          or "read": 17 instead of "at"

A point is a call that changes the file system: a file opened to write, renamed or deleted, a folder made or deleted, a sync.
The signal is sent before the call at point number `at`, or in the reading of image number `read`, both counted from 1.
"""

import itertools
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "alexnet"))

import run
import train

from minidl.data import ImageFolder

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


class Points:
    """Counts points, and sends the signal at one of them."""

    def __init__(self, number, at):
        self.passed, self.signal, self.at = 0, number, at
        sys.addaudithook(self.look)
        sync = os.fsync
        os.fsync = lambda handle: (self.count(), sync(handle))[1]

    def look(self, event, details):
        writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in CHANGES:
            self.count()

    def count(self):
        self.passed += 1
        if self.passed == self.at:
            os.kill(os.getpid(), self.signal)


def die_reading(number, at):
    """The signal comes while image number `at` is read, in whichever thread reads it."""
    read, reads = ImageFolder.__getitem__, itertools.count(1)

    def read_or_die(self, index):
        if next(reads) == at:
            os.kill(os.getpid(), number)
        return read(self, index)

    ImageFolder.__getitem__ = read_or_die


def child(job, report):
    """The exit code of train.py; how many points there were goes into the pipe."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(silent, standard)
    run.draw_curves = lambda folder: None
    number = job.get("signal", signal.SIGKILL)
    points = Points(number, job.get("at"))
    die_reading(number, job.get("read"))
    try:
        code = train.main(job["arguments"])
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = 130
    os.write(report, str(points.passed).encode())
    return code


for line in sys.stdin:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = child(json.loads(line), write)
        finally:
            os._exit(code)
    os.close(write)
    print(pid, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    passed = os.read(read, 20) or b"0"
    os.close(read)
    print(json.dumps([code, int(passed)]), flush=True)
