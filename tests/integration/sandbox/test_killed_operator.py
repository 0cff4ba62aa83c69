"""Operators of an ordinary user, killed with SIGKILL while they start tasks: nothing of the tasks goes on.

`python tests/killloop.py` does the same for as many rounds as one likes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from killloop import Operators, operators
from portable import carry
from remit.sandbox import Host, Launch, fork_server

_MOMENTS = (0.04, 0.08, 0.12, 0.16, 0.2)


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Operators]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with (
        tempfile.TemporaryDirectory(prefix="remit-killloop-", dir="/var/tmp") as code,
        tempfile.TemporaryDirectory(prefix="remit-killloop-", dir="/var/tmp") as work,
        operators(carry(Path(code)), Path(work)) as found,
    ):
        yield found


def test_a_killed_operator_leaves_nothing(ordinary: Operators) -> None:
    rounds = [ordinary.dies("operator", moment) for moment in _MOMENTS]
    assert [each.running for each in rounds] == [()] * len(rounds)


def test_what_outlives_the_fork_server_too_is_killed_by_the_next_operator(ordinary: Operators) -> None:
    rounds = [ordinary.dies("both", moment) for moment in _MOMENTS]
    assert [each.left for each in rounds] == [()] * len(rounds)


async def test_a_bubblewrap_whose_operator_died_before_its_release_makes_no_namespace(host: Host) -> None:
    assert host.bubblewrap
    launch = Launch(
        host.bubblewrap,
        executable="/usr/bin/true",
        argv=("true",),
        env={},
        files={},
        network="none",
        disk_bytes=1 << 20,
        working_dir="/workspace",
        read_only_paths=(),
        rlimits={},
    )
    nothing = os.open(os.devnull, os.O_RDWR)
    reports = os.dup(launch.status_fd)
    process = fork_server().begin(launch.job((nothing, nothing, nothing), None))
    try:
        launch.begun()
        process.wait(30, start=True)
        launch.close()  # as the kernel closes what a dead operator had
        process.wait(30)
        assert process.returncode == 1
        assert os.read(reports, 4096) == b""
    finally:
        process.close()
        os.close(reports)
        os.close(nothing)
