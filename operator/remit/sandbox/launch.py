"""Everything needed to start one confined process: its argv and its descriptors. No process is started here."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Iterable, Mapping, Sequence

from remit.errors import InvalidInput
from remit.sandbox.bubblewrap import command_line, encode, private_arguments, released
from remit.sandbox.cgroup import CgroupSpec
from remit.sandbox.filesystem import system_files
from remit.sandbox.forkserver import Execute, Restrict, fork_server
from remit.sandbox.identity import closed_ancestor, slots
from remit.sandbox.memory import sealed_memory, shared_memory
from remit.sandbox.model import Bubblewrap, Identities, Network
from remit.sandbox.mounts import Mounts
from remit.sandbox.mountuser import User
from remit.sandbox.rlimits import RESOURCES

_MOST_VARIABLES = 1500  # bubblewrap accepts 9000 arguments in total, and a file takes five of them
_LIMIT_SECONDS = 10.0
_FILE_ROOTS = ("/workspace/", "/tmp/", "/run/")  # noqa: S108  # paths inside the sandbox


class Launch:
    """Give its `job` to the fork server, call `begun`, once it has started `release`, and then `enter`.

    bubblewrap waits for `release` before it makes a namespace. `status_fd` then gives its JSON lines: the first
    names the namespace's init, which executes the command after `enter` only. Close it when done; that is enough to
    undo a launch at any stage.
    """

    def __init__(
        self,
        bubblewrap: Bubblewrap,
        *,
        executable: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        files: Mapping[str, bytes],
        network: Network,
        disk_bytes: int | None,
        working_dir: str,
        read_only_paths: Sequence[str],
        rlimits: Mapping[str, int],
        system_call_filter: bytes | None = None,
        landlock_scopes: int = 0,
        mounts: Mounts | None = None,
    ) -> None:
        """`rlimits` as `remit.sandbox.rlimits` gives them, the next two as a plan has them. `mounts` must be open until
        the process has started.

        Raises InvalidInput for a NUL byte, and for a file or a mount where the sandbox has its own.
        """
        check(executable, argv, env, files, working_dir)
        if mounts:
            check_mounts(mounts, files, read_only_paths)
        hidden = [(path, closed) for path in read_only_paths if (closed := closed_ancestor(path))]
        self._descriptors: set[int] = set()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            placed = {
                path: self._holding(content) for path, content in {**system_files(network=network), **files}.items()
            }
            private = private_arguments(
                env,
                placed,
                disk_bytes=disk_bytes,
                working_dir=working_dir,
                mounts=mounts.arguments() if mounts else (),
            )
            private_fd = self._holding(encode(private))
            filter_fd = None if system_call_filter is None else self._keep(shared_memory(system_call_filter))
            go_read, self._go = self._pipe()
            self.status_fd, status_write = self._pipe()
            user = mounts.user if mounts else _next_user(bubblewrap.identities)
            early = dict(rlimits)
            # Other processes of the same user do not count in the attempt's own user namespace, so this limit is set
            # later.
            self._late = early.pop("nproc", None) if user is None or user.shared else None
            block_read, self._block = self._pipe()
            # The sandbox also holds a writing end, so that the end of the operator is not taken for its signal to
            # continue.
            sync = self._keep(os.dup(self._block))
            self._system = encode(released(network=network, read_only_paths=read_only_paths))
            self._steps: list[tuple[object, ...]] = []
            self._user = user
            self.uid = user.uid if user else None
            """The user that it becomes; None: it stays the operator's."""
            copies = mounts.copies() if mounts else []
            trees = [self._keep(tree) for tree, *_ in copies if tree >= 0]
            self._steps += [("stage", copies)] if copies else []
            if bubblewrap.identities and user:
                self._steps += [("expose", hidden)] if hidden else []
                groups = (*bubblewrap.identities.groups, *(mounts.groups if mounts else ()))
                self._steps += [("no_new_privileges",), ("become", user.uid, user.gid, *groups)]
            else:
                self._steps.append(("no_new_privileges",))
            self._steps.append(("limit", {RESOURCES[name]: value for name, value in early.items()}))
            if landlock_scopes:
                self._steps.append(("restrict", landlock_scopes))
            self.pass_fds = (
                *(placed.values()),
                *(private_fd, go_read, status_write, block_read, sync),
                *((filter_fd,) if filter_fd is not None else ()),
                *(mounts.descriptors if mounts else ()),
                *trees,
            )
            self.argv = command_line(
                bubblewrap,
                network=network,
                argument_fds=(private_fd, go_read),
                status_fd=status_write,
                executable=executable,
                argv=argv,
                block_fd=block_read,
                sync_fd=sync,
                filter_fd=filter_fd,
            )
            undo.pop_all()

    def job(self, stdio: tuple[int, int, int], cgroup: CgroupSpec | None) -> Execute:
        """bubblewrap, confined from before its first instruction: in its cgroup, another user than root, limited."""
        return Execute(self.argv, stdio, self.pass_fds, self._steps, cgroup)

    def begun(self) -> None:
        """Leave the descriptors to the process. Closing ours lets the status pipe end when the process does."""
        for descriptor in self.pass_fds:
            self._close(descriptor)

    def release(self) -> None:
        """Let it go on. Written in one piece into an empty pipe: an operator that dies here writes all or nothing."""
        with contextlib.suppress(BrokenPipeError):  # the process has ended, and its exit status says why
            os.write(self._go, self._system)
        self._close(self._go)

    async def count_processes(self, init: int) -> None:
        """Set the limit of processes on the namespace's init, whose pid here that is: where others run as its user, it
        can only be set once there is a user namespace of its own to count in. Raises OSError."""
        if self._late is None:
            return
        try:
            resource.prlimit(init, resource.RLIMIT_NPROC, (self._late, self._late))
        except ProcessLookupError:
            return  # the process has ended, and its exit status says why
        except PermissionError:  # root without CAP_SYS_RESOURCE may not set limits of other processes
            if self._user is None:
                raise
            job = Restrict(init, self._user.uid, self._user.gid, resource.RLIMIT_NPROC, self._late)
            with contextlib.closing(fork_server().begin(job)) as process:
                await process.finished(_LIMIT_SECONDS)

    def enter(self) -> None:
        """Let the command be executed, when the namespace's init is on record."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._block, b"1")
        self._close(self._block)

    def close(self) -> None:
        for descriptor in tuple(self._descriptors):
            self._close(descriptor)

    def _holding(self, content: bytes) -> int:
        return self._keep(sealed_memory(content))

    def _keep(self, descriptor: int) -> int:
        self._descriptors.add(descriptor)
        return descriptor

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._descriptors.update(ends)
        return ends

    def _close(self, descriptor: int) -> None:
        if descriptor in self._descriptors:
            self._descriptors.discard(descriptor)
            os.close(descriptor)


def check(
    executable: str, argv: Sequence[str], env: Mapping[str, str], files: Mapping[str, bytes], working_dir: str
) -> None:
    """Raises InvalidInput for what no sandbox can start."""
    if not argv or not executable.startswith("/"):
        raise InvalidInput("needs at least one word and an executable resolved to an absolute path", field="command")
    if any("\0" in word for word in (executable, working_dir, *argv, *env, *env.values(), *files)):
        raise InvalidInput("no argument, variable or path may hold a NUL byte", field="command")
    for field, words in (("command", (executable, *argv)), ("env", (*env, *env.values())), ("files", files)):
        if not all(map(_is_encodable, words)):
            raise InvalidInput("holds a surrogate (U+D800 to U+DFFF), which stands for no character", field=field)
    if len(env) + len(files) > _MOST_VARIABLES:
        raise InvalidInput(f"at most {_MOST_VARIABLES} variables and files together", field="env")
    if any(not name or "=" in name for name in env):
        raise InvalidInput("a variable's name may not be empty or hold '='", field="env")
    if not working_dir.startswith("/"):
        raise InvalidInput("must be an absolute path", field="workingDir")
    if ".." in working_dir.split("/"):  # bubblewrap creates it while the host's file system is still visible
        raise InvalidInput("may not hold '..'", field="workingDir")
    for path in files:
        if _takes_a_detour(path) or (not path.startswith(_FILE_ROOTS) and _is_own(path)):
            raise InvalidInput(
                f"{path!r} is the sandbox's own, or no absolute path without '.' and '..'", field="files"
            )
        if any(other.startswith(f"{path}/") for other in (*files, f"{working_dir}/")):
            raise InvalidInput(f"{path!r} is a file, and another path goes through it", field="files")


def check_mounts(mounts: Mounts, files: Iterable[str], read_only_paths: Iterable[str]) -> None:
    """Raises InvalidInput for a mount where the sandbox, or the operator for all of them, has something; and for a file
    that would be written to a folder of the host."""
    for path in mounts.paths:
        if _takes_a_detour(path) or _is_own(path) or "\0" in path:
            raise InvalidInput("the path is the sandbox's own; choose another", field=f"the volume at {path}")
        for given in read_only_paths:
            if f"{given}/".startswith(f"{path}/") or f"{path}/".startswith(f"{given}/"):
                message = f"the operator gives {given} to all tasks; choose another mountPath"
                raise InvalidInput(message, field=f"the volume at {path}")
        if path in files:
            raise InvalidInput(f"{path!r} is a file, and a volume is mounted there", field="files")
    for path in files:
        if mounts.is_the_hosts(path):
            raise InvalidInput(
                f"{path!r} lies in a mounted folder, to which it would be written; choose another path", field="files"
            )


def _takes_a_detour(path: str) -> bool:
    return not path.startswith("/") or bool({"", ".", ".."} & set(path[1:].split("/")))


def _next_user(identities: Identities | None) -> User | None:
    if identities is None:
        return None
    uid = identities.uid(next(slots))
    return User(uid, uid, shared=False)


def _is_own(path: str) -> bool:
    """Whether nothing may be mounted over it."""
    from remit.api.volumes import OWN_PATHS  # imported here, because supervisors of processes do not import the models

    return re.search(OWN_PATHS, path) is not None


def _is_encodable(word: str) -> bool:
    """Whether it can be passed to a program: lone surrogates that do not stand for a byte cannot."""
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True
