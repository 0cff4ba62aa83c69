"""Performs container operations on the operator's Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from remit.api.operations import ContainerOperation, Subject
from remit.backends.base import Handle, OutputSink
from remit.backends.docker import labels
from remit.backends.docker.engine import Engine
from remit.backends.failure import OperationFailed
from remit.backends.outcome import Outcome
from remit.errors import PolicyDenied
from remit.operations.base import OperationRequest
from remit.operations.container.creating import environment, image_of, invalid
from remit.operations.container.runs import Runs, once
from remit.operations.container.telling import inspected, line, listed, measured, name_of

STOP_SECONDS = 10
"""What a container that is stopped or restarted has after SIGTERM."""
_STREAMS = ("stdout", "stderr")
_NOT_STARTED = frozenset({126, 127})
"""The codes that an engine gives a program that its runtime could not start, which then never was a process."""


class ContainerExecutor:
    """Container operations. `engine` is the executor's to close."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs = Runs(engine)
        self.breaker = engine.breaker
        self._existing: Mapping[str, Callable[[OperationRequest, _ExistingContainer, OutputSink], Awaitable[str]]] = {
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "remove": self._remove,
            "logs": self._logs,
            "exec": self._exec,
            "inspect": self._inspect,
            "stats": self._stats,
        }

    async def execute(self, request: OperationRequest, output: OutputSink) -> str:
        """See `OperationExecutor.execute`."""
        container = request.subject
        assert isinstance(container, ContainerOperation)  # noqa: S101  # by its operation
        match container.action:
            case "run":
                return await self._runs.start(request, container, output)
            case "pull":
                return await self._pull(image_of(container), output)
            case "list":
                return await self._list(request, container, output)
            case action:
                return await self._existing[action](request, await self._find(request, container), output)

    def outlives(self, subject: Subject) -> bool:
        """See `AdoptingExecutor`, as for what follows."""
        return isinstance(subject, ContainerOperation) and subject.wait

    async def run(
        self,
        request: OperationRequest,
        output: OutputSink,
        *,
        cancel: asyncio.Event,
        on_started: Callable[[Handle], None],
    ) -> Outcome:
        return await self._runs.run(request, output, cancel, on_started)

    async def adopt(
        self,
        request: OperationRequest,
        output: OutputSink,
        *,
        cancel: asyncio.Event,
        on_found: Callable[[Handle], None],
        recorded: Handle | None = None,
    ) -> Outcome | None:
        return await self._runs.adopt(request, output, cancel, on_found, recorded)

    async def recover(self, handle: Handle) -> bool:
        return await self._runs.recover(handle.container)

    async def close(self) -> None:
        await self._engine.close()

    async def _find(self, request: OperationRequest, container: ContainerOperation) -> _ExistingContainer:
        """The container that is meant, if the task may touch it. A name may also be the start of an id: what counts
        is what the engine makes of it."""
        name = container.name
        if name is None:
            raise invalid("name the container in spec.container.name")
        found = _ExistingContainer(container, await self._engine.call(lambda client: client.inspect_container(name)))
        if not labels.is_own(found.labels, request.namespace):
            if labels.ATTEMPT in found.labels:
                message = f"container {found.name} is an attempt of task {found.labels.get(labels.TASK)}; cancel that"
                raise PolicyDenied(message)
            decision = request.grant.ask(container.model_copy(update={"name": found.name}), foreign=True)
            if not decision.allowed:
                raise PolicyDenied(decision.message)
        return found

    async def _start(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        in_doubt = f"container {found.name} may have been started"
        await once(self._engine, request, in_doubt, lambda client: client.start(found.id))
        return f"started container {found.name}"

    async def _stop(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        await self._engine.call(lambda client: client.stop(found.id, timeout=STOP_SECONDS))
        return f"stopped container {found.name}"

    async def _restart(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        in_doubt = f"container {found.name} may have been restarted"
        await once(self._engine, request, in_doubt, lambda client: client.restart(found.id, timeout=STOP_SECONDS))
        return f"restarted container {found.name}"

    async def _remove(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        await self._engine.call(lambda client: client.remove_container(found.id, v=True))
        return f"removed container {found.name}"

    async def _logs(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        tail = found.asked.tail_lines or "all"
        for name in _STREAMS:
            said = self._engine.stream(
                lambda client, name=name: client.logs(  # type: ignore[misc]  # mypy cannot infer a default's type
                    found.id, stdout=name == "stdout", stderr=name == "stderr", stream=True, follow=False, tail=tail
                )
            )
            async with contextlib.aclosing(said):
                async for chunk in said:
                    output.write(name, chunk)  # type: ignore[arg-type]
        return f"read the log of container {found.name}"

    async def _exec(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        argv, env = found.asked.argv, environment(found.asked, request)
        if not argv:
            raise invalid("say what to execute in spec.container.argv")
        folder = found.asked.working_dir
        made = await self._engine.call(
            lambda client: client.exec_create(found.id, list(argv), environment=dict(env), workdir=folder)
        )
        request.effect.begin(f"{argv[0]} may still be going on in container {found.name}")
        ended = await self._executed(made["Id"], output)
        code: int | None = ended["ExitCode"]
        if code is None:
            message = "the connection to the Docker engine was lost"
            raise OperationFailed("ConnectionLost", message)
        if code in _NOT_STARTED and not ended.get("Pid"):
            request.effect.settle()
            place, lacking = (
                (f" in spec.container.workingDir {folder}", "the folder or the program") if folder else ("", "it")
            )
            message = (
                f"{argv[0]} was not started{place} of container {found.name}: {lacking} is not there, or not for its"
                " user; standard output has what the engine says"
            )
            raise OperationFailed("StartFailed", message, retryable=False)
        if code:
            request.effect.settle()
            raise OperationFailed("ExitCode", f"{argv[0]} in container {found.name} exited with code {code}")
        request.effect.begin(f"{argv[0]} was executed in container {found.name}")
        return f"executed {argv[0]} in container {found.name}"

    async def _executed(self, id_: str, output: OutputSink) -> dict[str, Any]:
        """Inspect the execution once its output has ended."""
        said = self._engine.stream(lambda client: client.exec_start(id_, stream=True, demux=True))
        async with contextlib.aclosing(said):
            async for pair in said:
                for name, chunk in zip(_STREAMS, pair, strict=True):
                    if chunk:
                        output.write(name, chunk)  # type: ignore[arg-type]
        ended: dict[str, Any] = await self._engine.call(lambda client: client.exec_inspect(id_))
        return ended

    async def _inspect(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        output.write("stdout", line(inspected(found.inspected)))
        return f"inspected container {found.name}"

    async def _stats(self, request: OperationRequest, found: _ExistingContainer, output: OutputSink) -> str:
        stats = await self._engine.call(lambda client: client.stats(found.id, stream=False))
        output.write("stdout", line({"name": found.name, **measured(stats)}))
        return f"measured container {found.name}"

    async def _pull(self, image: str, output: OutputSink) -> str:
        last = await self._engine.pull(image)
        output.write("stdout", line({"image": image, "status": last}))
        return f"pulled {image}"

    async def _list(self, request: OperationRequest, container: ContainerOperation, output: OutputSink) -> str:
        count = 0
        for found in await self._engine.call(lambda client: client.containers(all=True)):
            marks, one = found.get("Labels") or {}, container.model_copy(update={"name": name_of(found)})
            if labels.ATTEMPT in marks:
                continue
            if labels.is_own(marks, request.namespace) or request.grant.ask(one, foreign=True).allowed:
                output.write("stdout", line(listed(found)))
                count += 1
        return f"listed {count} containers"


class _ExistingContainer:
    """A container that is there, and what is asked of it."""

    def __init__(self, asked: ContainerOperation, inspected: dict[str, Any]) -> None:
        self.asked = asked
        self.inspected = inspected
        self.id: str = inspected["Id"]
        self.name = name_of(inspected)
        self.labels: Mapping[str, str] = inspected["Config"].get("Labels") or {}
