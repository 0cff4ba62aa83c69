"""Opens folders that a sandbox has for its program, so that what is in them can be read after its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from remit.errors import BackendError
from remit.sandbox.beneath import open_beneath

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_inside(init: int, paths: Iterable[str]) -> dict[str, int] | None:
    """Descriptors of those of `paths` that are folders in the sandbox with the process `init`; None while that is being
    built. No link is followed: those of a mounted folder may be anybody's.

    bubblewrap enters a root of its own, with `oldroot` and `newroot` in it, and then the sandbox's. The descriptors
    keep the filesystems that the folders are on when the sandbox is gone.

    Raises:
        BackendError: this process may not look into it.
        OSError: the process is gone.
    """
    try:
        root = os.open(f"/proc/{init}/root", _FOLDER & ~os.O_NOFOLLOW)
    except PermissionError as error:
        message = f"artifacts cannot be read from the sandbox: {error.strerror}; give the operator CAP_SYS_PTRACE"
        raise BackendError(message) from error
    found: dict[str, int] = {}
    try:
        if os.path.samestat(os.fstat(root), os.stat("/")) or _exists("newroot", root):  # noqa: PTH116  # by descriptor
            return None
        for path in paths:
            with contextlib.suppress(OSError):
                found[path] = open_beneath(root, path.lstrip("/"), _FOLDER, links=False)
        return found
    finally:
        os.close(root)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
