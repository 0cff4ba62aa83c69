"""Opens what an attempt has mounted, without waiting for a filesystem of the host that hangs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

from remit.backends.blocking import in_thread
from remit.errors import BackendError
from remit.policy.hostpaths import FORBIDDEN
from remit.sandbox import Confinement, HostMount, Identities, Mounts, open_stdin_file
from remit.sandbox.bubblewrap import DEFAULT_DISK_BYTES

_T = TypeVar("_T")
MOUNT_SECONDS: Final = 20.0
"""How long the host may take to open what is mounted. A network or FUSE filesystem may never answer."""


async def open_mounts(
    confinement: Confinement, identities: Identities | None, protected: Iterable[str], *, stages: bool
) -> Mounts:
    """Open the mounts of `confinement`. The other arguments are those of `Mounts`; `protected` is in addition to what
    is forbidden everywhere.

    Raises:
        InvalidInput: something is not there, or must not be mounted.
        BackendError: the host does not answer.
    """

    size = confinement.limits.disk_bytes or DEFAULT_DISK_BYTES
    guarded = (*FORBIDDEN, *protected)
    opened = partial(Mounts, confinement.mounts, identities, guarded, stages=stages, disk_bytes=size)
    try:
        return opened(may_wait=False)  # which takes half as long as a thread does
    except BlockingIOError:
        paths = [mount.path for mount in confinement.mounts if isinstance(mount, HostMount)]
        return await _answered(opened, Mounts.close, ", ".join(paths))


async def open_stdin(file: HostMount, identities: Identities | None, protected: Iterable[str]) -> int:
    """A descriptor of the file that a program has as its standard input. `identities` are those of attempts, which an
    operator that is no root has none of. Raises as `open_mounts` does."""
    users = identities if os.geteuid() == 0 else None
    guarded = (*FORBIDDEN, *protected)
    return await _answered(lambda: open_stdin_file(file, users, guarded), os.close, file.path)


async def _answered(opened: Callable[[], _T], undo: Callable[[_T], None], paths: str) -> _T:
    try:
        return await in_thread(opened, MOUNT_SECONDS, undo)
    except TimeoutError:
        raise BackendError(
            f"the host did not answer within {MOUNT_SECONDS:g} s where {paths} was looked for; see whether that is on a"
            " filesystem that hangs"
        ) from None
