"""Opens a folder that a sandbox has made for its program alone, so that what is in it can be read after its end."""

from __future__ import annotations

import os

from remit.errors import BackendError

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_inside(init: int, path: str) -> int | None:
    """A descriptor of the folder `path` in the sandbox with the process `init`; None while that is being built.

    bubblewrap enters a root of its own, with `oldroot` and `newroot` in it, and then the sandbox's. The descriptor
    keeps the filesystem that the folder is on when the sandbox is gone.

    Raises:
        BackendError: this process may not look into it.
        OSError: the process is gone.
    """
    try:
        root = os.open(f"/proc/{init}/root", _FOLDER & ~os.O_NOFOLLOW)
    except PermissionError as error:
        message = f"artifacts cannot be read from the sandbox: {error.strerror}; give the operator CAP_SYS_PTRACE"
        raise BackendError(message) from error
    try:
        if os.path.samestat(os.fstat(root), os.stat("/")) or _exists("newroot", root):  # noqa: PTH116  # by descriptor
            return None
        return os.open(path.lstrip("/"), _FOLDER, dir_fd=root)
    finally:
        os.close(root)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
