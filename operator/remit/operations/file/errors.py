"""Explains errors of the kernel: which field it is about, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from remit.api.operations import FileOperation
from remit.backends.failure import OperationFailed


class Stopped(Exception):
    """The user cancelled, or time is over."""


_OPERATOR: Final = f"is closed to user {os.geteuid()}, as whom this runs; give that user access"
_WORDS: Final[Mapping[int, tuple[str, str]]] = {
    errno.ENOENT: ("NotFound", "is not there"),
    errno.EEXIST: ("AlreadyExists", "is there already; name one that is not, or delete it first"),
    errno.EACCES: ("PermissionDenied", _OPERATOR),
    errno.EPERM: ("PermissionDenied", _OPERATOR),
    errno.ENOSPC: ("DiskFull", "is on a disk that is full; nothing was changed"),
    errno.EDQUOT: ("DiskFull", "is on a disk whose quota is used up; nothing was changed"),
    errno.EROFS: ("ReadOnly", "is on a file system that is mounted read-only"),
    errno.ENOTDIR: ("NotADirectory", "goes through something that is no directory: a file, or a symbolic link"),
    errno.EISDIR: ("IsADirectory", "is a directory; name a file"),
    errno.ENOTEMPTY: ("NotEmpty", "is a directory that is not empty; name one that is not there, or delete it first"),
    errno.ENXIO: ("NotAFile", "is a socket or a device, not a file or a directory"),
    errno.ELOOP: ("SymbolicLink", "is a symbolic link, which is never followed; write the path it leads to"),
    errno.EFBIG: ("FileSizeExceeded", "would become larger than files may be here"),
    errno.ENAMETOOLONG: ("InvalidPath", "has a name in it that is too long"),
}
_BY_OPERATION: Final[Mapping[tuple[int, str], str]] = {
    (errno.ENOENT, "append"): "is not there; create makes it",
    (errno.EEXIST, "create"): "is there already; write replaces it",
    (errno.EEXIST, "mkdir"): "is there already; with recursive a directory is taken as it is",
    (errno.EISDIR, "copy"): "is a directory; set recursive for the whole of it",
    (errno.EISDIR, "move"): "is a directory; name the file's new name in it",
    (errno.ENOTEMPTY, "delete"): "is a directory that is not empty; set recursive for all that is below",
    (errno.ENOTDIR, "move"): "is a file, whose place a directory cannot take; name one that is not there",
}
_NO_DIRECTORY: Final = "is in a directory that is not there; make that first, by mkdir with recursive"
_OUTSIDE: Final = "leads out of the directory that policy allows, by a symbolic link; write the path that it really has"
_LATER: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY}
)


def failure(error: OSError, file: FileOperation, path: str, *, above: bool = False) -> OperationFailed:
    """The error for what went wrong with `path`; `above`: with the folders above it."""
    return explained(error, f"spec.file.{field_of(file, path)}", path, file.operation, above=above)


def explained(error: OSError, field: str, path: str, operation: str, *, above: bool = False) -> OperationFailed:
    """The same for any `field` that leads to `path`."""
    number = error.errno or 0
    where = f"{field}: {os.fsencode(path).decode(errors='backslashreplace')}"
    if number == errno.EXDEV:
        return OperationFailed("OutsideRoot", f"{where} {_OUTSIDE}", retryable=False)
    reason, words = _WORDS.get(number, ("FileError", f"failed: {error.strerror or error}"))
    if above:
        words = _NO_DIRECTORY if number == errno.ENOENT else words
    else:
        words = _BY_OPERATION.get((number, operation), words)
    return OperationFailed(reason, f"{where} {words}", retryable=number in _LATER)


def field_of(file: FileOperation, path: str) -> str:
    """The field that names `path` or a folder above it."""
    to = file.destination
    return "destination" if to and (path == to or path.startswith(f"{to}/")) else "path"


def refused(reason: str, message: str) -> OperationFailed:
    """It will not be done, however often it is tried."""
    return OperationFailed(reason, message, retryable=False, category="Denied")
