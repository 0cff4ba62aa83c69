"""Performs container operations on the operator's Docker engine."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import docker
import orjson

from remit.api.operations import ContainerOperation
from remit.backends import OutputSink
from remit.backends.docker import Engine, create, labels
from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.operations.base import Work
from remit.operations.container.creating import STARTED_BY, container_name, creation
from remit.operations.container.telling import inspected, listed, measured, name_of

STOP_SECONDS = 10
"""What a container that is stopped or restarted has after SIGTERM."""
_STREAMS = ("stdout", "stderr")
_UNANSWERED: Final = frozenset({"EngineTimeout", "EngineUnavailable"})
"""Reasons after which nobody knows what the engine did."""
Answer = TypeVar("Answer")


class ContainerPerformer:
    """Container operations. `engine` is the performer's to close."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.breaker = engine.breaker
        self._existing: Mapping[str, Callable[[Work, _Found, OutputSink], Awaitable[str]]] = {
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "remove": self._remove,
            "logs": self._logs,
            "exec": self._exec,
            "inspect": self._inspect,
            "stats": self._stats,
        }

    async def perform(self, work: Work, output: OutputSink) -> str:
        """See `Performer.perform`."""
        container = work.subject
        assert isinstance(container, ContainerOperation)  # noqa: S101  # by its operation
        match container.action:
            case "run":
                return await self._run(work, container, output)
            case "pull":
                return await self._pull(_image(container), output)
            case "list":
                return await self._list(work, container, output)
            case action:
                return await self._existing[action](work, await self._find(work, container), output)

    async def close(self) -> None:
        await self._engine.close()

    async def _once(self, work: Work, in_doubt: str, ask: Callable[[docker.APIClient], Answer]) -> Answer:
        """Ask the engine for what a retry would do a second time."""
        work.effect.begin(in_doubt)
        try:
            return await self._engine.call(ask)
        except OperationFailed as error:
            if error.reason not in _UNANSWERED:
                work.effect.settle()
            raise

    async def _find(self, work: Work, container: ContainerOperation) -> _Found:
        """The container that is meant, if the task may touch it. A name may also be the start of an id: what counts
        is what the engine makes of it."""
        name = container.name
        if name is None:
            raise _invalid("name the container in spec.container.name")
        found = _Found(container, await self._engine.call(lambda client: client.inspect_container(name)))
        if not labels.is_own(found.labels, work.namespace):
            if labels.ATTEMPT in found.labels:
                message = f"container {found.name} is an attempt of task {found.labels.get(labels.TASK)}; cancel that"
                raise PolicyDenied(message)
            decision = work.grant.ask(container.model_copy(update={"name": found.name}), foreign=True)
            if not decision.allowed:
                raise PolicyDenied(decision.message)
        return found

    async def _run(self, work: Work, container: ContainerOperation, output: OutputSink) -> str:
        name, image = container_name(work, container), _image(container)
        config = creation(work, container, _environment(container, work))
        try:
            try:
                id_ = await self._engine.call(lambda client: create(client, name, config))
            except OperationFailed as error:
                id_ = await self._made_before(work, name, image, error)
            await self._once(work, f"container {name} may have been started", lambda client: client.start(id_))
        except OperationFailed as error:
            if await self._undo(work, name) or error.reason != "EngineTimeout":
                raise
            message = f"{error}; container {name} may be there all the same: look, or try again"
            raise OperationFailed(error.reason, message, retryable=error.retryable, category=error.category) from None
        except BaseException:
            await self._undo(work, name)
            raise
        output.write("stdout", _line({"id": id_, "name": name, "image": image}))
        return f"started container {name} of {image}"

    async def _made_before(self, work: Work, name: str, image: str, error: OperationFailed) -> str:
        """The container of an earlier attempt of the same task, which nobody saw come about."""
        if error.reason == "NotFound":
            message = f"the Docker engine has no image {image}; pull it first, with container.action: pull"
            raise OperationFailed("ImageNotFound", message, retryable=False)
        if error.reason != "Conflict":
            raise error
        try:
            found = await self._engine.call(lambda client: client.inspect_container(name))
        except OperationFailed as unseen:
            if unseen.reason != "NotFound":
                raise
            message = f"container {name} is being made or removed at this moment; it is tried again under spec.retry"
            raise OperationFailed("EngineBusy", message) from None
        if (found["Config"]["Labels"] or {}).get(labels.UID) != work.id.rpartition("-")[0]:
            message = f"there is a container {name} already; remove it, or choose another spec.container.name"
            raise OperationFailed("AlreadyExists", message, retryable=False)
        return str(found["Id"])

    async def _undo(self, work: Work, name: str) -> bool:
        """Remove what this very attempt made. False: the engine did not say that it is gone."""
        try:
            found = await self._engine.call(lambda client: client.inspect_container(name))
            if (found["Config"]["Labels"] or {}).get(STARTED_BY) == work.id:
                await self._engine.call(lambda client: client.remove_container(found["Id"], v=True, force=True))
        except OperationFailed as error:
            return not error.retryable
        return True

    async def _start(self, work: Work, found: _Found, output: OutputSink) -> str:
        in_doubt = f"container {found.name} may have been started"
        await self._once(work, in_doubt, lambda client: client.start(found.id))
        return f"started container {found.name}"

    async def _stop(self, work: Work, found: _Found, output: OutputSink) -> str:
        await self._engine.call(lambda client: client.stop(found.id, timeout=STOP_SECONDS))
        return f"stopped container {found.name}"

    async def _restart(self, work: Work, found: _Found, output: OutputSink) -> str:
        in_doubt = f"container {found.name} may have been restarted"
        await self._once(work, in_doubt, lambda client: client.restart(found.id, timeout=STOP_SECONDS))
        return f"restarted container {found.name}"

    async def _remove(self, work: Work, found: _Found, output: OutputSink) -> str:
        await self._engine.call(lambda client: client.remove_container(found.id, v=True))
        return f"removed container {found.name}"

    async def _logs(self, work: Work, found: _Found, output: OutputSink) -> str:
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

    async def _exec(self, work: Work, found: _Found, output: OutputSink) -> str:
        argv, env = found.asked.argv, _environment(found.asked, work)
        if not argv:
            raise _invalid("say what to execute in spec.container.argv")
        made = await self._engine.call(lambda client: client.exec_create(found.id, list(argv), environment=dict(env)))
        work.effect.begin(f"{argv[0]} may still be going on in container {found.name}")
        code = await self._executed(made["Id"], output)
        if code is None:
            message = "the connection to the Docker engine was lost"
            raise OperationFailed("ConnectionLost", message, category="Infrastructure")
        if code:
            work.effect.settle()
            raise OperationFailed("ExitCode", f"{argv[0]} in container {found.name} exited with code {code}")
        work.effect.begin(f"{argv[0]} was executed in container {found.name}")
        return f"executed {argv[0]} in container {found.name}"

    async def _executed(self, id_: str, output: OutputSink) -> int | None:
        said = self._engine.stream(lambda client: client.exec_start(id_, stream=True, demux=True))
        async with contextlib.aclosing(said):
            async for pair in said:
                for name, chunk in zip(_STREAMS, pair, strict=True):
                    if chunk:
                        output.write(name, chunk)  # type: ignore[arg-type]
        code: int | None = (await self._engine.call(lambda client: client.exec_inspect(id_)))["ExitCode"]
        return code

    async def _inspect(self, work: Work, found: _Found, output: OutputSink) -> str:
        output.write("stdout", _line(inspected(found.inspected)))
        return f"inspected container {found.name}"

    async def _stats(self, work: Work, found: _Found, output: OutputSink) -> str:
        stats = await self._engine.call(lambda client: client.stats(found.id, stream=False))
        output.write("stdout", _line({"name": found.name, **measured(stats)}))
        return f"measured container {found.name}"

    async def _pull(self, image: str, output: OutputSink) -> str:
        last = await self._engine.pull(image)
        output.write("stdout", _line({"image": image, "status": last}))
        return f"pulled {image}"

    async def _list(self, work: Work, container: ContainerOperation, output: OutputSink) -> str:
        count = 0
        for found in await self._engine.call(lambda client: client.containers(all=True)):
            marks, one = found.get("Labels") or {}, container.model_copy(update={"name": name_of(found)})
            if labels.ATTEMPT in marks:
                continue
            if labels.is_own(marks, work.namespace) or work.grant.ask(one, foreign=True).allowed:
                output.write("stdout", _line(listed(found)))
                count += 1
        return f"listed {count} containers"


