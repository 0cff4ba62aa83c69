"""Finds what is to be mounted on the host, judges it, and holds it open until the attempt starts.

A folder is resolved once, beneath the root that a policy opens. What is judged and mounted from then on is what was
found, by its descriptor: swapping a name on the way for a link, or renaming a folder, changes nothing any more.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from remit.errors import InvalidInput
from remit.sandbox.beneath import SELF, open_beneath
from remit.sandbox.identity import reader_group, slots
from remit.sandbox.model import ClaimMount, EmptyMount, FilesMount, HostMount, Identities, Mount
from remit.sandbox.mountuser import Owned, User, choose_user, user_of
from remit.sandbox.ownership import give
from remit.sandbox.protected import Protected
from remit.sandbox.staging import close_copies, copy_mount, staged

_OPEN = os.O_PATH | os.O_CLOEXEC
_MOST_LINKS = 40
_ROOT = 0
_UNSTAGED = -1


@dataclass(slots=True)
class _ResolvedMount:
    """`descriptor` is -1 for an empty folder, which never has a `status`. `within`: the mount outermost around it that
    has a folder of the host, in which it lies at `relative`; there it is not bubblewrap that mounts it. `outer` is the
    innermost one."""

    mount: Mount
    descriptor: int = -1
    status: os.stat_result | None = None
    within: int = _UNSTAGED
    relative: str = ""
    outer: _ResolvedMount | None = None

    @property
    def is_folder(self) -> bool:
        return self.status is None or stat.S_ISDIR(self.status.st_mode)


class Mounts:
    """The mounts of one attempt. `close` it when the attempt has started, or will not.

    `copies` are for the fork server's child to stage, `arguments` and `descriptors` for bubblewrap. `user` is None
    where the operator is an ordinary user, whose attempts are its own.
    """

    def __init__(
        self,
        mounts: Sequence[Mount],
        identities: Identities | None,
        protected: Iterable[str],
        *,
        stages: bool,
        disk_bytes: int,
        may_wait: bool = True,
    ) -> None:
        """Opens them. May block for as long as a filesystem of the host does not answer, unless it must not wait: then
        it raises BlockingIOError where it would have to.

        `identities` are those of attempts, where the operator is root; `stages`: whether `copies` are staged.
        `protected` are folders and files of which nothing is ever mounted; `disk_bytes` the size of empty folders that
        say none.

        Raises InvalidInput for what is not there, or must not be mounted.
        """
        self._found: list[_ResolvedMount] = []
        self._stages = stages
        self._disk_bytes = disk_bytes
        self._may_wait = may_wait
        try:
            trusts = os.geteuid() != _ROOT or identities is not None
            for mount in sorted(mounts, key=lambda mount: mount.mount_path):
                self._found.append(self._open(mount, trusts))
            opened = [(each, each.mount) for each in self._found if isinstance(each.mount, HostMount)]
            statuses = check([(mount, each.descriptor) for each, mount in opened], protected, may_wait=may_wait)
            for (each, _), status in zip(opened, statuses, strict=True):
                each.status = status
            for each in self._found:
                _check_place(each, may_wait)
            owned = [
                Owned(mount, status.st_uid, status.st_gid) for (_, mount), status in zip(opened, statuses, strict=True)
            ]
            choice = choose_user(owned, identities, os.geteuid())
        except BaseException:
            self.close()
            raise
        self.user: User | None = None
        if identities:
            slot = identities.uid(next(slots))
            self.user = User(slot, slot, shared=False) if choice is None else user_of(choice, identities)
        closed = any(isinstance(mount, HostMount) and mount.for_readers for mount in mounts)
        group = reader_group() if identities and closed else None
        self.groups: tuple[int, ...] = () if group is None else (group,)
        """Further groups that the attempt must be in."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that `arguments` refer to."""
        return () if self._stages else tuple(each.descriptor for each in self._found if each.descriptor >= 0)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(each.mount.mount_path for each in self._found)

    def is_the_hosts(self, path: str) -> bool:
        """Whether what is put at `path` inside would be put into a folder of the host."""
        outer = _around(self._found, path)
        return outer is not None and isinstance(outer.mount, HostMount)

    @property
    def change_hands(self) -> bool:
        """Whether there are folders of Remit's that another user owns, as yet."""
        return bool(self._others())

    def take_over(self) -> None:
        """Have the attempt's user own the folders that are Remit's. May take as long as there are files."""
        for each in self._others():
            if self.user:
                give(each.descriptor, self.user.uid, self.user.gid)

    def _others(self) -> list[_ResolvedMount]:
        own = [each for each in self._found if isinstance(each.mount, HostMount) and each.mount.own]
        return [each for each in own if self.user and each.status and each.status.st_uid != self.user.uid]

    @property
    def opened(self) -> dict[str, int]:
        """The descriptors of folders of the host, by where they are mounted."""
        return {
            each.mount.mount_path: each.descriptor for each in self._found if each.descriptor >= 0 and each.is_folder
        }

    @property
    def staged(self) -> list[tuple[HostMount, int]]:
        """The mounts that lie in no other host folder, with the number by which each is staged."""
        numbers = enumerate(self._staged())
        return [
            (mount, number)
            for number, at in numbers
            if self._found[at].within < 0 and isinstance(mount := self._found[at].mount, HostMount)
        ]

    def copies(self) -> list[tuple[int, int, str, str]]:
        """Copy the mounts for `staging.stage`, which closes the descriptors. Raises OSError."""
        user = self.user or User(os.geteuid(), os.getegid(), shared=True)
        numbers = {number: staged for staged, number in enumerate(self._staged())}
        copies: list[tuple[int, int, str, str]] = []
        try:
            for each in (self._found[number] for number in self._staged()):
                tree = _UNSTAGED if each.descriptor < 0 else copy_mount(each.descriptor, _is_read_only(each.mount))
                options = f"mode=0700,size={self._size(each.mount)},uid={user.uid},gid={user.gid}"
                copies.append((tree, numbers.get(each.within, _UNSTAGED), each.relative, options))
        except BaseException:
            close_copies(copies)
            raise
        return copies

    def arguments(self) -> list[str]:
        """Arguments for bubblewrap, to be placed after those that create the folders of `/`."""
        words: list[str] = []
        numbers = {number: staged for staged, number in enumerate(self._staged())}
        outer = {each.within for each in self._found}
        for number, each in enumerate(self._found):
            path = each.mount.mount_path
            if each.within >= 0:
                continue
            if isinstance(each.mount, EmptyMount):
                words += ["--perms", "0700", "--size", str(self._size(each.mount)), "--tmpfs", path]
                continue
            # A read-only bind would make the mounts inside it read-only too. Staged mounts are read-only already.
            kind = "--ro-bind" if each.mount.read_only and number not in outer else "--bind"
            if self._stages:
                words += [kind, staged(numbers[number]), path]
            else:
                words += [f"{kind}-fd", str(each.descriptor), path]
        return words

    def close(self) -> None:
        for each in self._found:
            if each.descriptor >= 0:
                os.close(each.descriptor)
        self._found.clear()

    def _staged(self) -> list[int]:
        return [number for number, each in enumerate(self._found) if self._is_staged(each)]

    def _is_staged(self, each: _ResolvedMount) -> bool:
        return self._stages and (each.within >= 0 or isinstance(each.mount, HostMount))

    def _size(self, mount: Mount) -> int:
        size = mount.size_bytes if isinstance(mount, EmptyMount) else None
        return self._disk_bytes if size is None else size

    def _open(self, mount: Mount, trusts_links_of_root: bool) -> _ResolvedMount:
        within, relative, outer = self._lies_within(mount)
        if isinstance(mount, EmptyMount):
            return _ResolvedMount(mount, within=within, relative=relative, outer=outer)
        if isinstance(mount, ClaimMount | FilesMount):
            raise InvalidInput(f"{mount.mount_path}: volumes of a cluster are mounted by its Jobs only")
        descriptor = open_host(mount, trusts_links_of_root, may_wait=self._may_wait)
        return _ResolvedMount(mount, descriptor, within=within, relative=relative, outer=outer)

    def _lies_within(self, mount: Mount) -> tuple[int, str, _ResolvedMount | None]:
        """The number of the mount of the host that is outermost around `mount`, where in that, and the innermost."""
        inner = _around(self._found, mount.mount_path)
        if inner is None:
            return _UNSTAGED, "", None
        if inner.mount.mount_path == mount.mount_path:
            raise refused(mount, "two volumes are mounted there; choose another mountPath for one")
        if isinstance(inner.mount, EmptyMount):
            if inner.within >= 0:
                raise refused(
                    mount,
                    f"it lies in {inner.mount.mount_path}, which is an empty folder within a folder of the host; mount"
                    " it elsewhere",
                )
            return _UNSTAGED, "", None
        if not self._stages:
            raise refused(
                mount,
                f"it lies in {inner.mount.mount_path}, which is a folder of the host, and that takes an operator that"
                " is root, with CAP_SYS_ADMIN; mount it elsewhere",
            )
        number = inner.within if inner.within >= 0 else self._found.index(inner)
        top = self._found[number]
        return number, posixpath.relpath(mount.mount_path, top.mount.mount_path), inner


