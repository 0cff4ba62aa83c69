"""What the kernel says, in words that help."""

from __future__ import annotations

import errno

from remit.operations.failure import OperationFailed


class Stopped(Exception):
    """The user cancelled, or time is over."""


_OUTSIDE = "leads out of the directory that policy allows, by a symbolic link; write the path that it really has"
_WORDS: dict[int, tuple[str, str]] = {
    errno.ENOENT: ("NotFound", "there is no such file or directory"),
    errno.EEXIST: ("AlreadyExists", "is there already; use write to replace it"),
    errno.EACCES: ("PermissionDenied", "the operator's user may not do that; give it access, or run it as another"),
    errno.EPERM: ("PermissionDenied", "the operator's user may not do that; give it access, or run it as another"),
    errno.ENOSPC: ("DiskFull", "no space is left on the disk; nothing was changed"),
    errno.EDQUOT: ("DiskFull", "the disk quota is used up; nothing was changed"),
    errno.EROFS: ("ReadOnly", "the file system is mounted read-only"),
    errno.ENOTDIR: ("NotADirectory", "a part of the path is no directory"),
    errno.EISDIR: ("IsADirectory", "is a directory; name a file, or set recursive for the whole of it"),
    errno.ENOTEMPTY: ("NotEmpty", "the directory is not empty; set recursive to include everything below"),
    errno.ENXIO: ("NotAFile", "is a socket or a device, not a file or a directory"),
    errno.ELOOP: ("SymbolicLink", "is a symbolic link, which is never followed; write the path it leads to"),
    errno.EFBIG: ("FileSizeExceeded", "would become larger than files may be here"),
    errno.ENAMETOOLONG: ("InvalidPath", "a name in the path is too long"),
}
_LATER = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY}


def failure(error: OSError, what: str) -> OperationFailed:
    """`what` is such as `write of /data/x`."""
    if error.errno == errno.EXDEV:
        return OperationFailed("OutsideRoot", f"{what}: {_OUTSIDE}", retryable=False, category="Denied")
    reason, words = _WORDS.get(error.errno or 0, ("FileError", error.strerror or str(error)))
    return OperationFailed(reason, f"{what}: {words}", retryable=error.errno in _LATER)


def refused(reason: str, message: str) -> OperationFailed:
    """It will not be done, however often it is tried."""
    return OperationFailed(reason, message, retryable=False, category="Denied")
