"""Tests the resource usage of a process tree, and which of its processes is the command."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from remit.operations.process.usage import main_pid, measure
from support import wait_until

_PATIENCE = 30.0


@pytest.fixture
def tree() -> Iterator[int]:
    """Provides the pid of a process whose child, like a namespace's init, has two children."""
    command = ["/bin/sh", "-c", "/bin/sh -c '/bin/sleep 60 & /bin/sleep 60; true' & wait"]
    outer = subprocess.Popen(command, start_new_session=True)
    try:
        wait_until(lambda: measure(outer.pid)["processes"] == 2, "two processes of the command")
        yield outer.pid
    finally:
        subprocess.run(["/usr/bin/pkill", "-KILL", "-s", str(outer.pid)], check=False)
        outer.wait(_PATIENCE)


def test_the_processes_of_the_command_are_summed_up(tree: int) -> None:
    used = measure(tree)
    assert (used["processes"], used["threads"]) == (2, 2)
    assert used["memoryBytes"] > 0
    assert used["descriptors"] > 0


def test_the_command_is_what_was_executed_in_place_of_bubblewrap(tree: int) -> None:
    assert main_pid(tree, "bwrap") is not None
    assert main_pid(tree, "/bin/sleep") is None


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    gone = subprocess.Popen(["/bin/true"])
    gone.wait(_PATIENCE)
    assert measure(gone.pid)["processes"] == 0
    assert main_pid(gone.pid, "bwrap") is None