def _is_read_only(mount: Mount) -> bool:
    return isinstance(mount, HostMount) and mount.read_only


def _relative_to(outer: _ResolvedMount, mount: Mount) -> str:
    return posixpath.relpath(mount.mount_path, outer.mount.mount_path)


def _around(found: Sequence[_ResolvedMount], path: str) -> _ResolvedMount | None:
    """The innermost mount that `path` is at or in."""
    above = (each for each in found if f"{path}/".startswith(f"{each.mount.mount_path}/"))
    return max(above, key=lambda each: len(each.mount.mount_path), default=None)


def open_host(mount: HostMount, trusts_links_of_root: bool, *, may_wait: bool = True) -> int:
    """A descriptor of what is to be mounted, by which nothing can be read. Raises as `Mounts` does."""
    steps = [
        (mount.path, mount.root, posixpath.relpath(mount.path, mount.root)),
        (f"{mount.path}/{mount.sub_path}", mount.path, mount.sub_path or SELF),
    ]
    here = _resolved(mount, mount.root, mount.root, lambda: _open_root(mount, trusts_links_of_root, may_wait))
    for path, root, relative in steps:
        if relative == SELF:
            continue
        above = here
        try:
            opened = partial(open_beneath, above, relative, _OPEN, may_wait=may_wait)
            here = _resolved(mount, path, root, opened)
        finally:
            os.close(above)
    return here


