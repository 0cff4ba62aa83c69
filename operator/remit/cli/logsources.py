"""The sources of `remit logs`: tasks, supervised processes and the instances of releases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from remit.agent.podlogs import identity_of, pods_of_release
from remit.api.executiontask import ExecutionTask
from remit.api.slots import Slot
from remit.backends.docker.labels import DEPLOYMENT_UID
from remit.cli import podlogs
from remit.cli.follow import POLL_SECONDS, Follower, Selection, Shown, chosen_attempt, show_once
from remit.cli.observe import observing
from remit.cli.tasks import newest_run, runs_of
from remit.cli.terminal import Labelled, LogWriter, note
from remit.describe.connection import Connection
from remit.errors import RemitError
from remit.kube.client import DEPLOYMENTS, TASKS, Object
from remit.operations.process.logs import NoPreviousRun, RotatingReader, Run
from remit.operations.process.record import INSTANCES, PROCESSES, process_folders, supervisor_lives

Target = Literal["task", "schedule", "process", "deploy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    selector: str = ""
    follow: bool = False
    all_runs: bool = False
    prefix: bool = False
    attempt: int | None = None
    side: Slot | None = None
    instance: str | None = None
    previous: bool = False
    most_followed: int = 5
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True, slots=True)
class LogRequest(_Options):
    """The request for logs. With a `selector` there is no name."""

    kind: Target
    name: str


class Source(Protocol):
    """One thing that writes. `label` is `TYPE/NAME`."""

    @property
    def label(self) -> str: ...

    async def show(self, screen: LogWriter, selection: Selection, follow: bool, tell: Callable[[str], None]) -> None:
        """What is there; with `follow` what comes, until its end. Raises `RemitError`."""


async def show(
    connection: Connection, request: LogRequest, screen: LogWriter, tell: Callable[[str], None] = note
) -> None:
    """`tell` is told what people should know besides. Raises `RemitError` where there is nothing to show, or more than
    may be followed."""
    sources = await _sources(connection, request, tell)
    if request.follow and len(sources) > request.most_followed:
        raise RemitError(
            f"you are attempting to follow {len(sources)} log streams, but maximum allowed concurrency is"
            f" {request.most_followed}, use --max-log-requests to increase the limit"
        )
    if len(sources) == 1 and not request.prefix:
        await sources[0].show(screen, request.selection, request.follow, tell)
        return
    selection = replace(request.selection, by_line=True)

    async def show_one(source: Source) -> None:
        await source.show(Labelled(screen, source.label), selection, request.follow, partial(_tell, tell, source.label))

    if request.follow:
        await _all(show_one(source) for source in sources)
    else:
        for source in sources:
            await show_one(source)


def _tell(tell: Callable[[str], None], label: str, message: str) -> None:
    tell(f"[{label}] {message}")


async def _all(showing: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at once. The first that fails ends the others."""
    tasks = [asyncio.ensure_future(each) for each in showing]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sources(connection: Connection, request: LogRequest, tell: Callable[[str], None]) -> list[Source]:
    match request.kind:
        case "process":
            return [_process(connection, request)]
        case "deploy":
            return await _instances(connection, request)
    if request.selector:
        found = await connection.kube.list(TASKS, connection.namespace, label_selector=request.selector)
        found = [obj for obj in found if "schedule" not in obj["spec"]]
        if not found:
            tell(f"no tasks found in namespace {connection.namespace} with labels {request.selector}")
        return [TaskSource(connection, obj, request.attempt) for obj in sorted(found, key=_age)]
    obj = await connection.find(TASKS, request.name)
    is_schedule = "schedule" in obj["spec"]
    if not is_schedule and (request.kind == "schedule" or request.all_runs):
        raise RemitError(f"task {request.name} has no schedule; 'remit logs {request.name}' shows its output")
    if not is_schedule:
        return [TaskSource(connection, obj, request.attempt)]
    if request.all_runs:
        runs = sorted(await runs_of(connection, obj), key=_age)
        if not runs:
            _tell_no_runs(obj, tell)
        return [TaskSource(connection, run, request.attempt) for run in runs]
    latest = await _newest_run(connection, obj, request.follow, tell)
    return [TaskSource(connection, latest, request.attempt)] if latest else []


def _age(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]


@dataclass(frozen=True, slots=True)
class TaskSource:
    """A task that has no schedule."""

    connection: Connection
    obj: Object
    attempt: int | None

    @property
    def label(self) -> str:
        return f"task/{self.obj['metadata']['name']}"

    async def show(self, screen: LogWriter, selection: Selection, follow: bool, tell: Callable[[str], None]) -> None:
        """See `Source.show`."""
        connection, task = self.connection, ExecutionTask.parse(self.obj)
        attempt = chosen_attempt(task, self.attempt)
        first = attempt.number if attempt is not None else 1
        if attempt is None and not follow:
            tell(f"nothing of task {task.key} has run yet: {task.status.message or 'it was just created'}")
            return
        if attempt is not None and connection.run_directory(*_place(task), attempt.id) is None:
            if await podlogs.show(connection.kube, task, attempt, screen, selection, follow=follow, tell=tell):
                if not follow or (task.status.phase and task.status.phase.final):
                    return
                first += 1
            attempt = chosen_attempt(task, self.attempt)
        if not follow and attempt is not None:
            show_once(connection, task, attempt, screen, selection, tell)
            return
        async with observing(connection.kube, self.obj) as observed:
            follower = Follower(connection, observed, screen, first, tell, raw_output=True, selection=selection)
            await follower.to_the_end()


