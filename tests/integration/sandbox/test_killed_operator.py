"""Tests operators that are killed with SIGKILL while they start tasks: no process of the tasks remains.

`make soak` kills five hundred of each user, and `python tests/killloop.py` any number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from killloop import Operators, delay, operators
from portable import carry
from remit.sandbox import ForkedProcess, Host, Launch, ProcessHandle, fork_server, kill_session, start_time
from remit.sandbox.bubblewrap import HOST_NAME
from support import repetitions, wait_until

_SECONDS = 30
_MOMENTS = (0.05, 0.1, 0.2, *(delay() for _ in range(repetitions(0, soak=247))))


@pytest.fixture(scope="module", params=["nobody", "root"])
def killed(request: pytest.FixtureRequest) -> Iterator[Operators]:
    """Provides operators of an unprivileged user without cgroups, and of root with this host's cgroups."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with (
        tempfile.TemporaryDirectory(prefix="remit-killloop-", dir="/var/tmp") as code,
        tempfile.TemporaryDirectory(prefix="remit-killloop-", dir="/var/tmp") as work,
        operators(carry(Path(code)), Path(work), request.param) as found,
    ):
        yield found


def test_a_killed_operator_leaves_nothing(killed: Operators) -> None:
    rounds = [killed.dies("operator", moment) for moment in _MOMENTS]
    assert [each.running for each in rounds] == [()] * len(rounds)


def test_what_outlives_the_fork_server_too_is_killed_by_the_next_operator(killed: Operators) -> None:
    rounds = [killed.dies("both", moment) for moment in _MOMENTS]
    assert [each.left for each in rounds] == [()] * len(rounds)


@pytest.fixture
def launch(host: Host) -> Iterator[Launch]:
    assert host.bubblewrap
    made = Launch(
        host.bubblewrap,
        executable="/usr/bin/echo",
        argv=("echo", "ran"),
        env={},
        files={},
        network="none",
        disk_bytes=1 << 20,
        working_dir="/workspace",
        read_only_paths=(),
        rlimits={},
    )
    yield made
    made.close()


@pytest.fixture
def started(launch: Launch) -> Iterator[Started]:
    """Starts the sandbox, with a file for its output."""
    with tempfile.TemporaryFile() as said:
        process = fork_server().begin(launch.job((said.fileno(),) * 3, None))
        reports = os.dup(launch.status_fd)
        try:
            launch.begun()
            process.wait(_SECONDS, start=True)
            yield Started(process, said.fileno(), reports)
        finally:
            process.close()
            os.close(reports)


@dataclass
class Started:
    process: ForkedProcess
    said: int
    reports: int

    def init(self) -> int:
        """Returns the init's pid from the first line of the reports, which bubblewrap writes in pieces."""
        with os.fdopen(os.dup(self.reports), "rb") as lines:
            pid: int = json.loads(lines.readline())["child-pid"]
        return pid


def test_a_bubblewrap_that_is_never_released_makes_no_namespace(launch: Launch, started: Started) -> None:
    launch.close()  # as the kernel closes the descriptors of a dead operator
    started.process.wait(_SECONDS)
    assert started.process.returncode == 1
    assert os.read(started.reports, 4096) == b""
    assert b"requires --unshare-user" in os.pread(started.said, 4096, 0)


def test_an_init_whose_operator_dies_before_it_is_on_record_executes_nothing(launch: Launch, started: Started) -> None:
    block = int(launch.argv[launch.argv.index("--block-fd") + 1])
    launch.release()
    init = started.init()
    launch.close()
    # The process reads from the descriptor that only the operator wrote to.
    wait_until(lambda: Path(f"/proc/{init}/syscall").read_text().split()[1:2] == [hex(block)], "the wait")
    started.process.kill()
    started.process.wait(_SECONDS)
    wait_until(lambda: not Path(f"/proc/{init}").exists(), "the end of the init")
    assert os.pread(started.said, 4096, 0) == b""


def test_the_fork_server_kills_an_init_whose_bubblewrap_was_killed(launch: Launch, started: Started) -> None:
    """The init has not requested a death signal yet: it does that after it was allowed to start."""
    launch.release()
    init = started.init()
    started.process.kill()
    started.process.wait(_SECONDS)
    wait_until(lambda: not Path(f"/proc/{init}").exists(), "the end of the init")


def test_an_init_that_is_not_on_record_is_found_by_its_session(launch: Launch, started: Started) -> None:
    launch.release()
    init = started.init()
    assert kill_session(started.process.pid, start_time(started.process.pid) or 0, HOST_NAME)
    wait_until(lambda: not Path(f"/proc/{init}").exists(), "the end of the init")


LEADER = """
import os, subprocess, sys
child = subprocess.Popen(["/usr/bin/sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.readline()
"""


def test_what_is_left_in_a_session_is_killed() -> None:
    """If a living leader has another start time, it is another process, and nothing is killed. If it has ended, its pid
    may have been reused, so processes with other arguments are not killed."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", LEADER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout
        with ProcessHandle(int(leader.stdout.readline())) as child:
            # The name of a new program changes a moment after its descriptors are closed.
            wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", "the program")
            begun = start_time(leader.pid)
            assert begun
            assert kill_session(leader.pid, begun - 1, ["600"]) is False
            leader.communicate(b"end\n", timeout=_SECONDS)
            assert kill_session(leader.pid, begun, HOST_NAME) is False
            assert not child.dead
            assert kill_session(leader.pid, begun, ["600"]) is True
            wait_until(lambda: child.dead, "the end of what was left")
