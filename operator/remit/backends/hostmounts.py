"""What an attempt has mounted, opened without waiting for a filesystem of the host that hangs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from remit.backends.blocking import in_thread
from remit.errors import BackendError
from remit.policy.hostpaths import FORBIDDEN
from remit.sandbox import Confinement, HostMount, Identities, Mounts
from remit.sandbox.bubblewrap import DEFAULT_DISK_BYTES

MOUNT_SECONDS: Final = 20.0
"""For the host to find what is to be mounted: a filesystem of the network, or of a user's own, may never answer."""


async def open_mounts(
    confinement: Confinement, identities: Identities | None, protected: Iterable[str], *, stages: bool
) -> Mounts:
    """Those of `confinement`; the other arguments are as in `Mounts`, besides what is forbidden everywhere.

    Raises:
        InvalidInput: something is not there, or must not be mounted.
        BackendError: the host does not answer.
    """

    def opened() -> Mounts:
        size = confinement.limits.disk_bytes or DEFAULT_DISK_BYTES
        return Mounts(confinement.mounts, identities, (*FORBIDDEN, *protected), stages=stages, disk_bytes=size)

    try:
        return await in_thread(opened, MOUNT_SECONDS, Mounts.close)
    except TimeoutError:
        paths = ", ".join(mount.path for mount in confinement.mounts if isinstance(mount, HostMount))
        raise BackendError(
            f"the host did not answer within {MOUNT_SECONDS:g} s where {paths} was looked for; see whether that is on a"
            " filesystem that hangs"
        ) from None
