"""Unpacks an archive in a process of its own, which reaches nothing but the archive and the folder that it fills."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path
from typing import IO, Any, Final

import orjson

from remit.errors import DeploymentError
from remit.sandbox import Execute, Layer, fork_server, probe_host
from remit.sandbox.filesystem import readable_paths
from remit.sandbox.landlock import EVERYTHING, EXECUTE, WRITE
from remit.sandbox.seccomp import compile_shared_filter

_MAX_MEMORY: Final = 1 << 30
_MAX_SECONDS: Final = 900
_MAX_OPEN_FILES: Final = 64
_MAX_ANSWER: Final = 1 << 16

_PACKAGES: Final = Path(__file__).parents[4]
_PYTHON: Final = os.path.realpath(sys.executable)


async def unpack(archive: IO[bytes], name: str, into: Path, *, max_bytes: int, max_members: int) -> None:
    """Unpack a tar (plain, gzip, bzip2 or xz) or zip archive into the empty folder `into`. Cancelled, it ends at once.

    `name` is what messages call the archive. Nothing is kept of its owners, times and special rights.

    Raises:
        DeploymentError: ArtifactTooLarge or ArtifactFailed, with the cause. The folder may be half full then.
    """
    archive.flush()
    archive.seek(0)
    failure = await _run(archive, into, max_bytes, max_members)
    if failure is None:
        return
    reason = "ArtifactTooLarge" if failure.get("too_large") else "ArtifactFailed"
    message = f"{name} cannot be unpacked: {failure['message']}"
    raise DeploymentError(message, reason=reason, retryable="errno" in failure)


async def _run(archive: IO[bytes], into: Path, max_bytes: int, max_members: int) -> dict[str, Any] | None:
    """Run the process. Return what went wrong, or None."""
    with contextlib.ExitStack() as stack:
        root = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, root)
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        stack.callback(os.close, null)
        answer, told = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, answer)
        arguments = [str(_PACKAGES), str(root), str(max_bytes), str(max_members)]
        try:
            job = Execute(
                [_PYTHON, "-I", "-S", str(Path(__file__).parent), *arguments],
                (archive.fileno(), told, null),
                pass_fds=(root,),
                steps=_steps(into, max_bytes),
            )
            process = fork_server().begin(job)
        finally:
            os.close(told)
        stack.callback(process.close)
        try:
            await process.finished(_MAX_SECONDS)
        except TimeoutError:
            return {"message": f"it takes longer than {_MAX_SECONDS} s"}
        if process.returncode == 0:
            return None
        said = os.read(answer, _MAX_ANSWER)
    try:
        failure: dict[str, Any] = orjson.loads(said)
    except orjson.JSONDecodeError:
        return {"message": f"the process that unpacks it ended with {process.returncode}"}
    return failure


def _steps(into: Path, max_bytes: int) -> list[tuple[object, ...]]:
    """No capabilities, bounded memory, no network, and no file but Python's own and those in `into`.

    A kernel without Landlock or seccomp leaves those out: the rules for members hold without them.
    """
    wanted = {
        resource.RLIMIT_AS: _MAX_MEMORY,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: _MAX_SECONDS,
        resource.RLIMIT_FSIZE: max_bytes,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
    }
    limits = {number: _at_most_hard_limit(number, value) for number, value in wanted.items()}
    steps: list[tuple[object, ...]] = [("limit", limits), ("shed_capabilities",), ("no_new_privileges",)]
    host = probe_host()
    if host.abilities[Layer.LANDLOCK].available:
        python = {sys.base_prefix, str(_PACKAGES), *readable_paths()}
        grants = [*((path, EXECUTE) for path in python), (os.devnull, WRITE), (str(into), EVERYTHING)]
        steps.append(("enclose", host.landlock_scopes, grants))
    if host.abilities[Layer.SECCOMP].available:
        steps.append(("filter_calls", compile_shared_filter(host.machine, own_user=False)))
    return steps


def _at_most_hard_limit(number: int, value: int) -> int:
    hard = resource.getrlimit(number)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)