class _Found:
    """A container that is there, and what is asked of it."""

    def __init__(self, asked: ContainerOperation, inspected: dict[str, Any]) -> None:
        self.asked = asked
        self.inspected = inspected
        self.id: str = inspected["Id"]
        self.name = name_of(inspected)
        self.labels: Mapping[str, str] = inspected["Config"].get("Labels") or {}


def _environment(container: ContainerOperation, work: Work) -> dict[str, str]:
    env: dict[str, str] = {}
    for index, variable in enumerate(container.env):
        if variable.value_from is None:
            env[variable.name] = variable.value or ""
            continue
        start = f"env[{index}].valueFrom."
        found = next((value for path, value in work.values.items() if path.startswith(start)), None)
        if found is not None:  # an optional one may not be there
            try:
                env[variable.name] = found.decode()
            except UnicodeDecodeError:
                raise _invalid(f"the value for env {variable.name} is not text") from None
    return env


def _image(container: ContainerOperation) -> str:
    if container.image is None:
        raise _invalid(f"{container.action} needs spec.container.image")
    return container.image


def _line(told: dict[str, Any]) -> bytes:
    return orjson.dumps(told) + b"\n"


def _invalid(message: str) -> OperationFailed:
    return OperationFailed("Invalid", message, retryable=False, category="Invalid")
