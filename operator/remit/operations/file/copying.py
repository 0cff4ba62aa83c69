"""Copies and moves: of files and of whole trees, within a file system and from one to another."""

from __future__ import annotations

import errno
import os
import stat

from remit.operations.file.errors import failure, refused
from remit.operations.file.job import Job, must_be_file, not_the_root
from remit.operations.file.tree import copy_tree, entries, reading, remove, transfer, walk
from remit.operations.file.writing import changing, permissions, replacing, sync, temporary_name
from remit.sandbox.beneath import Place


def copy(job: Job) -> str:
    with job.access.place(job.file.path) as source, job.access.place(job.file.destination or "") as target:
        return _copied(job, source, target)


def _copied(job: Job, source: Place, target: Place) -> str:
    """Under another name, or none, first: so that nobody finds half a copy."""
    not_the_root(job, target)
    info = source.lstat()
    job.access.inspect(source.path, info)
    if stat.S_ISDIR(info.st_mode):
        if not job.file.recursive and job.file.operation == "copy":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return _copied_tree(job, source, target)
    with job.access.about(target.path):
        if target.exists():
            must_be_file(job, target, target.lstat())
    with (
        reading(job.access, source) as (descriptor, info),
        job.access.about(target.path),
        replacing(target, permissions(info), job.effect, exclusive=False) as writing,
    ):
        size = transfer(job.access, source, descriptor, target, writing, job.limit)
    return f"copied {size} bytes from {source.path} to {target.path}"


def _copied_tree(job: Job, source: Place, target: Place) -> str:
    _must_be_outside(source, target)
    temporary = Place(target.parent, temporary_name(), target.path)
    with job.access.about(target.path):
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        try:
            count = copy_tree(job.access, source, temporary, job.limit)
            with changing(job.effect, f"{target.path} may have been written"):
                os.rename(temporary.name, target.name, src_dir_fd=target.parent, dst_dir_fd=target.parent)
        except BaseException:
            _discard(job, temporary)
            raise
        sync(target)
    return f"copied {count} files from {source.path} to {target.path}"


def _must_be_outside(source: Place, target: Place) -> None:
    if f"{target.path}/".startswith(f"{source.path}/"):
        raise refused("IntoItself", f"{target.path} is inside {source.path}; name a place outside of it")


def _discard(job: Job, temporary: Place) -> None:
    """Remove what was made under another name, also when it was time to stop."""
    if not temporary.exists():
        return
    info = temporary.lstat()
    if stat.S_ISDIR(info.st_mode):
        _clear(temporary)
    remove(temporary, info)


def _clear(folder: Place) -> None:
    with entries(folder) as found:
        for entry in found:
            info = entry.lstat()
            if stat.S_ISDIR(info.st_mode):
                _clear(entry)
            remove(entry, info)


def move(job: Job) -> str:
    with job.access.place(job.file.path) as source, job.access.place(job.file.destination or "") as target:
        not_the_root(job, source)
        not_the_root(job, target)
        info = source.lstat()
        job.access.inspect(source.path, info, links=True)
        if stat.S_ISDIR(info.st_mode):
            _must_be_outside(source, target)
            _must_all_be_allowed(job, source, target)
        if not _renamed(job, source, target):
            _copied(job, source, target)  # the target is on another file system
            info = source.lstat()
            if stat.S_ISDIR(info.st_mode):
                walk(job.access, source, remove)
            remove(source, info)
        sync(target)
        sync(source)
    return f"moved {source.path} to {target.path}"


def _renamed(job: Job, source: Place, target: Place) -> bool:
    """False: they are on two file systems."""
    try:
        with changing(job.effect, f"{source.path} may have been moved to {target.path}"):
            os.rename(source.name, target.name, src_dir_fd=source.parent, dst_dir_fd=target.parent)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise failure(error, job.file, target.path) from error
        return False
    return True


def _must_all_be_allowed(job: Job, source: Place, target: Place) -> None:
    """A rename takes everything below with it, so policy is asked about each path, where it is and where it goes."""

    def visit(entry: Place, info: os.stat_result) -> None:
        job.access.check(target.path + entry.path.removeprefix(source.path))

    walk(job.access, source, visit)
