"""Containers that `run` makes: left to themselves once they are started, or waited for until they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

import docker

from remit.api.operations import ContainerOperation
from remit.backends.base import AttemptRequest, Command, Handle, OutputSink
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.docker import labels
from remit.backends.docker.container import ENGINE_ENDS, Container, Ended, time_had
from remit.backends.docker.engine import Engine, create
from remit.backends.docker.outcomes import outcome_of
from remit.backends.failure import OperationFailed
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import OutcomeUnknown
from remit.operations.base import OperationRequest
from remit.operations.container.creating import (
    REMOVED,
    STARTED_BY,
    container_name,
    creation,
    environment,
    image_of,
)
from remit.operations.container.telling import line
from remit.sandbox import Confinement, boot_id
from remit.sandbox import Limits as SandboxLimits
from remit.sandbox.fencing import now as boot_time

_UNANSWERED: Final = frozenset({"EngineTimeout", "EngineUnavailable"})
"""Reasons after which nobody knows what the engine did."""
_RETRY_SECONDS = 1.0
_NOTHING_ENFORCED: Final = ConfinementStatus((), (), {})
"""What it is confined by is what its options leave, and no layer of a sandbox's."""
Answer = TypeVar("Answer")


async def once(
    engine: Engine, request: OperationRequest, in_doubt: str, ask: Callable[[docker.APIClient], Answer]
) -> Answer:
    """Ask the engine for what a retry would do a second time."""
    request.effect.begin(in_doubt)
    try:
        return await engine.call(ask)
    except OperationFailed as error:
        if error.reason not in _UNANSWERED:
            request.effect.settle()
        raise