def _resolved(mount: HostMount, path: str, root: str, opened: Callable[[], int]) -> int:
    try:
        return opened()
    except BlockingIOError:
        raise
    except OSError as error:
        raise refused(mount, explained(error, path, root)) from None


def explained(error: OSError, path: str, root: str) -> str:
    """Why `path`, which is looked for beneath `root`, cannot be had."""
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return f"{path} is not there; make it on the host, or correct the path: mounting makes nothing"
        case errno.EXDEV | errno.ELOOP if path == root:
            return f"there is a link in {path}, which may be followed only if it is root's; write where it leads"
        case errno.EXDEV | errno.ELOOP:
            return f"a link in {path} leads out of {root}, of which alone something may be mounted here"
        case errno.EACCES:
            return f"the operator may not enter {path}; give its user the right, or run it as root"
    return f"{path} cannot be opened: {error.strerror}"


def _open_root(mount: HostMount, trusts_links_of_root: bool, may_wait: bool) -> int:
    """Links are followed only where root made them, and on the way to the operator's own state: what others may replace
    leads nowhere."""
    root = mount.root
    if mount.internal and may_wait:
        return os.open(root, _OPEN)
    if mount.internal:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), root)
    top = os.open("/", _OPEN | os.O_DIRECTORY)
    try:
        try:
            return open_beneath(top, _relative(root), _OPEN, links=False, may_wait=may_wait)
        except OSError as error:
            if error.errno != errno.ELOOP or not trusts_links_of_root:
                raise
            if not may_wait:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), root) from None
        return open_beneath(top, _relative(_by_links_of_root(root)), _OPEN, links=False)
    finally:
        os.close(top)


