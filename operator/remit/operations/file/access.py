"""Whether this may be touched: asked again about what a path turned out to be."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import pwd
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from remit.api.operations import FileOperation
from remit.backends.failure import OperationFailed
from remit.backends.filetree import is_below
from remit.errors import PolicyDenied
from remit.operations.file.errors import Stopped, failure, refused
from remit.policy.argv import refused_character
from remit.policy.grant import Grant
from remit.policy.rules import files
from remit.sandbox.beneath import Place, place

_LEAVING_OUT = frozenset({"list", "copy", "chmod", "chown", "delete"})
_OF_ANY_KIND = frozenset({"list", "stat", "delete"})
"""What neither opens nor changes what it finds."""
_MOST_TOLD, _MOST_SHOWN = 5, 120
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What the kernel says of an entry that was removed or replaced since it was found."""
NEVER = ("/proc", "/sys", "/dev")
"""Not files but the kernel itself: no policy opens them to file operations."""


@dataclass(slots=True)
class LeftOut:
    """The files to which an operation on a folder could not be applied, while it was done to the rest."""

    count: int = 0
    _first: list[str] = field(default_factory=list)

    def add(self, path: str, why: str) -> None:
        self.count += 1
        if len(self._first) < _MOST_TOLD:
            text = shown(path)
            self._first.append(f"{text if len(text) <= _MOST_SHOWN else f'…{text[-_MOST_SHOWN:]}'} ({why})")

    def clear(self) -> None:
        """Count from the beginning again."""
        self.count = 0
        self._first.clear()

    def __str__(self) -> str:
        """A summary for the end of the operation's report."""
        if not self.count:
            return ""
        more = f" and {self.count - _MOST_TOLD} more" if self.count > _MOST_TOLD else ""
        return f"; left out: {', '.join(self._first)}{more}"


class Unsuitable(OperationFailed):
    """Refused for what an entry is, whatever policy says. Below a folder it is left out; `why` is for that."""

    def __init__(self, reason: str, message: str, why: str) -> None:
        super().__init__(reason, message, retryable=False, category="Denied")
        self.why = why


@dataclass(frozen=True, slots=True)
class Access:
    """Guards one operation. `protected` are directories of the operator's own: its state, its credentials."""

    grant: Grant
    file: FileOperation
    protected: Sequence[str]
    stop: threading.Event
    left_out: LeftOut = field(default_factory=LeftOut)
    mounts: Sequence[str] = ()
    """In a Job, the mounted folders, which no link may leave, whatever policy allows."""

    @contextmanager
    def place(self, path: str, *, make_parents: bool = False) -> Iterator[Place]:
        """The place that `path` leads to, after a check that policy allows that place too."""
        root = files.root(self.grant.binding(), self.file.operation, path, self.file.glob)
        mounted = (mount for mount in self.mounts if is_below(path, mount))
        root = max((root, *mounted), key=len)
        with contextlib.ExitStack() as stack:
            try:
                found = stack.enter_context(place(root, path, make_parents=make_parents))
            except OSError as error:
                raise failure(error, self.file, path, above=True) from error
            self.check(found.path, written=path)
            yield found

    @contextmanager
    def about(self, path: str) -> Iterator[None]:
        """Report what the kernel refuses within the block as an error about `path`."""
        try:
            yield
        except OSError as error:
            raise failure(error, self.file, path) from error

    def check(self, path: str, *, written: str = "") -> None:
        """Raises for what policy does not allow, for the operator's own, and when it is time to stop."""
        self.check_folder(path)
        if path != written:
            subject = self.file.model_copy(update={"path": path, "destination": None})
            # `path` was matched by the task's glob, so the request to the policy is about this path alone.
            if not written:
                subject = subject.model_copy(update={"glob": None, "older_than": None})
            decision = self.grant.ask(subject)
            if not decision.allowed:
                start = f"{written} is really {shown(path)}" if written else shown(path)
                raise PolicyDenied(f"{start}: {decision.message.removeprefix('spec.file.path: ')}")

    def check_folder(self, path: str) -> None:
        """Raises for the operator's own, whatever policy says, and when it is time to stop."""
        self.check_stop()
        check_open(self.file.operation, path, self.protected, whole=self.file.recursive)

    def check_stop(self) -> None:
        """Raises when it is time to stop."""
        if self.stop.is_set():
            raise Stopped

    def leaves_out(self, path: str) -> bool:
        """Whether a name below a folder is left out, and told of: it has bytes that are not UTF-8, or characters that
        no policy is asked about. What moves a folder does all of it or nothing."""
        if self.file.operation not in _LEAVING_OUT or not refused_character(path):
            return False
        self.left_out.add(path, "characters in its name")
        return True

    @contextmanager
    def leaving_out(self, path: str) -> Iterator[None]:
        """One entry below a folder does not keep the rest from being done: it is left out, and told of."""
        try:
            yield
        except (OperationFailed, OSError) as error:
            cause = error.__cause__ if isinstance(error, OperationFailed) else error
            gone = isinstance(cause, OSError) and cause.errno in _GONE
            if self.file.operation not in _LEAVING_OUT or not (gone or isinstance(error, Unsuitable)):
                raise
            if isinstance(error, Unsuitable):
                self.left_out.add(path, error.why)
            elif self.file.operation != "delete":
                self.left_out.add(path, "it was removed or replaced meanwhile")

    def inspect(self, path: str, info: os.stat_result, *, links: bool = False) -> None:
        """Look at owner and kind before anything is done.

        A file with a second name could be one from elsewhere, linked here; a device or a pipe is no file.
        """
        any_kind = self.file.operation in _OF_ANY_KIND and (links or not stat.S_ISLNK(info.st_mode))
        plain = stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) or (links and stat.S_ISLNK(info.st_mode))
        if not (plain or any_kind):
            kind = _kind(info.st_mode)
            raise Unsuitable("NotAFile", f"{path} is {kind}, not a file or a directory", kind)
        if stat.S_ISREG(info.st_mode) and info.st_nlink > 1 and self.file.operation not in _OF_ANY_KIND:
            names = f"{info.st_nlink} names"
            raise Unsuitable("HardLink", f"{path} has {names}: it may be a file from elsewhere, linked here", names)
        if info.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(info.st_mode) and self._changes:
            mode = f"mode {info.st_mode & 0o7777:o}"
            raise Unsuitable("SetUserId", f"{path} runs with its owner's rights ({mode})", mode)
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
    """The path for people. Invalid UTF-8 and invisible characters are escaped."""
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
