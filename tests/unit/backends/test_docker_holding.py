"""Tests the container that holds a network namespace, and the program in it."""

from __future__ import annotations

import io
import os
import platform
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from remit.backends.base import AttemptRequest, Command
from remit.backends.docker import pause
from remit.backends.docker.holding import holder_name, holding, is_process_of
from remit.sandbox import Confinement

REQUEST = AttemptRequest("uid-1", Command(("app",), "", {"SECRET": "x", "http_proxy": "y"}), Confinement(), 1)


def told(**config: Any) -> dict[str, Any]:
    return holding(REQUEST, {"Id": "sha256:1", "Config": config}, "remit-abc")


def test_nothing_of_the_image_and_of_the_task_has_a_say() -> None:
    holder = told(User="0", Entrypoint=["/evil"], Cmd=["/evil"], Env=["A=b"], WorkingDir="/x", Volumes={"/data": {}})
    assert (holder["Entrypoint"], holder["Cmd"], holder["Env"]) == (["/remit-abc"], [], [])
    assert (holder["User"], holder["WorkingDir"]) == ("65534:65534", "/")
    assert holder["Healthcheck"] == {"Test": ["NONE"]}
    (mount,) = holder["HostConfig"]["Mounts"]
    assert (mount["Target"], mount["VolumeOptions"]["DriverConfig"]["Options"]["type"]) == ("/data", "tmpfs")
    assert holder["Labels"]["remit.dev/attempt"] == "uid-1"


def test_it_has_no_rights() -> None:
    host = told()["HostConfig"]
    assert (host["NetworkMode"], host["CapDrop"], host["SecurityOpt"]) == ("none", ["ALL"], ["no-new-privileges"])
    assert (host["Mounts"], host["RestartPolicy"]) == ([], {"Name": "no"})


def test_its_name_is_that_of_the_attempts_container() -> None:
    assert holder_name("remit-uid-1") == "remit-uid-1-network"


@pytest.mark.parametrize(
    ("argv", "same"),
    [
        (["/remit-abc"], True),
        ([], False),
        (["runc", "init"], False),
        (["/remit-abd"], False),
        (["/remit-abc", "x"], False),
    ],
)
def test_its_process_is_known_by_its_program(argv: list[str], same: bool) -> None:
    assert is_process_of({"Path": "/remit-abc", "Args": []}, argv) is same


def test_its_program_does_nothing_until_it_is_killed(tmp_path: Path) -> None:
    if (machine := platform.machine()) not in pause.ARCHITECTURES:
        pytest.skip(f"there is no program for {machine}")
    with tarfile.open(fileobj=io.BytesIO(pause.archive(machine, "remit-abc"))) as tar:
        (entry,) = tar.getmembers()
        assert (entry.name, entry.mode, entry.uid) == ("remit-abc", 0o555, 0)
        tar.extract(entry, tmp_path, filter="data")
    program = tmp_path / "remit-abc"
    with subprocess.Popen([program], stdin=subprocess.DEVNULL) as running:
        for number in (signal.SIGSTOP, signal.SIGCONT):  # the program continues after an interruption
            running.send_signal(number)
        while (state := Path(f"/proc/{running.pid}/stat").read_text().split()[2]) != "S":
            assert state in "RTt"
        running.kill()
        assert running.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(("architecture", "machine"), [("x86_64", 62), ("amd64", 62), ("aarch64", 183)])
def test_its_program_is_one_small_segment(architecture: str, machine: int) -> None:
    program = pause.program(architecture)
    assert program[:7] == b"\x7fELF\x02\x01\x01"
    assert int.from_bytes(program[18:20], "little") == machine
    entry, segments = (int.from_bytes(program[at : at + 8], "little") for at in (24, 32))
    offset, address = (int.from_bytes(program[segments + at : segments + at + 8], "little") for at in (8, 16))
    size, flags = int.from_bytes(program[segments + 32 : segments + 40], "little"), program[segments + 4]
    assert (offset, size, flags) == (0, len(program), os.R_OK | os.X_OK)
    assert len(program) < 200
    assert entry - address == 120
