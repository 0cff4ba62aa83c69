"""The operations on files, each a function of the same shape. They block: they run in a thread."""

from __future__ import annotations

import errno
import grp
import hashlib
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from remit.api.duration import seconds_of
from remit.backends.failure import OperationFailed
from remit.operations.file.copying import copy, move
from remit.operations.file.job import Job, check, must_be_file, not_the_root
from remit.operations.file.matching import is_older, matches
from remit.operations.file.tree import entries, remove, walk
from remit.operations.file.writing import (
    REFUSALS,
    Tally,
    changing,
    mode_of,
    permissions,
    read_all,
    replacing,
    sync,
    write_all,
)
from remit.sandbox.beneath import Place

_LINES = 1 << 16
"""Bytes of a list that are told at once: each time the event loop is asked."""


def create(job: Job) -> str:
    with job.access.place(job.file.path) as at:
        if at.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return _write(job, at, mode_of(job.file.mode, 0o644), exclusive=True)


def write(job: Job) -> str:
    with job.access.place(job.file.path) as at:
        mode = 0o644
        if at.exists():
            info = at.lstat()
            must_be_file(job, at, info)
            mode = permissions(info)
        return _write(job, at, mode_of(job.file.mode, mode), exclusive=False)


def _write(job: Job, at: Place, mode: int, *, exclusive: bool) -> str:
    not_the_root(job, at)
    with replacing(at, mode, job.effect, exclusive=exclusive) as descriptor:
        size = write_all(descriptor, job.content, lambda size: check(job, at, size))
    return f"wrote {size} bytes to {at.path}"


def append(job: Job) -> str:
    with job.access.place(job.file.path) as at:
        must_be_file(job, at, at.lstat())
        descriptor = at.open(os.O_WRONLY | os.O_APPEND)
        try:
            before = os.fstat(descriptor)
            must_be_file(job, at, before)
            tally = Tally()
            job.effect.begin(f"{at.path} may have been appended to")
            try:
                added = write_all(descriptor, job.content, lambda size: check(job, at, before.st_size + size), tally)
                os.fsync(descriptor)
            except BaseException as error:
                _take_back(descriptor, at, before.st_size, tally.written, error)
                if isinstance(error, REFUSALS):
                    job.effect.settle()
                raise
        finally:
            os.close(descriptor)
    return f"appended {added} bytes to {at.path}"


def _take_back(descriptor: int, at: Place, before: int, written: int, error: BaseException) -> None:
    """All of it or nothing; but what somebody else has written since stays."""
    if os.fstat(descriptor).st_size == before + written:
        os.ftruncate(descriptor, before)
    elif written:
        message = (
            f"{at.path}: {written} bytes were appended and then it failed ({error}); they are still there, because"
            " somebody else writes to the file too"
        )
        raise OperationFailed("PartlyAppended", message, retryable=False) from error


def read(job: Job) -> str:
    size = 0
    with _reading(job) as (at, chunks):
        for chunk in chunks:
            job.emit(chunk)
            size += len(chunk)
    return f"read {size} bytes of {at.path}"


def checksum(job: Job) -> str:
    digest = hashlib.new(job.file.algorithm)
    with _reading(job) as (at, chunks):
        for chunk in chunks:
            digest.update(chunk)
    job.emit(f"{digest.hexdigest()}  {at.path}\n".encode())
    return f"{job.file.algorithm} {digest.hexdigest()}"


