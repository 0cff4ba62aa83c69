"""Artifacts are read where policy allows it and nowhere else: no link, and no race, leads the operator out of there.

The operator may be root, and whoever may write there is not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from remit.api.operations import FileOperation
from remit.errors import PolicyDenied
from remit.operations.file.access import check_open, check_owner
from remit.operations.file.errors import explained, refused
from remit.operations.file.tree import MAX_DEPTH, entries
from remit.operations.file.writing import read_all, write_all
from remit.policy.deciding import Decision
from remit.policy.grant import Grant
from remit.policy.rules import files
from remit.policy.verdict import Reason
from remit.sandbox.beneath import Place, place

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads an artifact on this host as far as policy allows it. `protected` are directories that no policy opens.

    Its methods raise OperationFailed and PolicyDenied.
    """

    grant: Grant
    protected: Sequence[str]

    @contextmanager
    def file(self, path: str) -> Iterator[IO[bytes]]:
        """The file at `path`, for reading."""
        with self._place("archive", path) as found, os.fdopen(self._open(found), "rb") as file:
            yield file

    def copy(self, path: str, into: Path) -> None:
        """Copy what is in the directory `path` into another one. Links stay links: instances follow them within their
        sandbox. Policy allowed all of it when it allowed the directory, but for what one of its rules denies."""
        with self._place("path", path) as top:
            to = os.open(into, _DIRECTORY)
            try:
                self._copy(top, to, 0)
            finally:
                os.close(to)

    @contextmanager
    def _place(self, field: str, path: str) -> Iterator[Place]:
        """The place that a path leads to, after a check that policy allows that place too."""
        try:
            with place(files.root(self.grant.binding(), "read", path), path) as found:
                check_open("read", found.path, self.protected, whole=True)
                if found.path != path and not (decision := self._ask(found.path)).allowed:
                    raise PolicyDenied(f"{path} is really {found.path}: {decision.message}")
                check_owner(self.grant, "read", found.path, found.lstat())
                yield found
        except OSError as error:
            raise explained(error, f"spec.artifact.{field}", path, "read") from None

    def _copy(self, source: Place, to: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise refused("TooDeep", f"{source.path} is nested deeper than {MAX_DEPTH} directories")
        with entries(source) as found:
            for entry in found:
                if (decision := self._ask(entry.path)).reason is Reason.DENIED_BY_RULE:
                    raise PolicyDenied(decision.message)
                mode = entry.lstat().st_mode
                if stat.S_ISDIR(mode):
                    self._copy_directory(entry, to, depth)
                elif stat.S_ISLNK(mode):
                    os.symlink(os.readlink(entry.name, dir_fd=entry.parent), entry.name, dir_fd=to)
                else:
                    self._copy_file(entry, to)

    def _copy_directory(self, source: Place, to: int, depth: int) -> None:
        os.mkdir(source.name, 0o700, dir_fd=to)
        inside = os.open(source.name, _DIRECTORY, dir_fd=to)
        try:
            self._copy(source, inside, depth + 1)
        finally:
            os.close(inside)

    def _copy_file(self, source: Place, to: int) -> None:
        reading = self._open(source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            writing = os.open(source.name, flags, 0o600, dir_fd=to)
            try:
                write_all(writing, read_all(reading), lambda _: None)
                os.fchmod(writing, os.fstat(reading).st_mode & 0o777)
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _open(self, at: Place) -> int:
        """A file, for reading. It may have other names: the kernel lets nobody link what he may not write."""
        descriptor = at.open(os.O_RDONLY)
        try:
            self._check(at.path, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, path: str, info: os.stat_result) -> None:
        if not stat.S_ISREG(info.st_mode):
            raise refused("NotAFile", f"{path} is not a file or a directory")
        check_owner(self.grant, "read", path, info)

    def _ask(self, path: str) -> Decision:
        return self.grant.ask(FileOperation.model_construct(operation="read", path=path))
