"""Find out whether runs can be confined without namespaces: by some that must work and some that must fail."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import tempfile
from pathlib import Path

from remit.errors import RemitError
from remit.sandbox.bare import BareLaunch
from remit.sandbox.forkserver import ForkedProcess, fork_server
from remit.sandbox.forkserver.supervise import STOP
from remit.sandbox.identity import find_identities
from remit.sandbox.landlock import SCOPES_ABI, scopes
from remit.sandbox.model import Bare
from remit.sandbox.seccomp import MACHINES, compile_shared_filter

_PATH = "/usr/bin:/bin"
_TIMEOUT_SECONDS = 10.0


def probe_bare(abi: int) -> tuple[Bare | None, str]:
    """The engine if it confines here, or else what is wrong. `abi` is Landlock's version."""
    if platform.machine() not in MACHINES:
        return None, "there is no system call filter for this machine"
    if abi < SCOPES_ABI:
        return None, f"Landlock's ABI {abi} has no scopes"
    identities = find_identities()
    if os.geteuid() == 0 and identities is None:
        return None, "root cannot become another user here, and no limit of processes holds root"
    bare = Bare(identities)
    try:
        problem = _problem(bare, abi)
    except (OSError, RemitError) as error:
        problem = str(error)
    return (None, problem) if problem else (bare, "")


def _problem(bare: Bare, abi: int) -> str:
    """Describe what is wrong; empty if nothing is."""
    with tempfile.NamedTemporaryFile(prefix="remit-probe-") as marker:
        Path(marker.name).chmod(0o644)
        if problem := _run(bare, abi, "cat", "/run/own"):
            return f"its own file cannot be read: {problem}"
        if not _run(bare, abi, "cat", marker.name):
            return "a file of the host can be read"
        if not _run(bare, abi, "cat", "/proc/self/status"):
            return "/proc can be read"
        if shutil.which("setarch", path=_PATH) and not _run(bare, abi, "setarch", "--addr-no-randomize", "true"):
            return "a call that the filter refuses went through"
    return "" if _run(bare, abi, "cat", endless=True) == "signal 9" else "a run could not be ended"


def _run(bare: Bare, abi: int, *argv: str, endless: bool = False) -> str:
    """How it went wrong, or nothing. One that is `endless` answers what it is told, and is stopped once it has."""
    executable = shutil.which(argv[0], path=_PATH)
    if executable is None:
        raise FileNotFoundError(f"{argv[0]} is not in {_PATH}")
    with contextlib.ExitStack() as stack:
        launch = BareLaunch(
            bare,
            executable=executable,
            argv=argv,
            env={},
            files={"/run/own": b""},
            working_dir="/workspace",
            read_only_paths=(),
            rlimits={},
            system_call_filter=compile_shared_filter(platform.machine(), own_user=bare.identities is not None),
            landlock_scopes=scopes(abi),
        )
        stack.callback(launch.close)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, nothing)
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        with theirs:
            stream = theirs.fileno() if endless else nothing
            process = fork_server().begin(launch.job((stream, stream, nothing), None))
        stack.callback(process.close)
        launch.begun()
        process.wait(_TIMEOUT_SECONDS, start=True)
        launch.release()
        if endless:
            ours.settimeout(_TIMEOUT_SECONDS)
            ours.sendall(b"there?")
            ours.recv(1)
            process.send_signal(STOP)
        process.wait(_TIMEOUT_SECONDS)
        return _ending(process)


def _ending(process: ForkedProcess) -> str:
    result = process.result if isinstance(process.result, dict) else {}
    if refused := result.get("refused"):
        return str(refused[1])
    status = result.get("status")
    if not isinstance(status, int):
        return f"the supervisor ended with {process.returncode}"
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit code {code}" if code else ""
