"""Run a command where there is no pid namespace to end with it. Standard library only: the fork server's child runs it.

The supervisor is in a Landlock domain of its own, and the command in one within that. So the supervisor's `kill(-1)`
reaches every process that came of the command and no other, in one pass of the kernel that no fork can outrun; while no
process of the command can signal the supervisor. Orphans come to the supervisor, which waits for each death.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import resource
import signal
import socket

from remit.libc import die_with
from remit.sandbox.forkserver.jobs import become_subreaper, reset_signals, take
from remit.sandbox.forkserver.wire import send
from remit.sandbox.landlock import restrict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

STOP = signal.SIGQUIT
"""Sent to the supervisor, also by the kernel when the fork server ends: KILL everything. SIGTERM is passed on."""

_ALSO_CLONES = 0x4000_0000  # __WALL: children whose end sends another signal than SIGCHLD, or none
_NOT_EXECUTED = 127


def supervise(channel: socket.socket, descriptors: Sequence[int], data: dict[str, Any]) -> None:
    """Run `argv`, and send how it ended once nothing of it is alive.

    `descriptors` are the environment (a file), and a pipe: a byte lets the command go, its end calls it off.
    """
    environment, go = descriptors
    heard = {signal.SIGCHLD, signal.SIGTERM, STOP}
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    server = os.getppid()
    die_with(server, STOP)
    become_subreaper()
    restrict(data["scoped"])
    if not os.read(go, 1):
        return
    told, tell = os.pipe2(os.O_CLOEXEC)
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_the_command(supervisor, environment, tell, data)
    os.close(tell)
    _let_go_of_the_streams()
    status = _watch(pid, heard)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    while (ended := _reap(block=True)) is not None:
        status = ended[1] if ended[0] == pid else status
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    refused = os.read(told, 4096)
    send(channel, ("result", {
        "status": status,
        "refused": marshal.loads(refused) if refused else None,  # noqa: S302  # our own child's
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "max_memory_bytes": used.ru_maxrss * 1024,
    }))  # fmt: skip


def _become_the_command(supervisor: int, environment: int, tell: int, data: dict[str, Any]) -> None:
    """Never returns; what it raises says that it could not be confined."""
    reset_signals()
    os.setsid()
    env = marshal.loads(os.pread(environment, os.fstat(environment).st_size, 0))  # noqa: S302  # the operator's own
    missing = None
    try:
        os.chdir(data["folder"])
    except OSError as error:
        missing = error
    take(data["steps"])
    die_with(supervisor)  # a change of user clears the setting, so it comes after that
    take(data["last_steps"])
    try:
        if missing:
            raise missing
        os.execve(data["executable"], data["argv"], env)  # noqa: S606  # never a shell
    except OSError as error:
        os.write(tell, marshal.dumps((error.errno, error.strerror)))
    os._exit(_NOT_EXECUTED)


def _watch(pid: int, heard: set[signal.Signals]) -> int | None:
    """Wait until the command ends, and return its status; None if there was an order to stop."""
    while True:
        match signal.sigwaitinfo(heard).si_signo:
            case signal.SIGTERM:
                for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process handles SIGTERM only after SIGCONT
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, number)
            case signal.SIGCHLD:
                while (ended := _reap(block=False)) is not None and ended[0]:
                    if ended[0] == pid:
                        return ended[1]
            case _:
                return None


def _reap(*, block: bool) -> tuple[int, int] | None:
    """The pid and status of a child that ended; pid 0 if none did; None if there are none."""
    try:
        return os.waitpid(-1, _ALSO_CLONES | (0 if block else os.WNOHANG))
    except ChildProcessError:
        return None


def _let_go_of_the_streams() -> None:
    """They end when the command's own copies are closed."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