class _reading:  # noqa: N801  # reads as a statement
    """The file, opened and looked at; its bytes in pieces, stopping when asked to."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> tuple[Place, Iterator[bytes]]:
        self._place = self._job.access.place(self._job.file.path)
        at = self._place.__enter__()
        try:
            self._descriptor = at.open(os.O_RDONLY)
        except BaseException as error:
            self._place.__exit__(type(error), error, error.__traceback__)
            raise
        return at, self._chunks(at)

    def _chunks(self, at: Place) -> Iterator[bytes]:
        must_be_file(self._job, at, os.fstat(self._descriptor))
        for chunk in read_all(self._descriptor):
            check(self._job, at, 0)
            yield chunk

    def __exit__(self, *error: Any) -> None:
        os.close(self._descriptor)
        self._place.__exit__(*error)


def delete(job: Job) -> str:
    if job.file.glob is not None:
        return _delete_matches(job, job.file.glob)
    with job.access.place(job.file.path) as at:
        not_the_root(job, at)
        info = at.lstat()
        job.access.inspect(at.path, info, links=True)
        if job.file.dry_run:
            return _would_delete(job, at, info)
        count, left_out = 0, job.access.left_out

        def visit(entry: Place, info: os.stat_result) -> None:
            nonlocal count
            try:
                remove(entry, info)
                count += 1
            except OSError as error:
                if error.errno != errno.ENOENT and not (error.errno == errno.ENOTEMPTY and left_out.count):
                    raise

        with changing(job.effect, f"{at.path} may have been deleted"):
            if stat.S_ISDIR(info.st_mode) and job.file.recursive:
                walk(job.access, at, visit)
            if not left_out.count:
                remove(at, info)
        sync(at)
    below = f"{count} entries below it"
    if left_out.count:
        message = f"{at.path} stays, {below} are deleted{left_out}"
        raise OperationFailed("PartlyDeleted", message, retryable=False)
    return f"deleted {at.path}" + (f" and {below}" if count else "")


def _would_delete(job: Job, at: Place, info: os.stat_result) -> str:
    count = 0
    with _listing(job) as line:
        if stat.S_ISDIR(info.st_mode) and job.file.recursive:
            count = walk(job.access, at, line)
        elif stat.S_ISDIR(info.st_mode):
            with entries(at) as found:
                if next(found, None) is not None:
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        line(at, info)
    return f"would delete {at.path}" + (f" and {count} entries below it" if count else "")


def _delete_matches(job: Job, text: str) -> str:
    """First all of it is looked at, so that what policy does not allow is told before anything is gone."""
    before, access = _modified_before(job), job.access
    dry_run, changed = job.file.dry_run, set[int]()

    def leave(descriptor: int) -> None:
        if descriptor in changed:
            changed.remove(descriptor)
            os.fsync(descriptor)

    with access.place(job.file.path) as at, _listing(job) as line:
        count = 0
        for count, (entry, info) in enumerate(matches(access, at, text, before, folders=False), start=1):  # noqa: B007
            if dry_run:
                line(entry, info)
        if not dry_run:
            count = 0
            access.left_out.clear()
            with changing(job.effect, f"what matches {text} below {at.path} may have been deleted"):
                for entry, info in matches(access, at, text, before, folders=False, leave=leave):
                    with access.leaving_out(entry.path), access.about(entry.path):
                        if not _unlink(entry):
                            continue
                        changed.add(entry.parent)
                        count += 1
                        line(entry, info)
    done = f"{count} file{'' if count == 1 else 's'} below {at.path} that match {text}"
    if job.file.older_than is not None:
        done = f"{done} and are older than {job.file.older_than}"
    if dry_run:
        return f"would delete {done}"
    if access.left_out.count:
        raise OperationFailed("PartlyDeleted", f"deleted {done}{access.left_out}", retryable=False)
    return f"deleted {done}"


def _unlink(entry: Place) -> bool:
    """Whether it was removed: what has become a directory meanwhile is not meant."""
    try:
        os.unlink(entry.name, dir_fd=entry.parent)
    except IsADirectoryError:
        return False
    return True


def list_(job: Job) -> str:
    before = _modified_before(job)
    with job.access.place(job.file.path) as at, _listing(job) as line:
        if job.file.glob is not None:
            count = 0
            for entry, info in matches(job.access, at, job.file.glob, before, folders=True):
                line(entry, info)
                count += 1
            return f"listed {count} entries below {at.path} that match {job.file.glob}"
        info = at.lstat()
        job.access.inspect(at.path, info)
        count = 0

        def emit(entry: Place, info: os.stat_result) -> None:
            nonlocal count
            if is_older(info, before):
                line(entry, info)
                count += 1

        if not stat.S_ISDIR(info.st_mode):
            emit(at, info)
            return f"listed {count} entr{'y' if count == 1 else 'ies'}"
        if job.file.recursive:
            walk(job.access, at, emit)
        else:
            _listed(job, at, emit)
    return f"listed {count} entries of {at.path}"


@contextmanager
def _listing(job: Job) -> Iterator[Callable[[Place, os.stat_result], None]]:
    """Tells of entries, one JSON object a line."""
    lines = bytearray()

    def line(entry: Place, info: os.stat_result) -> None:
        lines.extend(orjson.dumps(_described(entry, info)) + b"\n")
        if len(lines) > _LINES:
            job.emit(bytes(lines))
            lines.clear()

    try:
        yield line
    finally:
        job.emit(bytes(lines))


def _modified_before(job: Job) -> float | None:
    """The latest modification time for `olderThan`, in seconds since the epoch."""
    return None if job.file.older_than is None else time.time() - seconds_of(job.file.older_than)


def _listed(job: Job, at: Place, emit: Callable[[Place, os.stat_result], None]) -> None:
    with entries(at) as found:
        for entry in found:
            check(job, at, 0)
            with job.access.leaving_out(entry.path):
                emit(entry, entry.lstat())


def stat_(job: Job) -> str:
    with job.access.place(job.file.path) as at:
        info = at.lstat()
        job.access.inspect(at.path, info, links=True)
        job.emit(orjson.dumps(_described(at, info), option=orjson.OPT_INDENT_2) + b"\n")
    return f"{at.path} is a {_described(at, info)['type']} of {info.st_size} bytes"


def mkdir(job: Job) -> str:
    with job.access.place(job.file.path, make_parents=job.file.recursive) as at:
        if job.file.recursive and at.exists() and stat.S_ISDIR(at.lstat().st_mode):
            return f"{at.path} was there"
        with changing(job.effect, f"{at.path} may have been made"):
            os.mkdir(at.name, 0o700, dir_fd=at.parent)
        os.chmod(at.name, mode_of(job.file.mode, 0o755), dir_fd=at.parent)
        sync(at)
    return f"made {at.path}"


def chmod(job: Job) -> str:
    mode = mode_of(job.file.mode, 0)
    return _changed(job, lambda descriptor: Path(f"/proc/self/fd/{descriptor}").chmod(mode), f"mode {mode:04o}")


def chown(job: Job) -> str:
    uid = _id(job.file.owner, "owner", lambda name: pwd.getpwnam(name).pw_uid)
    gid = _id(job.file.group, "group", lambda name: grp.getgrnam(name).gr_gid)
    who = ":".join(filter(None, (job.file.owner, job.file.group)))
    return _changed(job, lambda descriptor: os.chown(f"/proc/self/fd/{descriptor}", uid, gid), f"owner {who}")


def _changed(job: Job, change: Callable[[int], None], what: str) -> str:
    """Change what a descriptor holds: what was looked at is what is changed. Links are left alone."""

    def visit(entry: Place, info: os.stat_result) -> None:
        if stat.S_ISLNK(info.st_mode):
            return
        descriptor = entry.open(os.O_PATH)
        try:
            job.access.inspect(entry.path, os.fstat(descriptor))
            change(descriptor)
        finally:
            os.close(descriptor)

    with job.access.place(job.file.path) as at:
        info = at.lstat()
        job.access.inspect(at.path, info)
        with changing(job.effect, f"{at.path} may have been given {what}"):
            count = walk(job.access, at, visit) if job.file.recursive and stat.S_ISDIR(info.st_mode) else 0
            visit(at, info)
    return f"gave {at.path} {what}" + (f", and {count} entries below it" if count else "")


def _id(text: str | None, field: str, find: Callable[[str], int]) -> int:
    if text is None:
        return -1
    if text.isdecimal():
        return int(text)
    try:
        return find(text)
    except KeyError:
        message = f"spec.file.{field}: this host has no {field} {text!r}; use a number or create it"
        raise OperationFailed("Invalid", message, retryable=False) from None


_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def _described(at: Place, info: os.stat_result) -> dict[str, Any]:
    return {
        "path": os.fsencode(at.path).decode(errors="backslashreplace"),  # JSON cannot contain other bytes
        "type": _TYPES.get(stat.S_IFMT(info.st_mode), "other"),
        "size": info.st_size,
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "uid": info.st_uid,
        "gid": info.st_gid,
        "modified": datetime.fromtimestamp(info.st_mtime, UTC).isoformat(timespec="milliseconds"),
    }


ACTIONS: Mapping[str, Callable[[Job], str]] = {
    "create": create,
    "read": read,
    "write": write,
    "append": append,
    "copy": copy,
    "move": move,
    "delete": delete,
    "list": list_,
    "stat": stat_,
    "chmod": chmod,
    "chown": chown,
    "checksum": checksum,
    "mkdir": mkdir,
}