def _place(task: ExecutionTask) -> tuple[str, str]:
    return task.metadata.namespace, task.metadata.uid


@dataclass(frozen=True, slots=True)
class ProcessSource:
    """A supervised process, whose folder is on this machine."""

    label: str
    folder: Path
    run: Run

    async def show(self, screen: LogWriter, selection: Selection, follow: bool, tell: Callable[[str], None]) -> None:
        """See `Source.show`. What is followed ends with the supervisor."""
        try:
            readers = {stream: RotatingReader(self.folder, stream, self.run) for stream in screen.streams}
        except NoPreviousRun:
            raise RemitError(f"previous run of {self.label} not found: it was not restarted") from None
        except OSError as error:
            raise RemitError(f"the output of {self.label} cannot be read: {error.strerror}: {self.folder}") from None
        shown = Shown(readers, screen, selection, tell)
        try:
            while follow and self.run != "previous" and supervisor_lives(self.folder):
                shown.advance()
                await asyncio.sleep(POLL_SECONDS)
            shown.advance(at_end=True)
        finally:
            shown.release()


def _process(connection: Connection, request: LogRequest) -> Source:
    found = process_folders(connection.state_dirs, PROCESSES, connection.namespace)
    folder = found.get(request.name)
    if folder is None:
        there = f"; there are: {', '.join(found)}" if found else ""
        raise RemitError(
            f"there is no process {request.name} of namespace {connection.namespace} on this host{there}; its output is"
            " on the operator's host, in the folder that --state-dir names"
        )
    return ProcessSource(f"process/{request.name}", folder, _run(request))


def _run(request: LogRequest) -> Run:
    return "previous" if request.previous else "current"


async def _instances(connection: Connection, request: LogRequest) -> list[Source]:
    obj = await connection.find(DEPLOYMENTS, request.name)
    key = f"{connection.namespace}/{request.name}"
    target = next((kind for kind in ("docker", "kubernetes") if kind in obj["spec"]["target"]), "process")
    if target == "docker":
        raise RemitError(
            f"the instances of deployment {key} are containers, whose output the Docker engine has: docker ps -a"
            f" --filter label={DEPLOYMENT_UID}={obj['metadata']['uid']}, and docker logs with an id from there"
        )
    if target == "kubernetes":
        return await _pods(connection, request, obj)
    found = process_folders(connection.state_dirs, INSTANCES, key)
    if not found:
        raise RemitError(
            f"no instance of deployment {key} is on this host; their output is on the operator's host, in the folder"
            " that --state-dir names"
        )
    wanted = {
        name: folder
        for name, folder in found.items()
        if (request.side is None or name.startswith(f"{request.side}-")) and request.instance in {None, name}
    }
    if not wanted:
        meant = request.instance or f"on side {request.side}"
        raise RemitError(f"deployment {key} has no instance {meant}; there are: {', '.join(found)}")
    return [ProcessSource(f"deploy/{request.name}/{name}", folder, _run(request)) for name, folder in wanted.items()]


async def _pods(connection: Connection, request: LogRequest, obj: Object) -> list[Source]:
    pods = await pods_of_release(connection.kube, obj, request.side)
    wanted = {name: pod for name, pod in pods.items() if request.instance in {None, name}}
    if not wanted:
        meant = request.instance or (f"on side {request.side}" if request.side else "")
        there = ", ".join(pods) or "none"
        place = identity_of(obj).place
        raise RemitError(f"deployment {request.name} has no instance {meant} in {place}; there are: {there}")
    return [
        podlogs.PodSource(f"deploy/{request.name}/{name}", connection.kube, pod, request.previous)
        for name, pod in wanted.items()
    ]


async def _newest_run(
    connection: Connection, schedule: Object, follow: bool, tell: Callable[[str], None]
) -> Object | None:
    """The run that a scheduled task started last. Where there is none, the first one if it is followed, else None."""
    run = await newest_run(connection, schedule)
    if run is None:
        _tell_no_runs(schedule, tell)
        if not follow:
            return None
        async with observing(connection.kube, schedule) as observed:
            await observed.taken_up(tell)
            while (run := await newest_run(connection, schedule)) is None:
                if observed.over:
                    return None
                await observed.changed()
    tell(f"task {connection.namespace}/{run['metadata']['name']}")
    return run


def _tell_no_runs(schedule: Object, tell: Callable[[str], None]) -> None:
    task = ExecutionTask.parse(schedule)
    due = task.status.next_schedule_time
    tell(f"scheduled task {task.key} has no runs; the next is due {f'{due:%FT%TZ}' if due else 'at no known time'}")
