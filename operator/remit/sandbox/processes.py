"""Processes named so that a reused pid cannot be mistaken for the one meant."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path

from remit.sandbox.forkserver.supervise import STOP


def boot_id() -> str:
    """This boot's identity: a process from another boot is dead."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When `pid` started, in clock ticks since boot; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def pid_namespace(pid: int) -> int | None:
    """The inode of its pid namespace; None where there is no such process, or it may not be asked."""
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None


def init_of(namespace: int) -> int | None:
    """The pid, as this process sees it, of the init of the pid namespace with this inode. None if there is none."""
    for pid in _pids():
        if pid_namespace(pid) == namespace:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if status.partition("NSpid:")[2].partition("\n")[0].split()[-1:] == ["1"]:
                    return pid
    return None


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def tasks_of_this_user() -> int:
    """Processes and threads that the kernel counts for RLIMIT_NPROC beside an attempt's own, as far as can be seen."""
    user, found = os.geteuid(), 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == user:
                found += sum(1 for _ in Path(entry.path, "task").iterdir())
    return found


def kill_session(leader: int, started: int, words: Sequence[str]) -> bool:
    """KILL all with `words` among their arguments in the session of a leader that has ended; True if there is any.

    While a session has a member, the kernel gives its number to no new process. So a process `leader` that did not
    start at `started` means that the session is over. Where there is none, the number may have been that of another
    session since: by `words` the caller knows its own.
    """
    if start_time(leader) not in {started, None}:
        return False
    wanted = b"".join(word.encode() + b"\0" for word in words)
    found = False
    for pid in _pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError), ProcessHandle(pid) as process:
            if os.getsid(pid) == leader != pid and wanted in Path(f"/proc/{pid}/cmdline").read_bytes():
                process.kill()
                found = True
    return found


class ProcessHandle:
    """A pidfd: refers to one process for ever. Closed by `close` or as a context manager."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is no such process."""
        self.pid = pid
        self.descriptor = os.pidfd_open(pid)

    def __enter__(self) -> ProcessHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dead(self) -> bool:
        """True once every thread is gone; for the init of a pid namespace: once the whole namespace is."""
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN)
        return bool(poller.poll(0))

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        """Ask a supervisor to end what it watches, also where it is stopped; another process just ends."""
        self._send(STOP)
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def signal_group(self, number: signal.Signals) -> None:
        """Send to the process group that this process leads, while it lives."""
        if not self.dead:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def death(self) -> None:
        """Wait until it is dead; it need not be our child."""
        loop = asyncio.get_running_loop()
        dead = asyncio.Event()
        loop.add_reader(self.descriptor, dead.set)
        try:
            await dead.wait()
        finally:
            loop.remove_reader(self.descriptor)

    def reap(self) -> None:
        """Collect a dead process if it became our child: an operator that is pid 1 inherits orphans."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG)

    def close(self) -> None:
        os.close(self.descriptor)