def _by_links_of_root(path: str) -> str:
    """Resolve `path`. Raises OSError: ELOOP at a link of somebody else's."""
    parts, done, links = path.split("/"), "", 0
    while parts:
        part = parts.pop(0)
        if part in {"", "."}:
            continue
        if part == "..":
            done = posixpath.dirname(done)
            continue
        here = os.open(f"{done}/{part}", _OPEN | os.O_NOFOLLOW)
        try:
            status = os.fstat(here)
            if not stat.S_ISLNK(status.st_mode):
                done = f"{done}/{part}"
                continue
            links += 1
            if status.st_uid != _ROOT or links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink("", dir_fd=here)
        finally:
            os.close(here)
        done = "" if target.startswith("/") else done
        parts = [*target.split("/"), *parts]
    return done or "/"


def _relative(path: str) -> str:
    return path.lstrip("/") or SELF


def check(
    opened: Sequence[tuple[HostMount, int]], protected: Iterable[str], *, may_wait: bool = True
) -> list[os.stat_result]:
    """Give the status of each mount, by its descriptor. Raises InvalidInput where one must not be mounted, and
    BlockingIOError as `Protected.objections` does."""
    if guarded := [each for each in opened if not each[0].internal]:
        never = Protected(protected, may_wait=may_wait)
        objections = never.objections([descriptor for _, descriptor in guarded], may_wait=may_wait)
        for (mount, _), objection in zip(guarded, objections, strict=True):
            if objection:
                raise refused(mount, objection)
    statuses = [os.fstat(descriptor) for _, descriptor in opened]
    for (mount, _), status in zip(opened, statuses, strict=True):
        _check_file(mount, status)
    return statuses


def _check_file(mount: HostMount, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        return
    path = posixpath.join(mount.path, mount.sub_path) if mount.sub_path else mount.path
    if not stat.S_ISREG(status.st_mode):
        problem = f"{path} is neither a folder nor a file; devices, sockets and pipes of the host are not mounted"
        raise refused(mount, problem)
    if status.st_nlink > 1 and status.st_uid != _ROOT and not mount.internal:
        raise refused(
            mount,
            f"{path} has {status.st_nlink} names (hard links), and by one of them nobody knows whose file it is; mount"
            " its folder, or copy it",
        )


def _check_place(found: _ResolvedMount, may_wait: bool) -> None:
    """Raises InvalidInput where in a folder of the host is nothing to mount it on."""
    outer = found.outer
    if outer is None or _exists(outer, found, may_wait):
        return
    kind = "folder" if found.is_folder else "file"
    raise refused(
        found.mount,
        f"it lies in {outer.mount.mount_path}, which is a folder of the host, and there is no {kind}"
        f" {_relative_to(outer, found.mount)} in that; make an empty one: mounting makes nothing on the host",
    )


def _exists(outer: _ResolvedMount, found: _ResolvedMount, may_wait: bool) -> bool:
    path = _relative_to(outer, found.mount)
    try:
        descriptor = open_beneath(outer.descriptor, path, _OPEN, links=False, may_wait=may_wait)
    except BlockingIOError:
        raise
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(descriptor).st_mode) is found.is_folder
    finally:
        os.close(descriptor)


def refused(mount: Mount, problem: str) -> InvalidInput:
    where = mount.field if isinstance(mount, HostMount) else f"the volume at {mount.mount_path}"
    return InvalidInput(problem, field=where)
