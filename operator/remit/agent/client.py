"""`RemitClient`: tasks and releases for a coordinator program, on any API server that has Remit's kinds."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from remit.agent.logs import LogChunk, TaskLogs, Wanted, process_logs
from remit.agent.pool import TaskPool
from remit.api.controllerref import is_controlled_by
from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask, ExecutionTaskSpec
from remit.api.executiontaskstatus import OutputStatus, Stream
from remit.api.manifest import DeploymentManifest, TaskManifest, deployment_object, task_object
from remit.api.phases import DeploymentPhase
from remit.errors import ApiError, DeploymentError, InvalidInput, WaitTimeout
from remit.execution.output import STREAMS
from remit.execution.schedule import PARENT_LABEL
from remit.kube.access import Access, fallback_kubeconfig
from remit.kube.client import DEPLOYMENTS, TASKS, Kube, Object
from remit.kube.informer import Informer
from remit.kube.kubeconfig import state_dir_of
from remit.operations.process.record import INSTANCES, PROCESSES, process_folders
from remit.release.asking import ask
from remit.release.conclusion import failure, over
from remit.userpaths import default_state_dir

T = TypeVar("T")
_NOT_FOUND, _CONFLICT, _TOO_MANY = 404, 409, 429
_PROCESS: Final = "process"
_DEPLOY: Final = "deploy"
_NAME: Final = r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?"
_LONGEST_PAUSE = 5.0
_LOOK_SECONDS = 0.5
_CHANGEABLE = frozenset({"cancel", "ttl_seconds_after_finished"})
"""What of a spec may differ from what was submitted, and it is the same task still."""


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A change of a task: `type` as Kubernetes' watches say it, `task` in its newest state."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    task: ExecutionTask


class RemitClient:
    """A program's hand on an API server. Use it as an async context manager, in one event loop.

        async with RemitClient() as client:
            task = await client.submit({"metadata": {"name": "build-42"}, "spec": {"command": {"line": "make"}}})
            task = await client.wait(task, timeout=600)
            print(task.status.phase, task.status.exit_code)

    The server is given by `access`, or by a kubeconfig; without either it is found as kubectl finds it, then as
    `remit up` left it, or by the service account of the pod. `namespace` is the one that is meant where none is
    named; `name` says in the audit trail who asked. A server that does not answer is asked again for `patience`
    seconds: every method may be repeated without harm. `state_dir` is the operator's, where that is on this
    machine. One watch of a namespace serves all who wait for its tasks.

    All methods raise `ApiError` when the server refuses, with its `status` and `reason`. A task is meant by its name,
    or by the `ExecutionTask` that another method gave: then another one of the same name is not taken for it.
    """

    def __init__(
        self,
        access: Access | None = None,
        *,
        kubeconfig: Path | str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        name: str = "remit-client",
        patience: float = 60,
        state_dir: Path | str | None = None,
    ) -> None:
        self._access = access
        self._kubeconfig = Path(kubeconfig) if kubeconfig is not None else None
        self._context, self._namespace = context, namespace
        self._name, self._patience = name, patience
        self._state_dir = Path(state_dir) if state_dir is not None else None
        self._state_dirs: list[Path] = []
        self._open: Kube | None = None
        self._informers: dict[str, Informer] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        kubeconfig = self._kubeconfig or fallback_kubeconfig()
        access = self._access or await Access.load(kubeconfig, self._context)
        told = None if self._access else await asyncio.to_thread(state_dir_of, kubeconfig, self._context)
        known = [self._state_dir] if self._state_dir else [told, default_state_dir()]
        self._state_dirs = [path for path in known if path is not None]
        self._namespace = self._namespace or access.namespace
        self._open = await self._stack.enter_async_context(Kube(access))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = None
        self._informers.clear()
        await self._stack.aclose()

    async def submit(self, task: TaskManifest, *, namespace: str | None = None) -> ExecutionTask:
        """Create a task: a model, a dict, YAML text, or the `Path` of a file.

        A name makes it happen once: where a task of that name and spec is there already, that is the task, however
        far it is. So a program that was killed may submit its plan again. Without a name it gets a new one, from
        `generateName` where that is set, and like every task with a generated name it is deleted some time after its
        end (`status.expiration_time`; seven days unless the operator's `--finished-task-ttl` says otherwise).

        Raises:
            InvalidInput: it is no ExecutionTask; the field is named.
            ApiError: also, with status 409, when another task has that name.
        """
        obj = task_object(task)
        metadata = dict(obj["metadata"])
        place = namespace or metadata.get("namespace") or self.namespace
        prefix = metadata.pop("generateName", None) or "task-"
        if not metadata.get("name"):
            # The client chooses the name, not the server, so that a request whose answer was lost can be repeated
            # safely.
            metadata |= {"name": f"{prefix}{secrets.token_hex(5)}", "generateName": prefix}
        obj["metadata"] = {**metadata, "namespace": place}
        wanted = ExecutionTask.parse(obj)

        async def create() -> ExecutionTask:
            try:
                return ExecutionTask.parse(await self._kube.create(TASKS, place, obj, manager=self._name))
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
            found = ExecutionTask.parse(await self._kube.get(TASKS, place, wanted.metadata.name))
            return _same(found, wanted)

        return await self._patiently(create)

    async def get(self, task: str | ExecutionTask, *, namespace: str | None = None) -> ExecutionTask:
        """Its state now."""
        place, name = self._key(task, namespace)
        found = ExecutionTask.parse(await self._patiently(lambda: self._kube.get(TASKS, place, name)))
        return _expected(task, found)

    async def list(
        self, *, labels: Mapping[str, str] | None = None, namespace: str | None = None
    ) -> list[ExecutionTask]:
        """The tasks of a namespace, or those of them that have all these labels."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        place = namespace or self.namespace
        found = await self._patiently(lambda: self._kube.list(TASKS, place, label_selector=selector))
        return [ExecutionTask.parse(obj) for obj in found]

    async def wait(
        self,
        task: str | ExecutionTask,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (an error of its own says what becomes of the task)
        namespace: str | None = None,
    ) -> ExecutionTask:
        """Wait until the task is finished, whatever its end: look at `task.status.phase`. A schedule ends when it is
        cancelled.

        `timeout` is in seconds from this call, and counts all that the task does meanwhile: that it waits for its turn
        or a Secret, every attempt, and the pauses between them. It bounds the caller alone. What bounds the task is in
        its spec: `timeoutSeconds` each attempt, from its start, and `deadlineSeconds` all of it, from its creation.

        Raises:
            WaitTimeout: it has not finished within `timeout` seconds; it goes on. The message says where it stands.
            ApiError: also, with status 404, when it is not there or was deleted.
        """
        if isinstance(task, ExecutionTask) and _over(task):
            return task
        last: ExecutionTask | None = None
        try:
            async with asyncio.timeout(timeout), contextlib.aclosing(self.watch(task, namespace=namespace)) as changes:
                async for change in changes:
                    last = change.task
                    if change.type == "DELETED":
                        raise _gone(last)
                    if _over(last):
                        return last
        except TimeoutError:
            place, name = self._key(task, namespace)
            message = f"task {place}/{name} has not finished within {timeout:g} s; it goes on: wait again, or cancel it"
            raise WaitTimeout(f"{message}; {_standing(last)}") from None
        raise AssertionError("a watch of one task ends with its end")

    def pool(self, limit: int) -> TaskPool:
        """Runs many tasks, at most `limit` at once: see `TaskPool`. Raises `InvalidInput`."""
        return TaskPool(self, limit)

    async def watch(
        self, task: str | ExecutionTask | None = None, *, namespace: str | None = None
    ) -> AsyncGenerator[TaskChange, None]:
        """Yield the changes of a task until it is finished or gone, or those of all tasks in a namespace, without end.

        What is there comes first, as ADDED. A reader that is slow, or was cut off, gets the newest state, not each one.
        """
        place, name = self._key(task, namespace) if task is not None else (namespace or self.namespace, None)
        informer = await self._informer(place)
        with informer.subscribe(name) as news:
            while True:
                change = await news.next()
                if change is None:
                    if task is not None:
                        # Raises if the task is gone; otherwise the watch will deliver it.
                        await self.get(task, namespace=place)
                    continue
                found = ExecutionTask.parse(change.object)
                if isinstance(task, ExecutionTask) and not _is(task, found):
                    if change.type != "DELETED":
                        raise _gone(task)
                    continue
                yield TaskChange(change.type, found)
                if task is not None and (change.type == "DELETED" or _over(found)):
                    return

    async def cancel(self, task: str | ExecutionTask, *, namespace: str | None = None) -> ExecutionTask:
        """Ask for its end; `wait` tells when nothing of it is alive. One that is finished stays as it is."""
        found = await self.get(task, namespace=namespace)
        if _over(found):
            return found
        metadata = found.metadata
        body: Object = {"metadata": {"uid": metadata.uid}, "spec": {"cancel": True}}
        changed = await self._patiently(lambda: self._kube.patch(TASKS, metadata.namespace, metadata.name, body))
        return ExecutionTask.parse(changed)

    async def delete(self, task: str | ExecutionTask, *, namespace: str | None = None) -> bool:
        """Delete it with its output; what of it runs is ended. False when it was not there."""
        place, name = self._key(task, namespace)
        uid = task.metadata.uid if isinstance(task, ExecutionTask) else None
        try:
            await self._patiently(lambda: self._kube.delete(TASKS, place, name, uid=uid or None))
        except ApiError as error:
            if error.status != _NOT_FOUND and not (uid and error.status == _CONFLICT):
                raise
            return False
        return True

    async def output(self, task: str | ExecutionTask, *, namespace: str | None = None) -> OutputStatus:
        """The ends of what its last attempt wrote; empty until one has ended."""
        found = await self.get(task, namespace=namespace)
        return found.status.output or OutputStatus()

    async def logs(
        self,
        task: str | ExecutionTask,
        *,
        follow: bool = False,
        attempt: int | None = None,
        streams: Sequence[Stream] = STREAMS,
        tail: int | None = None,
        since: datetime.datetime | None = None,
        lines: bool = False,
        previous: bool = False,
        namespace: str | None = None,
    ) -> AsyncGenerator[LogChunk, None]:
        """Yield the kept output of a task, piece by piece, each at most 64 KiB of one stream.

            async for chunk in client.logs("build-42", follow=True):
                print(chunk.stream, chunk.text, end="")

        It is of the latest attempt, or of the one that `attempt` says. With `follow` it begins there, and goes on with
        every later one until the task is finished. Nothing is held for a reader that is slow: where more is written
        than is kept, a chunk has a `gap` before it. Secrets are redacted, but not in a task with `spec.output.raw`.

        `task` may also be `schedule/NAME`, whose newest run is meant, `process/NAME`, a supervised process, or
        `deploy/NAME` and `deploy/NAME/blue-0`, the instances of a release to processes and one of them. Of these two it
        is the run since the last restart, or with `previous` the one before.

        With `lines` each chunk is a line, with its `time`. So it is with `tail`, the number of lines of each stream to
        begin with, and with `since`, a moment with a time zone.

        Output is on the operator's host. There it is found by `state_dir`, by the kubeconfig, or where operators keep
        it by default; elsewhere there is `output`, which has its end.

        Raises:
            RemitError: it is not on this machine.
            InvalidInput: there is no such attempt, process, instance or run, or the task is a schedule, whose runs are
                tasks of their own.
            ApiError: also, with status 404, when the task is not there or was deleted.
        """
        wanted = Wanted(streams, tail, since, lines)
        kind, slash, name = task.partition("/") if isinstance(task, str) else ("", "", "")
        if slash and kind in {_PROCESS, _DEPLOY}:
            folders = self._process_folders(kind, name, namespace or self.namespace)
            chunks = process_logs(folders, wanted, "previous" if previous else "current", follow=follow)
        else:
            found = await self._logging(kind, name if slash else task, namespace)
            reading = TaskLogs(self._state_dirs, wanted)
            chunks = reading.follow(self._states(found), attempt) if follow else reading.once(found, attempt)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def _logging(self, kind: str, task: str | ExecutionTask, namespace: str | None) -> ExecutionTask:
        """The task whose output is meant. Raises `InvalidInput`."""
        if kind not in {"", "task", "schedule"} and isinstance(task, str) and kind != task:
            raise InvalidInput(f"{kind}/ has no logs; use task/, schedule/, process/ or deploy/", field="task")
        found = await self.get(task, namespace=namespace)
        if found.spec.schedule is None:
            return found
        if kind != "schedule":
            message = f"task {found.key} is a schedule; name one of its runs, or schedule/{found.metadata.name}"
            raise InvalidInput(message, field="task")
        place, name = found.metadata.namespace, found.metadata.name
        parent = await self._patiently(lambda: self._kube.get(TASKS, place, name))
        runs = await self._patiently(lambda: self._kube.list(TASKS, place, label_selector=f"{PARENT_LABEL}={name}"))
        own = [run for run in runs if is_controlled_by(run, parent)]
        if not own:
            raise InvalidInput(f"schedule {found.key} has no runs yet", field="task")
        newest = max(own, key=lambda run: (run["metadata"]["creationTimestamp"], run["metadata"]["name"]))
        return ExecutionTask.parse(newest)

    def _process_folders(self, kind: str, name: str, namespace: str) -> dict[str, Path]:
        """The folders by the source of their output. Raises `InvalidInput`."""
        owner, _, instance = name.partition("/") if kind == _DEPLOY else (name, "", "")
        if not all(re.fullmatch(_NAME, word) for word in filter(None, (owner, instance))):
            raise InvalidInput(f"{name!r} is not a name", field="task")
        if kind == _PROCESS:
            found = process_folders(self._state_dirs, PROCESSES, namespace)
            chosen = {f"{_PROCESS}/{name}": found[name]} if name in found else {}
        else:
            found = process_folders(self._state_dirs, INSTANCES, f"{namespace}/{owner}")
            wanted = {each: folder for each, folder in found.items() if instance in {"", each}}
            chosen = {f"{_DEPLOY}/{owner}/{each}": folder for each, folder in wanted.items()}
        if not chosen:
            there = ", ".join(found) or "none"
            message = f"{kind}/{name} of namespace {namespace} is not on this machine; there are: {there}"
            raise InvalidInput(f"{message}; name the operator's folder with state_dir", field="task")
        return chosen

    async def _states(self, task: ExecutionTask) -> AsyncGenerator[ExecutionTask, None]:
        """Yield each state of the task until it is finished. Raises `ApiError` when it is gone."""
        async with contextlib.aclosing(self.watch(task)) as changes:
            async for change in changes:
                if change.type == "DELETED":
                    raise _gone(change.task)
                yield change.task

    async def deploy(
        self,
        deployment: DeploymentManifest,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (an error of its own says what becomes of the release)
        namespace: str | None = None,
    ) -> Deployment:
        """Apply a Deployment, and come back when what it declares is live. It may be repeated: that changes nothing.

        Raises:
            DeploymentError: it did not come to that; what is live, its status says. Reasons besides those of releases:
                `Superseded`, another spec took its place, and `Pinned`, a rollback holds it where it is.
            WaitTimeout: it has not come to its end within `timeout` seconds of the apply; it goes on.
            InvalidInput: it is no Deployment; the field is named.
            ApiError: also, with status 409, when somebody else owns a field of it.
        """
        obj = deployment_object(deployment)
        place = namespace or obj["metadata"].get("namespace") or self.namespace
        name = obj["metadata"]["name"]
        obj["metadata"] = {**obj["metadata"], "namespace": place}
        applied = Deployment.parse(
            await self._patiently(lambda: self._kube.apply(DEPLOYMENTS, place, name, obj, manager=self._name))
        )
        return await self._released(applied, timeout)

    async def rollback(
        self,
        deployment: str | Deployment,
        *,
        revision: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        namespace: str | None = None,
    ) -> Deployment:
        """Return to `revision`, or to the last good one before what is live, and come back when that is live.

        It is pinned there until the spec changes; the spec itself is not edited. `timeout` counts from when an operator
        has taken the request, for which `patience` is the bound. Raises as `deploy` does, and
        `DeploymentError` with the reason `RequestRefused` where there is nothing to return to.
        """
        place, name = self._key(deployment, namespace)

        async def look() -> Deployment:
            return await self.deployment(name, namespace=place)

        before = await look()
        terms = {} if revision is None else {"revision": revision}
        answer = await ask(self._kube, before, {"rollback": terms}, look, self._patience)
        if not answer.accepted:
            raise DeploymentError(f"deployment {place}/{name}: {answer.message}", reason="RequestRefused")
        return await self._released(before, timeout, pinned=True)

    async def deployment(self, name: str, *, namespace: str | None = None) -> Deployment:
        """Its state now."""
        place = namespace or self.namespace
        return Deployment.parse(await self._patiently(lambda: self._kube.get(DEPLOYMENTS, place, name)))

    async def _released(self, wanted: Deployment, limit: float | None, *, pinned: bool = False) -> Deployment:
        """Wait until the release of this spec is over."""
        name, place = wanted.metadata.name, wanted.metadata.namespace
        try:
            async with asyncio.timeout(limit):
                while True:
                    found = await self.deployment(name, namespace=place)
                    if found.metadata.generation != wanted.metadata.generation:
                        message = f"deployment {found.key}: another spec took its place"
                        raise DeploymentError(message, reason="Superseded")
                    if over(found):
                        break
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise WaitTimeout(
                f"deployment {place}/{name} has not come to its end within {limit:g} s; it goes on"
            ) from None
        if (why := failure(found)) is not None:
            raise why
        if found.status.phase is DeploymentPhase.PINNED and not pinned:
            message = (
                f"deployment {found.key}: a rollback holds it at revision {found.status.pinned_revision};"
                " change the spec, or ask for a retry"
            )
            raise DeploymentError(message, reason="Pinned")
        return found

    @property
    def namespace(self) -> str:
        """The one that is meant where none is named."""
        if self._namespace is None:
            raise RuntimeError("use RemitClient as an async context manager")
        return self._namespace

    @property
    def _kube(self) -> Kube:
        if self._open is None:
            raise RuntimeError("use RemitClient as an async context manager")
        return self._open

    def _key(self, task: str | ExecutionTask | Deployment, namespace: str | None) -> tuple[str, str]:
        if isinstance(task, ExecutionTask | Deployment):
            return task.metadata.namespace, task.metadata.name
        if not task:
            raise InvalidInput("is empty; name one", field="name")
        return namespace or self.namespace, task

    async def _informer(self, namespace: str) -> Informer:
        informer = self._informers.get(namespace)
        if informer is None or informer.failed:
            informer = Informer(self._kube, TASKS, namespace, patience=self._patience)
            self._informers[namespace] = informer
            await self._stack.enter_async_context(informer)
        return informer

    async def _patiently(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask again while the server does not answer."""
        clock = asyncio.get_running_loop().time
        until, pause = clock() + self._patience, 0.1
        while True:
            try:
                return await request()
            except ApiError as error:
                away = error.status == _TOO_MANY or error.status >= 500
                if not away or clock() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _over(task: ExecutionTask) -> bool:
    return task.status.phase is not None and task.status.phase.final


def _standing(task: ExecutionTask | None) -> str:
    """Describe how far a task is that has not finished."""
    if task is None:
        return "the API server has not told where it stands"
    if task.status.observed_generation < 0:
        return "it is Pending, and no operator has said why yet"
    return f"it is {task.status.phase}" + (f": {task.status.message}" if task.status.message else "")


def _is(task: ExecutionTask, found: ExecutionTask) -> bool:
    """Whether they are one task. A model that never was on a server is any of its name."""
    return task.metadata.uid in {"", found.metadata.uid}


def _expected(task: str | ExecutionTask, found: ExecutionTask) -> ExecutionTask:
    if isinstance(task, ExecutionTask) and not _is(task, found):
        raise _gone(task)
    return found


def _gone(task: ExecutionTask) -> ApiError:
    return ApiError(f"task {task.key} was deleted", status=_NOT_FOUND, reason="NotFound")


def _same(found: ExecutionTask, wanted: ExecutionTask) -> ExecutionTask:
    """`found`, if it is what was wanted. Raises `ApiError`."""
    if found.metadata.deletion_timestamp is not None:
        why = f"task {found.key} is being deleted; submit it again when it is gone"
        raise ApiError(why, status=_CONFLICT, reason="Conflict")
    fields = [name for name in ExecutionTaskSpec.model_fields if name not in _CHANGEABLE]
    other = [name for name in fields if getattr(found.spec, name) != getattr(wanted.spec, name)]
    if other:
        aliases = ", ".join(str(ExecutionTaskSpec.model_fields[name].alias) for name in other)
        why = f"task {found.key} is there already, with another {aliases}; take another name, or delete it first"
        raise ApiError(why, status=_CONFLICT, reason="AlreadyExists")
    return found
