"""Folders of the host for attempts in containers, handed to the engine by a name that stands for nothing else.

An engine takes a folder by its name, and looks at that name as root, later, and following links. So what was found and
judged is mounted, by its descriptor, where only root may enter, and the engine is told of that place. A copy of the
mount is in the container from its start on, and the place is cleared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.backends.blocking import in_thread, in_thread_or_undone
from remit.backends.docker.planning import USER, Given, container_name
from remit.backends.hostmounts import MOUNT_SECONDS, open_mounts
from remit.errors import BackendError, SandboxUnavailable
from remit.sandbox import HostMount, Identities, Mounts
from remit.sandbox.identity import may_administrate
from remit.sandbox.staging import is_offered, stage_at, staged, unstage

_UNIX: Final = "unix://"
_REMAPS: Final = frozenset({"name=userns", "name=rootless"})


NOBODY: Final = Identities(USER, 1)
"""Attempts are nobody, where the operator has no users to give them."""


@dataclass(frozen=True, slots=True)
class Staging:
    """Under `folder`, which nobody but root may enter, mounts are staged. Nothing of `protected` is ever mounted;
    `identities` are those of attempts."""

    folder: Path
    protected: Sequence[str] = ()
    identities: Identities = NOBODY

    def clear(self) -> None:
        """Remove what a killed operator left. Raises OSError."""
        for left in self.folder.iterdir() if self.folder.is_dir() else ():
            unstage(str(left))
            left.rmdir()


class Folders:
    """The folders of the host that an attempt has. `given` is what its container gets."""

    def __init__(self, mounts: Mounts | None = None, place: str = "") -> None:
        self._mounts, self._place = mounts, place
        user = mounts.user if mounts else None
        self.given = Given(
            user=user.uid if user else USER,
            group=user.gid if user else USER,
            groups=mounts.groups if mounts else (),
            binds={mount.mount_path: (staged(number, place), mount.read_only) for mount, number in mounts.staged}
            if mounts
            else {},
        )
        self.given = replace(self.given, host_files=frozenset(self.given.binds.keys() - self.opened.keys()))

    @property
    def opened(self) -> Mapping[str, int]:
        """Descriptors, by where they are mounted."""
        return self._mounts.opened if self._mounts else {}

    async def started(self) -> None:
        """The container has its own copies, or never will."""
        if self._place:
            await asyncio.to_thread(_clear, self._place)
            self._place = ""


@contextlib.asynccontextmanager
async def folders(
    staging: Staging | None, host: str, request: AttemptRequest, info: Mapping[str, Any], *, stage: bool
) -> AsyncGenerator[Folders, None]:
    """The folders of `request`, open until the block ends and, with `stage`, where the engine at `host` finds them.

    Raises:
        SandboxUnavailable: nothing of the host can be mounted from where the operator is.
        InvalidInput: something is not there, or must not be mounted.
        BackendError: the host does not answer.
    """
    wanted = [mount for mount in request.confinement.mounts if isinstance(mount, HostMount)]
    if not wanted:
        yield Folders()
        return
    if staging is None or (why := await asyncio.to_thread(_why_not, host, info)):
        at = ", ".join(mount.mount_path for mount in wanted)
        reason = "this operator has no folder for that" if staging is None else why
        raise SandboxUnavailable(f"the backend docker cannot mount {at}: {reason}; or use backend: process")
    mounts = await open_mounts(request.confinement, staging.identities, staging.protected, stages=True)
    place = staging.folder / container_name(request.id) if stage else None

    def leave() -> None:
        try:
            if place:
                _clear(str(place))
        finally:
            mounts.close()

    if place:
        await in_thread_or_undone(partial(_stage, mounts, place), leave)
    try:
        yield Folders(mounts, str(place or ""))
    finally:
        await in_thread(leave, None, lambda _: None)  # runs even if the caller is cancelled


def _stage(mounts: Mounts, place: Path) -> None:
    mounts.take_over()
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear(str(place))
    place.mkdir(mode=0o700)
    try:
        stage_at(str(place), mounts.copies())
    except OSError as error:
        raise BackendError(f"what is to be mounted could not be staged: {error}") from error


def _clear(place: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        unstage(place)
        Path(place).rmdir()


def _why_not(host: str, info: Mapping[str, Any]) -> str | None:
    """None, or why the engine at `host`, which says `info` of itself, cannot be given folders of the host."""
    if not host.startswith(_UNIX):
        return f"its engine, {host}, is on another host; name one by its socket (--docker-host unix://…)"
    if remaps := sorted(_REMAPS & {option.split(",")[0] for option in info.get("SecurityOptions") or []}):
        return f"its engine gives users other numbers ({remaps[0].removeprefix('name=')}), so nobody would own them"
    if os.geteuid() != 0 or not may_administrate():
        return "that takes an operator that is root, with CAP_SYS_ADMIN"
    if not is_offered():
        return "that takes Linux 5.12"
    if not _shares_mounts(host.removeprefix(_UNIX)):
        return "its engine does not see the same mounts as the operator; run both outside of containers"
    return None


def _shares_mounts(path: str) -> bool:
    """Whether who listens at that socket is in this process's mount namespace."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(MOUNT_SECONDS)
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = struct.unpack("3i", credentials)[0]
        return pid > 0 and os.path.samestat(Path(f"/proc/{pid}/ns/mnt").stat(), Path("/proc/self/ns/mnt").stat())
    return False
