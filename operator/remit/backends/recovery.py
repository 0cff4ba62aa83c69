"""Find what an attempt of a killed operator left, and kill it."""

from __future__ import annotations

import select
from pathlib import Path

from remit.backends.base import Handle
from remit.errors import BackendError
from remit.sandbox import ProcessHandle, boot_id, kill_cgroups, remove_cgroups, start_time

_DEATH_SECONDS = 10.0


def recover(handle: Handle) -> bool:
    """Kill by pid and start time, then by cgroup. True if anything was alive.

    The kernel has usually done it already: bubblewrap dies with the operator, and the pid namespace with bubblewrap.

    Raises:
        BackendError: something cannot be killed, so what the attempt did is not known to be over.
    """
    if handle.boot_id != boot_id():
        return False
    alive = _kill_process(handle)
    cgroups = [Path(path) for path in handle.cgroups]
    alive = kill_cgroups(cgroups) or alive
    if not remove_cgroups(cgroups):
        raise BackendError(f"processes in {', '.join(handle.cgroups)} do not die; look at them before retrying")
    return alive


def _kill_process(handle: Handle) -> bool:
    try:
        process = ProcessHandle(handle.pid)
    except ProcessLookupError:
        return False
    with process:
        if start_time(handle.pid) != handle.start_time or process.dead:
            return False
        poller = select.poll()
        poller.register(process.descriptor, select.POLLIN)
        process.stop()  # bubblewrap ends by it, and a supervisor ends everything that it watches first
        if poller.poll(_DEATH_SECONDS * 1000):
            return True
        process.kill()
        if not poller.poll(_DEATH_SECONDS * 1000):
            raise BackendError(f"process {handle.pid} does not die; look at it before retrying")
    return True
