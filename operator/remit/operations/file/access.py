"""Whether this may be touched: asked again about what a path turned out to be."""

from __future__ import annotations

import contextlib
import os
import posixpath
import pwd
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from remit.api.operations import FileOperation
from remit.errors import PolicyDenied
from remit.operations.file.beneath import Place, place
from remit.operations.file.errors import Stopped, failure, refused
from remit.policy import Grant
from remit.policy.argv import refused_character
from remit.policy.rules import files

_LEAVING_OUT = frozenset({"list", "copy", "chmod", "chown"})
_MOST_TOLD = 5
NEVER = ("/proc", "/sys", "/dev")
"""Not files but the kernel itself: no policy opens them to file operations."""


@dataclass(frozen=True, slots=True)
class Access:
    """Guards one operation. `protected` are directories of the operator's own: its state, its credentials."""

    grant: Grant
    file: FileOperation
    protected: Sequence[str]
    stop: threading.Event
    left_out: list[str] = field(default_factory=list)
    """Names below a folder that no policy can be asked about."""

    @contextmanager
    def place(self, path: str, *, make_parents: bool = False) -> Iterator[Place]:
        """Where `path` is, once it was seen to be allowed there too."""
        root = files.root(self.grant.binding(), self.file.operation, path)
        with contextlib.ExitStack() as stack:
            try:
                found = stack.enter_context(place(root, path, make_parents=make_parents))
            except OSError as error:
                raise failure(error, self.file, path, above=True) from error
            self.check(found.path, written=path)
            yield found

    @contextmanager
    def about(self, path: str) -> Iterator[None]:
        """What the kernel refuses within is told of `path`."""
        try:
            yield
        except OSError as error:
            raise failure(error, self.file, path) from error

    def check(self, path: str, *, written: str = "") -> None:
        """Raises for what policy does not allow, for the operator's own, and when it is time to stop."""
        if self.stop.is_set():
            raise Stopped
        check_open(self.file.operation, path, self.protected, whole=self.file.recursive)
        if path != written:
            decision = self.grant.ask(self.file.model_copy(update={"path": path, "destination": None}))
            if not decision.allowed:
                start = f"{written} is really {shown(path)}" if written else shown(path)
                raise PolicyDenied(f"{start}: {decision.message.removeprefix('spec.file.path: ')}")

    def leaves_out(self, path: str) -> bool:
        """Whether a name below a folder is left out, and told of: it has bytes that are not UTF-8, or characters that
        no policy is asked about. What removes or moves a folder does all of it or nothing."""
        if self.file.operation not in _LEAVING_OUT or not refused_character(path):
            return False
        self.left_out.append(shown(path))
        return True

    def told_left_out(self) -> str:
        """For the end of what is told of the operation."""
        if not self.left_out:
            return ""
        more = f" and {len(self.left_out) - _MOST_TOLD} more" if len(self.left_out) > _MOST_TOLD else ""
        return f"; left out, for characters in their names: {', '.join(self.left_out[:_MOST_TOLD])}{more}"

    def inspect(self, path: str, info: os.stat_result, *, links: bool = False) -> None:
        """Look at owner and kind before anything is done.

        A file with a second name could be one from elsewhere, linked here; a device or a pipe is no file.
        """
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) or (links and stat.S_ISLNK(info.st_mode))):
            raise refused("NotAFile", f"{path} is {_kind(info.st_mode)}, not a file or a directory")
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1 and self.file.operation not in {"stat", "list", "delete"}:
            raise refused("HardLink", f"{path} has {info.st_nlink} names: it may be a file from elsewhere, linked here")
        if info.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(info.st_mode) and self._changes:
            raise refused("SetUserId", f"{path} runs with its owner's rights (mode {info.st_mode & 0o7777:o})")
        check_owner(self.grant, self.file.operation, path, info)

    @property
    def _changes(self) -> bool:
        return self.file.operation in {"write", "append", "chmod", "chown"}


def check_open(operation: str, path: str, protected: Sequence[str], *, whole: bool) -> None:
    """Raises for what no policy opens. `whole`: all that is below `path` is meant too."""
    for own in (*NEVER, *protected):
        if path == own or path.startswith(f"{own}/") or (whole and f"{own}/".startswith(f"{path.rstrip('/')}/")):
            raise refused("Protected", f"{operation} of {path}: {own} is closed to file operations")


def check_owner(grant: Grant, operation: str, path: str, info: os.stat_result) -> None:
    """Raises where policy wants it to be somebody else's."""
    owner, wanted = _user(info.st_uid), {str(info.st_uid), _user(info.st_uid)}
    if why := files.owner_refusal(grant.binding(), grant.request.namespace, (operation, path), wanted):
        raise refused("OwnerNotAllowed", f"{path} belongs to {owner}; {why}")


def shown(path: str) -> str:
    """For people: bytes that are not UTF-8 and what cannot be seen are escaped."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def below(path: str, name: str) -> str:
    return posixpath.join(path, name)


def _user(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
