"""Tests processes that end late, and pids that are reused: the fork server ends what it must, and nothing else, and
continues."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from remit.sandbox import Execute, ForkServer, ProcessHandle
from remit.sandbox.forkserver import client
from remit.sandbox.forkserver.supervise import STOP

PYTHON = "/usr/bin/python3"
SECONDS = 30
PTRACE_SEIZE = 0x4206
# A process and its child, which reports its pid; neither ends.
PARENT = """
import os, time
if os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(600)
"""


@dataclass(frozen=True, slots=True)
class Watched(Execute):
    """Treated like a supervisor: its end is reported once its descendants are dead."""

    stop: ClassVar[signal.Signals] = STOP


@pytest.fixture
def server() -> Iterator[ForkServer]:
    with contextlib.closing(ForkServer()) as own:
        yield own


def trace(pid: int) -> None:
    """Traces a process, so that it remains a zombie after a kill until this process has waited for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) == -1:
        pytest.skip(f"no process may be traced here: {os.strerror(ctypes.get_errno())}")


def test_leftovers_of_a_killed_supervisor_do_not_delay_others(server: ForkServer) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    read, write = os.pipe()
    with os.fdopen(nothing, "rb"), os.fdopen(read, "rb") as said:
        process = server.begin(Watched([PYTHON, "-I", "-c", PARENT], (nothing, write, nothing)))
        os.close(write)
        process.wait(SECONDS, start=True)
        child = int(said.readline())
        trace(child)
        process.kill()
        other = server.begin(Execute(["/usr/bin/true"], (nothing,) * 3))
        other.wait(SECONDS)
        other.close()
        process.update()
        assert not process.ended
        os.waitpid(child, 0)
        process.wait(SECONDS)
        assert process.returncode == -signal.SIGKILL
        process.close()


STOPPED = f"""
import os, signal, sys
from remit.sandbox import Execute, extend_deadline, fork_server
from remit.sandbox.fencing import now
null = os.open(os.devnull, os.O_RDWR)
process = fork_server().begin(Execute([{PYTHON!r}, "-I", "-c", {PARENT!r}], (null, 1, null)))
process.wait(30, start=True)
print(fork_server().pid, flush=True)
sys.stdin.readline()
extend_deadline(now() + 0.5)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_an_overdue_operator_is_killed_though_something_of_its_work_is_not_dead_yet() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as operator:
        assert operator.stdin
        assert operator.stdout
        told = {int(operator.stdout.readline()) for _ in range(2)}
        (server,) = (pid for pid in told if Path(f"/proc/{pid}/stat").read_text().split()[3] == str(operator.pid))
        (child,) = told - {server}
        trace(child)
        with ProcessHandle(server) as watched:
            operator.stdin.write(b"go on\n")
            operator.stdin.close()
            assert operator.wait(SECONDS) == -signal.SIGKILL
            # It still tries to end the child, which is the last thing that it does.
            assert not select.select([watched.descriptor], [], [], 0.5)[0]
            os.waitpid(child, 0)
            assert select.select([watched.descriptor], [], [], SECONDS)[0]


REUSED = """
import os
from remit.sandbox import Execute, ForkServer
nothing = os.open(os.devnull, os.O_RDWR)
server = ForkServer()

def begin(*argv):
    process = server.begin(Execute(argv, (nothing, nothing, nothing)))
    process.wait(30, start=True)
    return process

ended = begin("/usr/bin/true")
ended.wait(30)
sleepers = [begin("/usr/bin/sleep", "600") for _ in range(2)]  # the processes that were forked ahead
with open("/proc/sys/kernel/ns_last_pid", "w") as last:
    last.write(str(ended.pid - 1))
sleepers += [begin("/usr/bin/sleep", "600") for _ in range(4)]
(reused,) = [each for each in sleepers if each.pid == ended.pid]
ended.close()
begin("/usr/bin/true").wait(30)
begin("/usr/bin/true").wait(30)
print("killed" if reused.gone() else "alive")
"""


def test_a_process_is_not_killed_for_an_earlier_one_of_its_number() -> None:
    """Runs in a pid namespace, whose next pid can be set."""
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces can be made here")
    found = subprocess.run(
        [*alone, sys.executable, "-c", REUSED],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
    )
    assert found.stdout == "alive\n", found.stderr


async def test_a_fork_server_that_hangs_is_given_up_with_all_that_it_started(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "START_SECONDS", 0.2)
    nothing = os.open(os.devnull, os.O_RDWR)
    with os.fdopen(nothing, "rb"):
        running = server.begin(Execute(["/usr/bin/sleep", "600"], (nothing,) * 3))
        running.wait(SECONDS, start=True)
        os.kill(server.pid, signal.SIGSTOP)
        processes = [server.begin(Execute(["/usr/bin/true"], (nothing,) * 3)) for _ in range(client.SPARES + 1)]
        with pytest.raises(OSError, match="did not answer") as late:
            await processes[-1].started()
        assert late.value.errno == errno.ETIMEDOUT
        assert not server.alive
        with pytest.raises(OSError, match="the fork server ended"):
            await running.finished(SECONDS)
        for process in (running, *processes):
            process.close()


def test_a_fork_server_that_takes_no_orders_is_given_up(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ORDER_SECONDS", 0.2)
    hangs, nothing = ForkServer(), os.open(os.devnull, os.O_RDWR)
    os.kill(hangs.pid, signal.SIGSTOP)
    processes: list[client.ForkedProcess] = []
    with os.fdopen(nothing, "rb"), contextlib.closing(hangs), pytest.raises(OSError, match=r"did not answer|reset"):
        while len(processes) < 10_000:
            processes.append(hangs.begin(Execute(["/usr/bin/true"], (nothing,) * 3)))
    assert not hangs.alive
    for process in processes:
        process.close()
