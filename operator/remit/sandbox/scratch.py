"""Private folders on the host's disk, for runs that have no mounts of their own."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import tempfile
from pathlib import Path

from remit.errors import OutcomeUnknown

_PREFIX = "remit-scratch-"
# Attempts run as other users if the operator is root; they must be able to enter a folder whose name they know.
_ENTER_ONLY = 0o711


@functools.cache
def scratch() -> Path:
    """This process's own folder, below TMPDIR; it is swept when another operator starts after this one's end.

    Raises:
        OSError: none can be made.
    """
    base = Path(tempfile.gettempdir())
    _sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    folder.chmod(_ENTER_ONLY)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # held until this process ends, however it ends
    return folder


def _sweep(base: Path) -> None:
    """Remove what operators of this user left that live no more."""
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(folder)
            finally:
                os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a tree that nobody uses any more, of whatever depth and modes, following no link.

    Raises:
        OutcomeUnknown: something stays.
    """
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _empty(top)
        finally:
            os.close(top)
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutcomeUnknown(f"the private folder {folder} cannot be removed: {error.strerror}") from error


def _empty(top: int) -> None:
    """Bring what is deep up to `top` instead of going down: no depth can use up the stack, or descriptors."""
    moved = 0
    while names := os.listdir(top):
        for name in names:
            if not _is_folder(top, name):
                os.unlink(name, dir_fd=top)
                continue
            os.chmod(name, stat.S_IRWXU, dir_fd=top)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            try:
                for each in os.listdir(inner):  # noqa: PTH208  # by descriptor
                    if _is_folder(inner, each):
                        os.chmod(each, stat.S_IRWXU, dir_fd=inner)  # moving a folder writes its entry `..`
                        moved += 1
                        os.rename(each, f".remit-moved-{os.getpid()}-{moved}", src_dir_fd=inner, dst_dir_fd=top)
                    else:
                        os.unlink(each, dir_fd=inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _is_folder(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
