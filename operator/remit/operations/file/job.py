"""The input of an action on files, and the checks that all actions make first."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from remit.api.operations import FileOperation
from remit.operations.base import Effect
from remit.operations.file.access import Access
from remit.operations.file.errors import refused
from remit.operations.file.writing import Limit
from remit.sandbox.beneath import SELF, Place


@dataclass(frozen=True, slots=True)
class Job:
    """One action with what it needs. `content` is what is to be written, `emit` where output goes."""

    file: FileOperation
    access: Access
    content: Iterable[bytes]
    emit: Callable[[bytes], None]
    limit: Limit
    effect: Effect


def must_be_file(job: Job, at: Place, info: os.stat_result) -> None:
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    job.access.inspect(at.path, info)


def not_the_root(job: Job, at: Place) -> None:
    if at.name == SELF:
        raise refused("Root", f"{at.path} is where what policy allows begins: it can be neither replaced nor removed")


def check(job: Job, at: Place, size: int) -> None:
    job.access.check(at.path, written=at.path)
    job.limit.check(size, at.path)
