"""Find what an attempt of a killed operator left, and kill it."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from pathlib import Path

from remit.backends.base import Handle
from remit.errors import BackendError
from remit.sandbox import ProcessHandle, boot_id, init_of, kill_cgroups, kill_session, remove_cgroups, start_time
from remit.sandbox.bubblewrap import HOST_NAME

_DEATH_SECONDS = 10.0
_MOMENT_SECONDS = 0.01


def recover(handle: Handle) -> bool:
    """Kill by pid and start time, by pid namespace, by session and by cgroup. True if anything was alive.

    The kernel and the fork server have usually done it already. If both the operator and the fork server were killed,
    an init may have outlived bubblewrap because it had not yet asked for a death signal. Such an init is on record
    before it executes anything; until then it is in bubblewrap's session. It is found by the inode of its namespace
    where this process sees other pids than the operator that recorded it.

    Without namespaces, one process of the attempt is on record: its supervisor, which ends all others. If the operator,
    the fork server and that supervisor were all killed, the kernel kills the command, and what the command put into the
    background is found by its cgroup only. Where there is none, such a process goes on.

    Raises:
        BackendError: something cannot be killed, so what the attempt did is not known to be over.
    """
    if handle.boot_id != boot_id():
        return False
    alive = _kill_process(handle.pid, handle.start_time, ask=True)
    for init in (handle.init, handle.pid_namespace and init_of(handle.pid_namespace)):
        alive = bool(init and _kill_process(init, handle.init_start_time, ask=False)) or alive
    alive = kill_session(handle.pid, handle.start_time, HOST_NAME) or alive
    cgroups = [Path(path) for path in handle.cgroups]
    alive = kill_cgroups(cgroups) or alive
    if not _emptied(cgroups):
        raise BackendError(f"processes in {', '.join(handle.cgroups)} do not die; look at them before retrying")
    return alive


def _emptied(cgroups: Sequence[Path]) -> bool:
    """Remove the cgroups. A process that was killed has left its cgroup a moment later, for which this waits."""
    end = time.monotonic() + _DEATH_SECONDS
    while not remove_cgroups(cgroups):
        if time.monotonic() > end:
            return False
        time.sleep(_MOMENT_SECONDS)
        kill_cgroups(cgroups)
    return True


def _kill_process(pid: int, started: int, *, ask: bool) -> bool:
    """End the process that started then. `ask` a supervisor first, which ends everything that it watches."""
    try:
        process = ProcessHandle(pid)
    except ProcessLookupError:
        return False
    with process:
        if start_time(pid) != started or process.dead:
            return False
        poller = select.poll()
        poller.register(process.descriptor, select.POLLIN)
        for end in (process.stop, process.kill) if ask else (process.kill,):
            end()
            if poller.poll(_DEATH_SECONDS * 1000):
                return True
    raise BackendError(f"process {pid} does not die; look at it before retrying")
