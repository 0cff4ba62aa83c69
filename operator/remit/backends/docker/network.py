"""The restricted network of an attempt: a network namespace from which only the egress proxy can be reached.

An idle container, the holder, owns the namespace, and the attempt's container joins it. So the proxy listens before the
command starts, and a restarted operator can listen there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from remit.backends.base import AttemptRequest
from remit.backends.docker.engine import Engine
from remit.backends.docker.holder import start_holder
from remit.backends.docker.holding import is_process_of
from remit.backends.egress.listener import EgressListener, proxy_environment
from remit.backends.egress.listeners import EgressListeners
from remit.backends.egress.usage import NetworkUse
from remit.backends.egress.usagestore import UsageStore
from remit.backends.failure import OperationFailed
from remit.errors import BackendError, OutcomeUnknown, RemitError, SandboxUnavailable
from remit.sandbox import ProcessHandle

log = structlog.get_logger(__name__)

_EXECUTED_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.005
_KEEP_SECONDS: Final = 1.0
_GONE: Final[Mapping[str, Any]] = {"State": {"Pid": 0}}
_ENDED: Final = (
    "the container that holds its restricted network was ended from outside: its Docker engine was stopped, or somebody"
    " killed it"
)
_NO_LISTENER: Final = "the egress proxy could not listen in the restricted network: {error}"
_ELSEWHERE: Final = (
    "the network cannot be restricted: what the Docker engine at {host} runs is no process that this operator sees. Run"
    " the operator on the engine's own host, and outside of containers or in the host's pid namespace; or use"
    " network: none, or backend: process"
)
_NO_HOLDER: Final = (
    "the network cannot be restricted: the container of image {image} that would hold it cannot be started ({error});"
    " use network: none, or backend: process"
)
_NO_RIGHT: Final = (
    "the network cannot be restricted: the operator may not enter that of a container ({error}). Run it as root with"
    " CAP_SYS_ADMIN on the engine's host; or use network: none, or backend: process"
)


class RestrictedNetwork:
    """Used once: `make` it, or `resume` what another operator made; then `end` it, or just `close` it to let it go.

    `failed` gets why, when it is not there any more. The holder `name` is removed by whoever removes the attempt.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        request: AttemptRequest,
        listeners: EgressListeners,
        usage_store: UsageStore | None,
    ) -> None:
        self.name = name
        self.failed: asyncio.Future[RemitError] = asyncio.get_running_loop().create_future()
        self._engine = engine
        self._request = request
        self.environment = proxy_environment(request.egress)
        self._listeners, self._usage_store = listeners, usage_store
        self._listener: EgressListener | None = None
        self._kept: NetworkUse | None = None
        self._process: ProcessHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def make(self, image: Mapping[str, Any], architecture: str) -> str:
        """Gives the id of the holder, whose network the attempt's container joins.

        Raises:
            SandboxUnavailable: it cannot be restricted from where the operator is.
            BackendError: it could, and was not.
        """
        try:
            id_ = await start_holder(self._engine, self.name, self._request, image, architecture)
        except OperationFailed as error:
            if error.retryable:
                raise
            raise SandboxUnavailable(_NO_HOLDER.format(image=self._request.image, error=error)) from None
        try:
            await self._open(await self._engine.call(lambda client: client.inspect_container(id_)), None)
        except OSError as error:
            raise BackendError(_NO_LISTENER.format(error=error)) from error
        return id_

    async def resume(self, holder: Mapping[str, Any] | None) -> None:
        """Listen again in the namespace of `holder`, as the engine inspected it. `failed` gets why that fails."""
        try:
            await self._open(holder or _GONE, self._read())
        except (BackendError, SandboxUnavailable) as error:
            self.failed.set_result(error)
        except OSError as error:  # an error of the operator; the container itself may have completed its work
            self.failed.set_result(OutcomeUnknown(_NO_LISTENER.format(error=error)))

    def check(self) -> None:
        """Raises why it is not there any more, if so."""
        if self.failed.done():
            raise self.failed.result()
        if self._process and self._process.dead:
            raise BackendError(_ENDED)

    async def end(self) -> NetworkUse:
        """Cut every connection. Gives what went over, by this operator and those before it, and keeps no record."""
        await self.close()
        used = self._listener.use if self._listener else self._read()
        if self._usage_store:
            self._usage_store.forget(self.name)
        return used or NetworkUse()

    async def close(self) -> None:
        """Cut every connection. What went over stays on record, for whoever takes the attempt up."""
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()
        finally:
            try:
                if self._listener:
                    await self._listener.close()
            finally:
                if self._process:
                    self._keep()
                    self._process.close()
                    self._process = None

    async def _open(self, holder: Mapping[str, Any], used: NetworkUse | None) -> None:
        try:
            self._process = await self._found(holder)
            rate = self._request.confinement.limits.network_bytes_per_second
            self._listener, self._kept = self._listeners.create(self._request.egress, rate, used), used
            await self._listener.open(self._process, owned=False)
        except ProcessLookupError:
            raise BackendError(_ENDED) from None
        except PermissionError as error:
            raise SandboxUnavailable(_NO_RIGHT.format(error=error.strerror or error)) from None
        self._tasks = [asyncio.create_task(self._watch(self._process)), asyncio.create_task(self._keep_books())]

    async def _found(self, holder: Mapping[str, Any]) -> ProcessHandle:
        """The holder's process on this host, and no other that has its pid here or got it since.

        Raises ProcessLookupError if it has ended.
        """
        if not (pid := int(holder["State"]["Pid"])):
            raise ProcessLookupError
        try:
            # The handle refers to the same process from here on, whichever process that is.
            process = ProcessHandle(pid)
        except ProcessLookupError:
            raise self._elsewhere() from None
        with contextlib.ExitStack() as undo:
            undo.callback(process.close)
            deadline = time.monotonic() + _EXECUTED_SECONDS
            # The engine's init program executes ours some time after the start.
            while not is_process_of(holder, _argv(pid)):
                if process.dead:
                    raise ProcessLookupError
                if time.monotonic() > deadline:
                    raise self._elsewhere()
                await asyncio.sleep(_LOOK_SECONDS)
            undo.pop_all()
        return process

    def _elsewhere(self) -> SandboxUnavailable:
        return SandboxUnavailable(_ELSEWHERE.format(host=self._engine.host))

    async def _watch(self, process: ProcessHandle) -> None:
        await process.death()
        self.failed.set_result(BackendError(_ENDED))

    async def _keep_books(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_SECONDS)
            self._keep()

    def _keep(self) -> None:
        """An operator that is killed leaves what went over until its last second."""
        if (
            self._usage_store is None
            or self._listener is None
            or (use := self._listener.use) == (self._kept or NetworkUse())
        ):
            return
        try:
            self._usage_store.write(self.name, use)
        except OSError as error:
            log.warning("what went over a network could not be kept", attempt=self._request.id, error=str(error))
        self._kept = use

    def _read(self) -> NetworkUse | None:
        return self._usage_store.read(self.name) if self._usage_store else None


def _argv(pid: int) -> list[str]:
    """The arguments of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []
