"""Whole trees, by descriptor: a directory that is swapped for a link meanwhile is not entered."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from remit.operations.file.access import Access, Unsuitable, below
from remit.operations.file.writing import Limit, permissions, read_all, write_all
from remit.sandbox.beneath import Place

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_DEPTH = 256


@contextmanager
def entries(at: Place) -> Iterator[Iterator[Place]]:
    """List the directory `at`, by name."""
    descriptor = os.open(at.name, OPEN_FOLDER, dir_fd=at.parent)
    try:
        names = sorted(os.listdir(descriptor))  # noqa: PTH208  # a descriptor, not a path
        yield (Place(descriptor, name, below(at.path, name)) for name in names)
    finally:
        os.close(descriptor)


def walk(access: Access, top: Place, visit: Callable[[Place, os.stat_result], None], *, depth: int = 0) -> int:
    """Call `visit` for everything below `top`, contents before their directory. Gives how many there were.

    Policy is asked about each path; one that it does not allow ends the walk.
    """
    check_depth(top, depth)
    count = 0
    with entries(top) as found:
        for entry in found:
            if access.leaves_out(entry.path):
                continue
            with access.leaving_out(entry.path):
                access.check(entry.path)
                info = entry.lstat()
                access.inspect(entry.path, info, links=True)
                if stat.S_ISDIR(info.st_mode):
                    count += walk(access, entry, visit, depth=depth + 1)
                with access.about(entry.path):
                    visit(entry, info)
                count += 1
    return count


def check_depth(at: Place, depth: int) -> None:
    """Each level takes descriptors and stack. Raises `Unsuitable`."""
    if depth > MAX_DEPTH:
        why = f"nested deeper than {MAX_DEPTH} directories"
        raise Unsuitable("TooDeep", f"{at.path} is {why}", why)


def remove(entry: Place, info: os.stat_result) -> None:
    if stat.S_ISDIR(info.st_mode):
        os.rmdir(entry.name, dir_fd=entry.parent)
    else:
        os.unlink(entry.name, dir_fd=entry.parent)


def copy_tree(access: Access, source: Place, target: Place, limit: Limit, *, depth: int = 0) -> int:
    """Copy what is below `source` into the new directory `target`; links stay links. Gives how many files.

    Policy is asked about each path, where it is and where it goes.
    """
    check_depth(source, depth)
    os.mkdir(target.name, 0o700, dir_fd=target.parent)
    mode, count = permissions(source.lstat()), 0
    with entries(source) as found:
        inside = os.open(target.name, OPEN_FOLDER, dir_fd=target.parent)
        try:
            for entry in found:
                if access.leaves_out(entry.path):
                    continue
                with access.leaving_out(entry.path):
                    access.check(entry.path)
                    info, copy = entry.lstat(), Place(inside, entry.name, below(target.path, entry.name))
                    access.check(copy.path)
                    access.inspect(entry.path, info, links=True)
                    if stat.S_ISDIR(info.st_mode):
                        count += copy_tree(access, entry, copy, limit, depth=depth + 1)
                    elif stat.S_ISLNK(info.st_mode):
                        os.symlink(os.readlink(entry.name, dir_fd=entry.parent), copy.name, dir_fd=inside)
                    else:
                        copy_file(access, entry, copy, limit)
                        count += 1
            os.fchmod(inside, mode)
            os.fsync(inside)
        finally:
            os.close(inside)
    return count


def copy_file(access: Access, source: Place, target: Place, limit: Limit) -> int:
    """Copy one file to a new name. Gives its bytes."""
    with reading(access, source) as (descriptor, info), access.about(target.path):
        writing = target.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            size = transfer(access, source, descriptor, target, writing, limit)
            os.fchmod(writing, permissions(info))
            os.fsync(writing)
            return size
        finally:
            os.close(writing)


@contextmanager
def reading(access: Access, source: Place) -> Iterator[tuple[int, os.stat_result]]:
    """The file, opened and then looked at."""
    with access.about(source.path):
        descriptor = source.open(os.O_RDONLY)
    try:
        info = os.fstat(descriptor)
        access.inspect(source.path, info)
        yield descriptor, info
    finally:
        os.close(descriptor)


def transfer(access: Access, source: Place, reading: int, target: Place, writing: int, limit: Limit) -> int:
    """All bytes from one descriptor to the other; holes stay holes. Gives how many bytes there are."""
    end = 0
    while (extent := _extent(reading, end)) is not None:
        start, end = extent
        os.lseek(reading, start, os.SEEK_SET)
        os.lseek(writing, start, os.SEEK_SET)
        for chunk in read_all(reading, end - start):
            access.check(source.path, written=source.path)
            limit.check(start + len(chunk), target.path)
            write_all(writing, [chunk], lambda _: None)
            start += len(chunk)
    size = os.lseek(reading, 0, os.SEEK_END)
    limit.check(size, target.path)
    os.ftruncate(writing, size)
    return size


def _extent(descriptor: int, offset: int) -> tuple[int, int] | None:
    """The offsets at which the next data from `offset` on begin and end; None: there is but a hole, or nothing. A file
    system that knows of no holes tells of data up to the end."""
    try:
        start = os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return start, os.lseek(descriptor, start, os.SEEK_HOLE)
