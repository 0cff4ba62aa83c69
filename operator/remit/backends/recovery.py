"""Find what an attempt of a killed operator left, and kill it."""

from __future__ import annotations

import select
from pathlib import Path

from remit.backends.base import Handle
from remit.errors import BackendError
from remit.sandbox import ProcessHandle, boot_id, kill_cgroups, kill_session, remove_cgroups, start_time
from remit.sandbox.bubblewrap import PROGRAM

_DEATH_SECONDS = 10.0


def recover(handle: Handle) -> bool:
    """Kill by pid and start time, then by session and by cgroup. True if anything was alive.

    The kernel and the fork server have usually done it already. If both the operator and the fork server were killed,
    an init may have outlived bubblewrap because it had not yet asked for a death signal. Such an init is on record
    before it executes anything; until then it is in bubblewrap's session.

    Raises:
        BackendError: something cannot be killed, so what the attempt did is not known to be over.
    """
    if handle.boot_id != boot_id():
        return False
    alive = _kill_process(handle.pid, handle.start_time, ask=True)
    if handle.init:
        alive = _kill_process(handle.init, handle.init_start_time, ask=False) or alive
    alive = kill_session(handle.pid, handle.start_time, PROGRAM) or alive
    cgroups = [Path(path) for path in handle.cgroups]
    alive = kill_cgroups(cgroups) or alive
    if not remove_cgroups(cgroups):
        raise BackendError(f"processes in {', '.join(handle.cgroups)} do not die; look at them before retrying")
    return alive


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
