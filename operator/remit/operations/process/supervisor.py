"""The supervisor of one process: it starts, restarts and ends it, keeps its output and answers on a socket.

It lives on its own: it is no child of the operator, and the process is a child of its fork server, so that the process
never outlives it. Values from Secrets are in its memory only, and so survive a restart of the process, not its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from remit import threads
from remit.backends.base import AttemptRequest, Handle
from remit.backends.egress.usage import NetworkUse
from remit.backends.outcome import ExitReason, Outcome
from remit.backends.process import ProcessBackend
from remit.errors import RemitError
from remit.operations.process.logs import RotatingOutput
from remit.operations.process.record import SOCKET, ProcessIdentity, write_state
from remit.operations.process.restarting import RestartPolicy, failures_in_row, restart_delay
from remit.operations.process.usage import main_pid, measure
from remit.sandbox import Host, beside
from remit.telemetry.redact import Redactor

_WATCH_SECONDS = 2.0
_SAMPLE_EVERY = 5
_SAMPLES = 60
_MOST_WATCHERS = 16
_PEER_SECONDS = 10.0
"""How long a client may take to send its request, and to read the answer."""


@dataclass(frozen=True)
class Specification:
    """The process to supervise. It comes through a pipe and is never written anywhere."""

    namespace: str
    name: str
    task: str
    request: AttemptRequest
    restart_policy: RestartPolicy
    digest: str
    max_output_bytes: int
    host: Host
    read_only_paths: tuple[str, ...] = ()
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    max_restarts: int | None = None


class Supervisor:
    def __init__(self, specification: Specification, folder: Path) -> None:
        self.specification = specification
        self.folder = folder
        host = specification.host
        if host.cgroups:
            host = replace(host, cgroups=beside(host.cgroups))
        self._cgroups = host.cgroups
        self._backend = ProcessBackend(host, read_only_paths=specification.read_only_paths)
        self._bubblewrap = host.bubblewrap.path if host.bubblewrap else ""
        self._output = RotatingOutput(folder, specification.max_output_bytes, specification.secrets)
        self._redactor = Redactor(specification.secrets)
        self._stop = asyncio.Event()
        self._cancel = asyncio.Event()
        """Ends the present run."""
        self._restart_reason = ""
        """Why the present run was ended for another one; empty where it was not."""
        self._settled = asyncio.Event()
        self._over = asyncio.Event()
        self._watchers: set[asyncio.StreamWriter] = set()
        self._samples: deque[dict[str, Any]] = deque(maxlen=_SAMPLES)
        self._outer: int | None = None
        self._main: ProcessIdentity | None = None
        me = ProcessIdentity.of(os.getpid())
        self._state: dict[str, Any] = {
            "name": specification.name,
            "namespace": specification.namespace,
            "task": specification.task,
            "argv": self._redactor.scrub(list(specification.request.command.argv)),
            "restartPolicy": specification.restart_policy,
            "supervisor": me.show() if me else None,
            "restarts": 0,
            "graceSeconds": specification.request.grace_seconds,
            **({} if specification.max_restarts is None else {"maxRestarts": specification.max_restarts}),
        }

    async def run(self) -> None:
        """Supervise the process until it is stopped, or has ended and is not to be started again."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)  # noqa: PTH108  # as below
        # Uses a relative name, because the path of a socket is limited to 107 bytes, and this folder is the current
        # directory.
        server = await asyncio.start_unix_server(self._serve, SOCKET)
        watching = asyncio.ensure_future(self._watch())
        telling = asyncio.ensure_future(self._tell())
        try:
            await self._supervise()
        finally:
            self._settled.set()
            self._over.set()
            watching.cancel()
            await telling
            server.close()
            await asyncio.sleep(0.2)  # gives the client that asked to stop time to receive the answer
            if self._cgroups:
                for path in {*self._cgroups.parents.values()}:
                    with contextlib.suppress(OSError):
                        path.rmdir()

    async def _supervise(self) -> None:
        number = in_row = 0
        policy = self.specification.restart_policy
        while True:
            self._say(phase="Starting", process=None, nextRestartTime=None)
            began = time.monotonic()
            with contextlib.suppress(OSError):  # an error such as a full disk is no reason not to start the process
                self._output.begin()
            succeeded = await self._once(number)
            self._output.flush()
            if self._stop.is_set():
                self._say(phase="Stopped")
                return
            in_row = failures_in_row(in_row, time.monotonic() - began)
            delay = restart_delay(policy, succeeded=succeeded, in_row=in_row)
            if delay is None or number >= self._state.get("maxRestarts", math.inf):
                self._say(phase="Exited" if succeeded else "Failed")
                return
            due = datetime.now(UTC) + timedelta(seconds=delay)
            self._say(phase="Backoff", nextRestartTime=due.isoformat())
            self._settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stop.wait()
            if self._stop.is_set():
                self._say(phase="Stopped", nextRestartTime=None)
                return
            number += 1
            self._say(restarts=number)

    async def _once(self, number: int) -> bool:
        request = self.specification.request
        request = replace(request, id=f"{request.id}-{number}", timeout_seconds=math.inf)
        looking: asyncio.Task[None] | None = None
        self._cancel, self._restart_reason = asyncio.Event(), ""
        if self._stop.is_set():
            self._cancel.set()

        def started(handle: Handle) -> None:
            nonlocal looking
            self._outer = handle.pid
            looking = looking or asyncio.ensure_future(self._look_for_main(handle.pid))

        try:
            outcome = await self._backend.run(request, self._output, cancel=self._cancel, on_started=started)
        except RemitError as error:
            message = self._redactor.redact(str(error))
            self._say(process=None, lastExit={"reason": type(error).__name__, "message": message})
            return False
        finally:
            self._outer = self._main = None
            if looking:
                looking.cancel()
        because = {"message": self._restart_reason} if self._restart_reason else {}
        self._say(process=None, lastExit=_shown(outcome, self._redactor) | because)
        return outcome.exit_code == 0 and not because

    async def _look_for_main(self, outer: int) -> None:
        # There is no notification of an exec, so /proc is polled.
        while (pid := main_pid(outer, self._bubblewrap)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._main = ProcessIdentity.of(pid)
        if self._main:
            self._say(phase="Running", process=self._main.show(), startedAt=datetime.now(UTC).isoformat())
            self._settled.set()

    async def _watch(self) -> None:
        """Sample, and end when our folder is gone: nobody could find or stop the process any more."""
        ours = self.folder.stat().st_ino
        tick = 0
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                gone = self.folder.stat().st_ino != ours
            except OSError:
                gone = True
            if gone:
                self._end()
                return
            if tick % _SAMPLE_EVERY == 0 and self._outer is not None:
                self._samples.append(measure(self._outer))
            tick += 1

    async def _tell(self) -> None:
        """Tell who started us how it began, once."""
        await self._settled.wait()
        with contextlib.suppress(OSError):
            os.write(1, orjson.dumps(self._state) + b"\n")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PEER_SECONDS):
                request = orjson.loads(await reader.readline())
            if request == {"do": "watch"}:
                await self._be_watched(reader, writer)
                return
            writer.write(orjson.dumps(await self._answer(request)) + b"\n")
            async with asyncio.timeout(_PEER_SECONDS):
                await writer.drain()
        except (orjson.JSONDecodeError, OSError, ValueError):
            pass  # the peer closed the connection, or it is not an operator
        finally:
            writer.close()

    async def _be_watched(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Write a line at each change of the state, for as long as the peer is there."""
        if len(self._watchers) >= _MOST_WATCHERS:
            return
        self._watchers.add(writer)
        try:
            writer.write(b"\n")
            await reader.read()
        finally:
            self._watchers.discard(writer)

    async def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        match request:
            case {"do": "status"}:
                await self._settled.wait()
                return self._state
            case {"do": "same", "digest": str(digest)}:
                await self._settled.wait()
                return {**self._state, "same": hmac.compare_digest(digest, self.specification.digest)}
            case {"do": "usage"}:
                now = measure(self._outer) if self._outer is not None else None
                return {"now": now, "samples": list(self._samples)}
            case {"do": "signal", "number": int(number)}:
                return {"sent": self._signal(number)}
            case {"do": "lift limit"}:
                self._say(maxRestarts=None)
                return self._state
            case {"do": "restart", "restarts": int(number), "reason": str(reason)}:
                return {"restarting": self._restart(number, reason)}
            case {"do": "stop"}:
                self._end()
                await self._over.wait()
                return self._state
        return {"error": "unknown request"}

    def _end(self) -> None:
        self._stop.set()
        self._cancel.set()

    def _restart(self, number: int, reason: str) -> bool:
        """End run `number`, which is followed by another one where the policy says so; False where it is over."""
        if self._outer is None or self._state["restarts"] != number:
            return False
        self._restart_reason = self._redactor.redact(reason)
        self._cancel.set()
        return True

    def _signal(self, number: int) -> bool:
        handle = self._main.open() if self._main else None
        if handle is None:
            return False
        with handle, contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle.descriptor, number)
            return True
        return False

    def _say(self, **news: Any) -> None:
        self._state = {key: value for key, value in {**self._state, **news}.items() if value is not None}
        # The folder is gone or the disk is full; clients of the socket still get the state.
        with contextlib.suppress(OSError):
            write_state(self.folder, self._state)
        for each in self._watchers:
            if each.transport.get_write_buffer_size() == 0:  # a client that does not read has unread news already
                each.write(b"\n")


_SHOWN = {ExitReason.COMPLETED: "Exited", ExitReason.EXIT_CODE: "Exited", ExitReason.SIGNALED: "Signaled"}
"""Words of `lastExit` that differ from those of an attempt."""


def _shown(outcome: Outcome, redactor: Redactor) -> dict[str, Any]:
    reason = ExitReason(outcome.reason)
    exited = f"exit code {outcome.exit_code}" if outcome.exit_code else ""
    return {
        "reason": _SHOWN.get(reason, str(reason)),
        "exitCode": outcome.exit_code,
        "message": exited if _SHOWN.get(reason) == "Exited" else redactor.redact(outcome.message),
        "finishedAt": outcome.finished_at.isoformat(),
        "layers": [str(layer) for layer in outcome.layers],
        **({"network": _network(outcome.network, redactor)} if outcome.network else {}),
    }


def _network(use: NetworkUse, redactor: Redactor) -> dict[str, Any]:
    """The traffic through the proxy. A program may have put a secret into a host's name."""
    told: dict[str, Any] = redactor.scrub(asdict(use))
    destinations = [{_camel(name): value for name, value in one.items()} for one in told.pop("destinations")]
    return {**{_camel(name): value for name, value in told.items()}, "destinations": destinations}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def run() -> None:
    """Read the specification from stdin, pickled by the operator that started us, and supervise."""
    specification = pickle.load(sys.stdin.buffer)  # noqa: S301  # a pipe from our own parent
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    threads.run(_run(specification, Path.cwd()))


async def _run(specification: Specification, folder: Path) -> None:
    await Supervisor(specification, folder).run()
