"""Tests real cgroups: what is killed, what is removed, and what is swept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from parts import require
from remit.backends.base import Handle
from remit.backends.recovery import recover
from remit.sandbox import (
    AttemptCgroup,
    CgroupSpec,
    CgroupTree,
    Execute,
    ForkServer,
    Host,
    Limits,
    boot_id,
    kill_cgroups,
    remove_cgroups,
    start_time,
)
from remit.sandbox.cgrouptree import _base
from remit.sandbox.memorybudget import own_memory_limit
from support import wait_until

SECONDS = 30
SPEC = Limits(memory_bytes=64 << 20, pids=16)
# A child and a grandchild in a separate session, all of which wait.
FAMILY = """
import os, sys
if not os.fork():
    if not os.fork(): os.setsid()
sys.stdout.write("ready\\n"); sys.stdout.flush()
while True: os.read(0, 1)
"""
LIMIT = 300 << 20


@pytest.fixture
def tree(host: Host) -> CgroupTree:
    require("cgroup", host.cgroups, host.abilities[next(iter(host.abilities))].remedy)
    assert host.cgroups
    return host.cgroups


@pytest.fixture
def cgroup(tree: CgroupTree) -> Iterator[AttemptCgroup]:
    made = AttemptCgroup.create(CgroupSpec(tree, SPEC), f"test-{uuid4().hex}")
    yield made
    kill_cgroups(made.paths)
    wait_until(lambda: remove_cgroups(made.paths), "the end of the cgroup")


@pytest.fixture
def occupy() -> Iterator[Callable[[AttemptCgroup | Path], subprocess.Popen[bytes]]]:
    """Provides a function that starts a process in a cgroup, where its children will be too."""
    started = []

    def start(place: AttemptCgroup | Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", f"input()\n{FAMILY}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        for path in [place] if isinstance(place, Path) else place.paths:
            (path / "cgroup.procs").write_text(str(process.pid))
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        for _ in range(3):
            assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=SECONDS)


def pids(path: Path) -> list[int]:
    """Returns the pids in the cgroup; empty if it does not exist."""
    with contextlib.suppress(OSError):
        return [int(line) for line in (path / "cgroup.procs").read_text().split()]
    return []


def test_kill_ends_all_that_is_inside(cgroup, occupy):
    process = occupy(cgroup)
    assert len(pids(cgroup.paths[0])) == 3
    cgroup.kill()
    assert process.wait(SECONDS) == -signal.SIGKILL
    for path in cgroup.paths:
        wait_until(lambda path=path: pids(path) == [], "the end of all processes")


def test_an_occupied_cgroup_is_not_reported_as_removed(cgroup, occupy):
    process = occupy(cgroup)
    assert remove_cgroups(cgroup.paths) is False
    cgroup.remove()
    assert all(path.is_dir() for path in cgroup.paths)
    assert kill_cgroups(cgroup.paths) is True
    assert process.wait(SECONDS) == -signal.SIGKILL
    wait_until(lambda: remove_cgroups(cgroup.paths), "the removal")
    assert not any(path.exists() for path in cgroup.paths)
    assert kill_cgroups(cgroup.paths) is False
    assert remove_cgroups(cgroup.paths) is True


def test_recovery_empties_a_cgroup_whose_first_process_is_gone(cgroup, occupy):
    process = occupy(cgroup)
    gone = subprocess.Popen(["/usr/bin/true"])
    gone.wait(SECONDS)
    handle = Handle(gone.pid, 0, boot_id(), tuple(map(str, cgroup.paths)))
    assert recover(handle) is True
    assert not any(path.exists() for path in cgroup.paths), "it waited until all had left"
    assert process.wait(SECONDS) == -signal.SIGKILL
    assert recover(handle) is False


def test_the_fork_server_removes_a_cgroup_that_was_busy_later(tree, occupy):
    server, null = ForkServer(), os.open(os.devnull, os.O_RDWR)
    try:
        spec = CgroupSpec(tree, SPEC)
        process = server.begin(Execute(["/usr/bin/sleep", "600"], (null, null, null), cgroup=spec))
        process.wait(SECONDS, start=True)
        assert process.cgroup
        paths = process.cgroup.paths
        wait_until(lambda: all(process.pid in pids(path) for path in paths), "the process in its cgroup")
        occupant = occupy(process.cgroup)
        process.kill()
        process.wait(SECONDS)
        process.close()
        ended(server, null)
        assert all(path.is_dir() for path in paths)
        kill_cgroups(paths)
        occupant.wait(SECONDS)
        for path in paths:
            wait_until(lambda path=path: pids(path) == [], "the end of all processes")
        wait_until(lambda: ended(server, null) or not any(path.exists() for path in paths), "the removal")
    finally:
        process.close()
        server.close()
        os.close(null)
        kill_cgroups(paths)
        remove_cgroups(paths)


def ended(server: ForkServer, null: int) -> None:
    """Makes the server notice the end of a process."""
    process = server.begin(Execute(["/usr/bin/true"], (null, null, null)))
    process.wait(SECONDS)
    process.close()


@pytest.mark.parametrize("owner", ["alive", "alive in another pid namespace", "pid reused", "dead"])
def test_only_what_a_dead_operator_left_is_swept(tree, occupy, owner):
    """A folder is named after the pid and the start time of its operator, because another process may have the same
    pid.

    The pid of an operator in another pid namespace is meaningless here, so an operator also holds a lock.
    """
    parent = tree.parents["memory"] / f"sweep-{uuid4().hex}"
    operator = subprocess.Popen(["/usr/bin/sleep", "600"])
    try:
        started = start_time(operator.pid)
        assert started
        if owner in {"dead", "alive in another pid namespace"}:
            operator.kill()
            operator.wait(SECONDS)
        folder = parent / "remit" / f"{operator.pid}-{started - (owner == 'pid reused')}"
        attempt = folder / "attempt"
        attempt.mkdir(parents=True)
        occupant = occupy(attempt)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if owner == "alive in another pid namespace":
            fcntl.flock(lock, fcntl.LOCK_EX)
        own = _base(parent)
        os.close(lock)
        if owner.startswith("alive"):
            assert len(pids(attempt)) == 3
        else:
            assert occupant.wait(SECONDS) == -signal.SIGKILL
            wait_until(lambda: _base(parent) == own and not folder.exists(), "the sweep")
        assert own == parent / "remit" / f"{os.getpid()}-{start_time(os.getpid())}"
        assert own.is_dir()
    finally:
        operator.kill()
        operator.wait(SECONDS)
        for path in sorted(parent.rglob("**/"), key=lambda path: len(path.parts), reverse=True):
            wait_until(lambda path=path: not kill_cgroups([path]) and remove_cgroups([path]), f"the end of {path}")


def test_the_limit_of_a_cgroup_above_is_the_operators(tree):
    """The limit is read by a process in a cgroup below the one with the limit."""
    limited = AttemptCgroup.create(CgroupSpec(tree, Limits(memory_bytes=LIMIT)), f"test-{uuid4().hex}")
    folder = next(path for path in limited.paths if (path / file_of(tree)).exists())
    below = folder / "below"
    below.mkdir()
    try:
        source = f"import {own_memory_limit.__module__} as found; input(); print(found.own_memory_limit())"
        with subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            (below / "cgroup.procs").write_text(str(process.pid))
            assert process.communicate("go on\n", timeout=SECONDS)[0] == f"{LIMIT}\n"
    finally:
        wait_until(lambda: remove_cgroups([below, *limited.paths]), "the removal")


def file_of(tree: CgroupTree) -> str:
    return "memory.max" if tree.version == 2 else "memory.limit_in_bytes"


def test_two_of_the_same_pid_and_start_time_have_folders_of_their_own(tree):
    """The two processes are in separate pid namespaces."""
    parent = tree.parents["memory"] / f"same-{uuid4().hex}"
    folder = parent / "remit" / f"{os.getpid()}-{start_time(os.getpid())}"
    folder.mkdir(parents=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own = _base(parent)
        assert own.parent == folder.parent
        assert own != folder
    finally:
        os.close(lock)
        remove_cgroups([*folder.parent.iterdir(), folder.parent, parent])
