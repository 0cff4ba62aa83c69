"""A file of a volume that a program reads as its standard input: found, judged and opened by the operator.

The program gets a copy through a pipe and never this descriptor. By that, though it is only for reading, the file's
owner could open the file again to write (/proc/self/fd), change its mode and its times, lock it, and learn its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from remit.regularfile import irregular
from remit.sandbox.beneath import open_beneath
from remit.sandbox.fsuser import acting_as
from remit.sandbox.identity import slots
from remit.sandbox.model import HostMount, Identities
from remit.sandbox.mounts import check, explained, open_host, refused
from remit.sandbox.mountuser import Owned, choose_user, user_of

_ROOT: Final = 0
_FIND: Final = os.O_PATH | os.O_CLOEXEC
# O_NONBLOCK: do not wait for another process's lease on the file.
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def open_stdin_file(file: HostMount, identities: Identities | None, protected: Iterable[str]) -> int:
    """A descriptor by which the regular file `file.sub_path` of the volume can be read; the volume itself, where that
    is empty. May block for as long as a filesystem of the host does not answer.

    The volume is judged as `Mounts` does. The file is opened as the user that an attempt would be which has the volume
    mounted and nothing else, so that it opens nothing that a task could not read anyway.

    Raises InvalidInput for what is not there, must not be mounted, or may not be read.
    """
    trusts_links_of_root = os.geteuid() != _ROOT or identities is not None
    volume = replace(file, sub_path="", read_only=True)
    folder = open_host(volume, trusts_links_of_root)
    try:
        (status,) = check([(volume, folder)], protected)
        path = posixpath.join(file.path, file.sub_path) if file.sub_path else file.path
        try:
            with _as_reader(volume, status, identities):
                return _open(file, folder, path)
        except OSError as error:
            raise refused(file, _why_not(error, path, file)) from None
    finally:
        os.close(folder)


def _open(file: HostMount, folder: int, path: str) -> int:
    """Open the file for reading after it was looked at by descriptor: opening a pipe or a device does something by
    itself."""
    found = open_beneath(folder, file.sub_path, _FIND) if file.sub_path else os.dup(folder)
    try:
        if kind := irregular(os.fstat(found).st_mode):
            raise refused(file, f"{path} is {kind}; name a regular file in path, relative to the volume")
        return os.open(f"/proc/self/fd/{found}", _READ)
    finally:
        os.close(found)


def _as_reader(
    volume: HostMount, status: os.stat_result, identities: Identities | None
) -> contextlib.AbstractContextManager[None]:
    choice = choose_user([Owned(volume, status.st_uid, status.st_gid)], identities, os.geteuid())
    if identities is None:
        return contextlib.nullcontext()
    if volume.own and status.st_uid != _ROOT:  # the files of the volume change their owner together with it
        return acting_as(status.st_uid, status.st_gid)
    if choice is None:
        slot = identities.uid(next(slots))
        return acting_as(slot, slot)
    user = user_of(choice, identities)
    return acting_as(user.uid, user.gid)


def _why_not(error: OSError, path: str, file: HostMount) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return (
                f"{path} may not be read by the user whose volume it is, as whom it is read; change its mode or its"
                " owner"
            )
        case errno.EWOULDBLOCK:
            return f"{path} is leased to another program; try again when that has closed it"
    return explained(error, path, file.path)
