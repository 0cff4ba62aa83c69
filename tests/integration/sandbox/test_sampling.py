"""Tests resource usage without cgroups."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from remit.backends import sampling
from remit.backends.sampling import Sampler, look

DEPTH = 100
# Each process is a child of the one before. The last one reports, and all end with their standard input.
NESTED = f"""
import os, sys
for level in range({DEPTH}):
    if os.fork():
        sys.stdin.read()
        os._exit(0)
print("nested", flush=True)
sys.stdin.read()
"""
# A child that works and reports its end; another one for each line of standard input, once the one before is dead.
ONE_BY_ONE = """
import os, sys
for line in sys.stdin:
    if pid := os.fork():
        os.waitpid(pid, 0)
        print("ended", flush=True)
    else:
        while os.times().user < 0.1: pass
        print("worked", flush=True)
        sys.stdin.readline()
        os._exit(0)
"""


@contextmanager
def program(source: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with process:
        yield process


@pytest.fixture
def shallow() -> Iterator[None]:
    """Limits Python's recursion to less than the depth of the process tree."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + DEPTH // 2)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("shallow")
def test_processes_nested_deeper_than_python_recurses() -> None:
    with program(NESTED) as process:
        assert process.stdout
        assert process.stdout.readline() == "nested\n"
        assert look(process.pid)["processes"] == DEPTH


def test_what_ended_still_counts_and_is_not_kept() -> None:
    sampler = Sampler()
    with program(ONE_BY_ONE) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(3):
            process.stdin.write("go on\n")
            assert process.stdout.readline() == "worked\n"
            sampler.sample(process.pid)
            process.stdin.write("end\n")
            assert process.stdout.readline() == "ended\n"
            sampler.sample(process.pid)
        assert len(sampler) == 0
        assert sampler.usage().cpu_seconds >= 0.3


def test_a_look_under_way_hides_nothing_of_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt may end while its processes are sampled."""
    sampler, looking, go_on = Sampler(), threading.Event(), threading.Event()
    with program(ONE_BY_ONE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("go on\n")
        assert process.stdout.readline() == "worked\n"
        sampler.sample(process.pid)
        seen = sampler.usage()
        assert seen.cpu_seconds >= 0.1

        def ended(pid: int) -> list[int]:
            looking.set()
            go_on.wait()
            return []

        monkeypatch.setattr(sampling, "_descendants", ended)
        look_again = threading.Thread(target=sampler.sample, args=(process.pid,))
        look_again.start()
        looking.wait()
        during = sampler.usage()
        go_on.set()
        look_again.join()
        process.stdin.write("end\n")
    assert during == sampler.usage() == seen