class Runs:
    """Containers that `run` makes on `engine`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self, request: OperationRequest, container: ContainerOperation, output: OutputSink) -> str:
        """Start one that goes on by itself. One that an earlier attempt of the task made is started again."""
        name, image = container_name(request, container), image_of(container)
        config = creation(request, container, environment(container, request))
        try:
            try:
                id_ = await self._engine.call(lambda client: create(client, name, config))
            except OperationFailed as error:
                id_ = await self._made_before(request, name, image, error)
            await once(self._engine, request, _may_run(name), lambda client: client.start(id_))
        except OperationFailed as error:
            raise await self._undone(request, name, error) from None
        except BaseException:
            await self._undo(request, name)
            raise
        output.write("stdout", line({"id": id_, "name": name, "image": image}))
        return f"started container {name} of {image}"

    async def run(
        self, request: OperationRequest, output: OutputSink, cancel: asyncio.Event, on_started: Callable[[Handle], None]
    ) -> Outcome:
        """Run one to its end. See `AdoptingExecutor.run`."""
        container, clock = _subject(request), asyncio.get_running_loop().time
        name, overdue = container_name(request, container), clock() + request.timeout_seconds
        id_ = await self._create(request, container, name)
        started = False
        try:
            if cancel.is_set() or clock() >= overdue:
                await self._remove(id_)
                return _not_started(request, name, cancelled=cancel.is_set())
            on_started(_handle(id_, boot_time()))
            async with self._engine.opened(lambda client: client.attach(id_, stream=True, demux=True)) as said:
                await once(self._engine, request, _may_run(name), lambda client: client.start(id_))
                started, carried = True, Container(self._engine, id_, output)
                ended = await carried.until_over(said, cancel, max(0.0, overdue - clock()), _grace(request))
        except asyncio.CancelledError:
            if not started:
                await self._remove(id_)
            raise
        except OutcomeUnknown:
            raise
        except BaseException:
            await self._remove(id_)  # the engine may have carried out a request that it did not answer
            raise
        return await self._concluded(request, name, carried, ended)

    async def adopt(
        self,
        request: OperationRequest,
        output: OutputSink,
        cancel: asyncio.Event,
        on_found: Callable[[Handle], None],
        recorded: Handle | None = None,
    ) -> Outcome | None:
        """Take one up that an earlier operator started. See `AdoptingExecutor.adopt`."""
        name = container_name(request, _subject(request))
        found = await self._engine.patiently(lambda client: client.inspect_container(name))
        if found is None or _labels(found).get(STARTED_BY) != request.id:
            return None
        if found["State"]["Status"] == "created":  # the container never ran
            await self._remove(found["Id"])
            return None
        request.effect.begin(_may_run(name))
        about = await self._engine.patiently(lambda client: client.info()) or {}
        now = boot_time()
        had = time_had(recorded, boot_id(), now, found["State"]["StartedAt"], about.get("SystemTime", ""))
        on_found(_handle(found["Id"], now - had))
        carried = Container(self._engine, found["Id"], output)
        ended = await carried.until_over(None, cancel, max(0.0, request.timeout_seconds - had), _grace(request))
        return await self._concluded(request, name, carried, ended)

    async def recover(self, id_: str) -> bool:
        """See `AdoptingExecutor.recover`. One that is not to be removed stays, and does not run."""
        try:
            found = await self._engine.call(lambda client: client.inspect_container(id_))
            if REMOVED in _labels(found):
                await self._engine.call(lambda client: client.remove_container(id_, v=True, force=True))
            elif found["State"]["Running"]:
                await self._engine.call(lambda client: client.kill(id_, signal="SIGKILL"))
        except OperationFailed as error:
            if error.retryable:
                raise
            return False  # the container is gone or is ending now
        return bool(found["State"]["Running"])

    async def _create(self, request: OperationRequest, container: ContainerOperation, name: str) -> str:
        """A container that never ran; one that an earlier attempt of the task left gives way to it. Gives its id."""
        image, config = image_of(container), creation(request, container, environment(container, request))
        try:
            try:
                return await self._engine.call(lambda client: create(client, name, config))
            except OperationFailed as error:
                await self._remove(await self._made_before(request, name, image, error))
            return await self._engine.call(lambda client: create(client, name, config))
        except OperationFailed as error:
            raise await self._undone(request, name, error) from None
        except BaseException:
            await self._undo(request, name)
            raise

    async def _concluded(self, request: OperationRequest, name: str, carried: Container, ended: Ended) -> Outcome:
        """How it ended, once it is removed where that is asked for."""
        state = ended.state
        if not ended.stopped and state.exit_code in ENGINE_ENDS:
            state = await carried.settled(state)
        outcome = outcome_of(carried, _request(request), state, ended.stopped, _NOTHING_ENFORCED)
        if outcome.reason == ExitReason.COMPLETED:
            request.effect.begin(f"container {name} ran to its end")
        else:
            request.effect.settle()
        message = outcome.message
        if outcome.reason != ExitReason.CANCELLED:
            message = f"container {name} {message}"
        if _subject(request).remove:
            try:
                await self._remove(carried.id)
            except OperationFailed as error:
                message = f"{message}; it could not be removed: {error}"
        return replace(outcome, message=message)

    async def _made_before(self, request: OperationRequest, name: str, image: str, error: OperationFailed) -> str:
        """The container of an earlier attempt of the same task, which keeps one of that name from being made."""
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
        if _labels(found).get(labels.UID) != request.id.rpartition("-")[0]:
            message = f"there is a container {name} already; remove it, or choose another spec.container.name"
            raise OperationFailed("AlreadyExists", message, retryable=False)
        return str(found["Id"])

    async def _undone(self, request: OperationRequest, name: str, error: OperationFailed) -> OperationFailed:
        """The error of a container that was removed for it, or may be there all the same."""
        if await self._undo(request, name) or error.reason != "EngineTimeout":
            return error
        message = f"{error}; container {name} may be there all the same: look, or try again"
        return OperationFailed(error.reason, message, retryable=error.retryable, category=error.category)

    async def _undo(self, request: OperationRequest, name: str) -> bool:
        """Remove what this very attempt made. False: the engine did not say that it is gone."""
        try:
            found = await self._engine.call(lambda client: client.inspect_container(name))
            if _labels(found).get(STARTED_BY) == request.id:
                await self._engine.call(lambda client: client.remove_container(found["Id"], v=True, force=True))
        except OperationFailed as error:
            return not error.retryable
        return True

    async def _remove(self, id_: str) -> None:
        """Returns when it is gone for sure, however long the engine is away."""
        while True:
            try:
                await self._engine.patiently(lambda client: client.remove_container(id_, v=True, force=True))
            except OperationFailed as error:
                if error.reason != "Conflict":
                    raise
                await asyncio.sleep(_RETRY_SECONDS)  # another client is removing the container
                continue
            return


def _subject(request: OperationRequest) -> ContainerOperation:
    container = request.subject
    assert isinstance(container, ContainerOperation)  # noqa: S101  # by its operation
    return container


def _request(request: OperationRequest) -> AttemptRequest:
    """The request of a backend with what is needed to tell how the container ended."""
    limits = request.limits
    held = SandboxLimits(
        memory_bytes=limits.memory, pids=limits.pids, open_files=limits.open_files, file_bytes=limits.file_size
    )
    command = Command(argv=(), executable="")
    return AttemptRequest(request.id, command, Confinement(limits=held), request.timeout_seconds)


def _not_started(request: OperationRequest, name: str, *, cancelled: bool) -> Outcome:
    before = f"before container {name} was started"
    if cancelled:
        return Outcome(ExitReason.CANCELLED, f"cancelled {before}")
    return Outcome(ExitReason.TIMED_OUT, f"timed out after {request.timeout_seconds:g} s, {before}")


def _grace(request: OperationRequest) -> float:
    return float(request.limits.termination_grace_period_seconds or 0)


def _handle(id_: str, begun: float) -> Handle:
    """The handle of a container whose time began at `begun`, by CLOCK_BOOTTIME."""
    return Handle(pid=0, start_time=0, boot_id=boot_id(), container=id_, operation="container", begun=begun)


def _labels(found: Mapping[str, Any]) -> Mapping[str, str]:
    return found["Config"].get("Labels") or {}


def _may_run(name: str) -> str:
    return f"container {name} may have been started"
