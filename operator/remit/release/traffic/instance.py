"""One HAProxy process, in a folder of its own, which is named by its digest:

    haproxy.cfg   what it was started with, kept up to date, so that a start brings back what was in force
    weights       each side's share, likewise
    <digest>      the socket of its runtime API, for our user alone
    lock          held by the process for as long as it lives
    empty/        its root, where the operator is root

It is nobody's child: it goes on when the operator ends, and is found again by its lock and its socket.

One whose place another took leaves: it accepts nothing more, and ends with the last of its connections, however long
that lives. Its folder is called `leaving-PID-STARTTIME-DIGEST` by then, so that another one may have its digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import psutil

from remit.api.slots import other
from remit.backends.subprocesses import start_subprocess
from remit.errors import DeploymentError
from remit.privatefiles import replace_private
from remit.release.traffic.configuration import (
    RELAYED,
    WEIGHTS,
    Process,
    backend,
    relay,
    render,
    render_weights,
    server,
)
from remit.release.traffic.route import POOLS, Route
from remit.release.traffic.runtime import PROXY_FAILED, ProxySnapshot, ask, listens, look, socket_of
from remit.release.traffic.steps import steps, unfound
from remit.sandbox import ProcessHandle, start_time

_CONFIGURATION: Final = "haproxy.cfg"
_LOCK: Final = "lock"
_START_SECONDS: Final = 10.0
_DEATH_SECONDS: Final = 2.0
_CHECK_SECONDS: Final = 2.0
_KILLED_SECONDS: Final = 10.0
"""How long a killed process may take to be dead."""
_END_SECONDS: Final = 30.0
"""How long one that is to end now may finish what is in flight."""
_LEAVING: Final = "leaving-"


class Instance:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def leaves(self) -> bool:
        """Whether another one took its place."""
        return self.folder.name.startswith(_LEAVING)

    async def look(self) -> ProxySnapshot | None:
        """Observe what is in force; None if the process is dead. Raises DeploymentError if it lives and does not
        answer."""
        try:
            return await look(self.folder)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except DeploymentError:
            lock = await self._lock()  # the process may have ended just now
            if lock is None:
                raise
            os.close(lock)
            return None

    def write(self, route: Route, process: Process) -> None:
        """Keep on disk what the next start is to bring back."""
        for folder in (self.folder, self.folder / "empty"):
            folder.mkdir(mode=0o700, exist_ok=True)
        _replace(self.folder / _CONFIGURATION, render(route, process))
        _replace(self.folder / WEIGHTS, render_weights(route))

    async def start(self, program: str, predecessor: Instance | None = None) -> None:
        """Return once it serves. It takes the listening sockets of its predecessor, which goes on until it is stopped.

        Raises DeploymentError with what HAProxy said.
        """
        lock = await self._lock()
        if lock is None:
            raise _failed(f"a traffic proxy in {self.folder} neither answers nor ends; end it by hand")
        taking = (
            ("-x", f"../{predecessor.folder.name}/{socket_of(predecessor.folder)}") if predecessor else ()
        )  # the predecessor's folder is a sibling of this one
        try:
            child = await start_subprocess(
                *(program, "-D", *taking, "-f", _CONFIGURATION),
                cwd=self.folder,
                env={},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[lock],
                start_new_session=True,
            )
        except OSError as error:
            raise _failed(f"the traffic proxy {program} cannot be started: {error.strerror}") from error
        finally:
            os.close(lock)
        try:
            async with asyncio.timeout(_START_SECONDS):
                _, said = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            raise
        except TimeoutError:
            child.kill()
            raise _failed(f"the traffic proxy did not start within {_START_SECONDS:g} s") from None
        if child.returncode:
            alerts = [line for line in said.decode(errors="replace").splitlines() if "[ALERT]" in line]
            message = "; ".join(line.partition(" : ")[2] for line in alerts) or f"exit code {child.returncode}"
            raise _failed(f"the traffic proxy did not start: {message}")

    async def converge(self, route: Route) -> None:
        """Bring what is in force to `route`, which has the same frame. Raises DeploymentError if the proxy refuses."""
        todo = steps(route, await look(self.folder))
        if todo.join or todo.switch or todo.leave:
            await self._tell(todo.join)
            await self._found(route)
            await self._tell(todo.switch + todo.leave)
        if todo.remove:
            await ask(self.folder, *todo.remove)

    async def doubt(self, route: Route) -> None:
        """Have replicas that get no requests yet be down until a check has found them up: a proxy that starts takes all
        of them for up, whatever they are. Raises DeploymentError if the proxy refuses."""
        names = [
            f"{backend(entry.port, pool)}/{server(address, backup=backup)}"
            for entry in route.entries
            for pool in POOLS
            for address, backup in entry.members(pool).items()
            if not entry.weights[other(pool.slot) if backup else pool.slot]
        ]
        await self._tell([f"set server {name} health down" for name in names])

    async def _tell(self, commands: list[str]) -> None:
        for command, answer in zip(commands, await ask(self.folder, *commands), strict=True):
            if answer not in ("", "New server registered."):
                raise _failed(f"the traffic proxy refused {command!r}: {answer}")

    async def _found(self, route: Route) -> None:
        """Wait until the replicas that `route` needs have been found, but for no longer than checks take: one that is
        gone is not to hold up a switch to those beside it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                while unfound(route, await look(self.folder)):  # noqa: ASYNC110  # it has to be asked
                    await asyncio.sleep(0.02)

    async def leave(self) -> None:
        """Close its ports, and end once its connections have. Nothing happens if it is dead."""
        seen = await self.look()
        if seen is None:
            return
        if not self.leaves:
            name = f"{_LEAVING}{seen.pid}-{start_time(seen.pid) or 0}-{self.folder.name}"
            self.folder = self.folder.rename(self.folder.with_name(name))
        configuration = (self.folder / _CONFIGURATION).read_text()
        # The frontends are shut down first, so that relayed requests do not come back to them.
        await ask(self.folder, *(f"shutdown frontend {port}" for port in seen.ports))
        relaying = [port for port in seen.ports if f"backend {relay(port)}\n" in configuration]
        await self._tell([f"set map {WEIGHTS} {port} {RELAYED}" for port in relaying])
        with contextlib.suppress(ProcessLookupError), ProcessHandle(seen.pid) as handle:
            signal.pidfd_send_signal(handle.descriptor, signal.SIGUSR1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEATH_SECONDS):
                while await listens(self.folder):  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.01)

    def left(self, addresses: Iterable[str]) -> dict[str, int] | None:
        """The number of connections that a leaving proxy has to replicas, by their addresses; None if it has ended.

        Where the system does not tell, one for each of `addresses`. Connections that are kept for later count for a few
        seconds, too.
        """
        with contextlib.suppress(ProcessLookupError), self._handle() as handle:
            try:
                found = psutil.Process(handle.pid).net_connections("tcp")
            except psutil.NoSuchProcess:
                return None
            except psutil.AccessDenied:
                return dict.fromkeys(addresses, 1)
            there = [each.raddr for each in found if each.status == psutil.CONN_ESTABLISHED]
            return Counter(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in there)
        return None

    async def stop(self) -> None:
        """Close its ports, let it finish what is in flight, but not for long, and wait for its end.

        Raises DeploymentError where it does not even die.
        """
        await self.leave()
        with contextlib.suppress(ProcessLookupError), self._handle() as handle:
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await handle.death()
            except TimeoutError:
                await self._kill(handle)
            handle.reap()

    async def _kill(self, handle: ProcessHandle) -> None:
        handle.kill()
        try:
            async with asyncio.timeout(_KILLED_SECONDS):
                await handle.death()
        except TimeoutError:
            raise _failed(f"the traffic proxy in {self.folder} was killed, and does not die") from None

    @contextlib.contextmanager
    def _handle(self) -> Iterator[ProcessHandle]:
        """A handle of the process of an instance that leaves. Raises ProcessLookupError if it has ended."""
        _, pid, started, _ = self.folder.name.split("-") if self.leaves else ("", "0", "0", "")
        if not self.leaves:
            raise ProcessLookupError(pid)
        with ProcessHandle(int(pid)) as handle:
            if start_time(int(pid)) != int(started):  # another process has this pid now
                raise ProcessLookupError(pid)
            handle.reap()
            yield handle

    async def _lock(self) -> int | None:
        """The lock's descriptor; None if the process goes on to hold it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / _LOCK, flags, 0o600)
        end = time.monotonic() + _DEATH_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    os.close(descriptor)
                    return None
                await asyncio.sleep(0.02)
            else:
                return descriptor


def _failed(message: str) -> DeploymentError:
    return DeploymentError(message, reason=PROXY_FAILED, retryable=True)


def _replace(path: Path, text: str) -> None:
    replace_private(path, text.encode(), sync=False)
