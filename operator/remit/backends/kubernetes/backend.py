"""Run an attempt as a Job in its task's namespace, and find it again after an operator was lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from remit.backends.base import AttemptRequest, Handle, OutputSink, Stream, TaskReference
from remit.backends.ending import CANCELLED_MESSAGE
from remit.backends.kubernetes.attending import Attendance, remove_job
from remit.backends.kubernetes.isolation import Isolation
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.manifests import (
    ATTEMPT_LABEL,
    MANAGED_BY,
    NO_NETWORK,
    WORKSPACE_LABELS,
    Secrets,
    Walls,
    claim,
    claim_name,
    claims,
    job,
    job_name,
    network_policy,
    secret_versions_of,
    walls,
)
from remit.backends.kubernetes.pods import confined, moment, over_quota, refused
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import ApiError, BackendError, InvalidInput, SandboxUnavailable
from remit.kube.client import CLAIMS, CONFIG_MAPS, JOBS, NETWORK_POLICIES, PODS, SECRETS, Kube, Object
from remit.kube.informer import Informer
from remit.sandbox import ClaimMount, boot_id
from remit.sandbox.fencing import now as boot_time

log = structlog.get_logger(__name__)
_NOT_FOUND, _CONFLICT, _FORBIDDEN = 404, 409, 403
_RETRY_SECONDS: Final = 1.0
_MISSING_RIGHT: Final = "cannot create resource"
_GIVEN_OTHERS: Final = (
    "a Secret that it was given has changed while no operator was there, so that the old value could not be redacted;"
    " nothing of it is alive"
)
_NOT_ISOLATED: Final = (
    "spec.network: none is not kept by this cluster: {why}; install a network plugin that enforces NetworkPolicies, use"
    " network: host where policies allow it, or start the operator with --accept-unenforced-network"
)


class KubernetesBackend:
    """Jobs by `kube`, which needs as many connections as attempts run at once, and some.

    Workspaces are kept in claims of `storage_class`; empty: the cluster's default one.
    `namespaces` are those that it may watch; none: all. Where NetworkPolicies are not enforced, attempts with
    `network: none` are refused, unless `accept_unenforced_network`.
    """

    name = "kubernetes"
    keeps_secret_versions = True

    def __init__(
        self,
        kube: Kube,
        launcher: Launcher,
        *,
        namespaces: Sequence[str] = (),
        accept_unenforced_network: bool = False,
        storage_class: str = "",
    ) -> None:
        self._kube, self._launcher, self._namespaces = kube, launcher, tuple(namespaces)
        self._storage_class = storage_class
        self._accept_unenforced_network = accept_unenforced_network
        self._isolation = Isolation(self._probe)
        self._informers: dict[str | None, Informer] = {}
        self._starting = asyncio.Lock()

    async def run(
        self,
        request: AttemptRequest,
        sink: OutputSink,
        *,
        cancel: asyncio.Event,
        on_started: Callable[[Handle], None] | None = None,
    ) -> Outcome:
        """See `Backend.run`. Cancelled itself, as on a shutdown, it lets go of a Job that runs: see `adopt`."""
        task = _task(request)
        given = walls(request.confinement)
        if cancel.is_set():
            return confined(Outcome(ExitReason.CANCELLED, CANCELLED_MESSAGE), given)
        if request.confinement.network == "none":
            given = walls(request.confinement, isolated=await self._is_isolated(task.namespace, request.image))
        return await self._run(request, task.namespace, sink, cancel, given, on_started)

    async def _run(
        self,
        request: AttemptRequest,
        namespace: str,
        sink: OutputSink,
        cancel: asyncio.Event,
        given: Walls,
        on_started: Callable[[Handle], None] | None,
    ) -> Outcome:
        secrets = Secrets.of(request)
        manifest = job(request, secrets, self._launcher)
        clock = asyncio.get_running_loop().time
        began = clock()
        informer = await self._informer(namespace)
        with informer.subscribe(request.id) as news:
            try:
                await self._prepare(namespace, request, secrets)
            except ApiError as error:
                return confined(_refused(error), given)
            if on_started:
                on_started(_handle(namespace, request.id, clock() - began))
            if (outcome := await self._create(namespace, manifest, request.timeout_seconds, cancel)) is not None:
                return confined(outcome, given)
            attendance = Attendance(self._kube, request, namespace, sink, given, news)
            return await self._attended(attendance, request, namespace, cancel, clock() - began)

    async def _is_isolated(self, namespace: str, image: str) -> bool:
        """Raises `SandboxUnavailable` where that is not so, and nobody said that it need not be."""
        verdict = await self._isolation.verdict(namespace, image)
        if not (verdict.holds or self._accept_unenforced_network):
            raise SandboxUnavailable(_NOT_ISOLATED.format(why=verdict.why))
        return verdict.holds

    async def _probe(self, request: AttemptRequest, namespace: str) -> Outcome:
        """An attempt of no task, of which nothing stays."""
        try:
            return await self._run(request, namespace, _Nowhere(), asyncio.Event(), walls(request.confinement), None)
        finally:
            await self._delete(request, namespace)

    async def adopt(
        self,
        request: AttemptRequest,
        sink: OutputSink,
        *,
        cancel: asyncio.Event,
        on_found: Callable[[Handle], None],
        recorded: Handle | None = None,
    ) -> Outcome | None:
        """See `AdoptingBackend.adopt`."""
        task = _task(request)
        found = await self._found(task.namespace, request)
        if found is None:
            return None
        had = _seconds_had(recorded, found)
        on_found(_handle(task.namespace, request.id, had))
        if secret_versions_of(found) != request.secret_versions:
            await remove_job(self._kube, task.namespace, job_name(request.id))
            return Outcome(ExitReason.INTERRUPTED, _GIVEN_OTHERS)
        given = walls(replace(request.confinement, require=frozenset()))
        informer = await self._informer(task.namespace)
        with informer.subscribe(request.id) as news:
            attendance = Attendance(self._kube, request, task.namespace, sink, given, news)
            return await self._attended(attendance, request, task.namespace, cancel, had)

    async def _attended(
        self, attendance: Attendance, request: AttemptRequest, namespace: str, cancel: asyncio.Event, had: float
    ) -> Outcome:
        """To its end; it has had so many seconds."""
        try:
            return await attendance.until_over(cancel, max(0.0, request.timeout_seconds - had))
        except BackendError:
            with contextlib.suppress(ApiError):
                await remove_job(self._kube, namespace, job_name(request.id))
            raise

    def handle_of(self, namespace: str, attempt_id: str) -> Handle:
        """See `AdoptingBackend.handle_of`."""
        return _handle(namespace, attempt_id, 0.0)

    async def forget(self, request: AttemptRequest) -> None:
        """See `AdoptingBackend.forget`. What is left then goes with its task, or after a day."""
        await self._delete(request, _task(request).namespace)

    async def _delete(self, request: AttemptRequest, namespace: str) -> None:
        name = job_name(request.id)
        for resource in (JOBS, SECRETS) if Secrets.of(request).data else (JOBS,):
            try:
                await self._kube.delete(resource, namespace, name)
            except ApiError as error:
                if error.status != _NOT_FOUND:
                    log.info("what is left of an attempt stays for now", name=name, reason=str(error))

    async def recover(self, handle: Handle) -> bool:
        """See `Backend.recover`. Raises `ApiError` of a server that refuses."""
        return bool(handle.namespace) and await remove_job(self._kube, handle.namespace, handle.container)

    async def close(self) -> None:
        """Let go of the watches."""
        informers, self._informers = list(self._informers.values()), {}
        for informer in informers:
            await informer.__aexit__(None, None, None)

    async def _found(self, namespace: str, request: AttemptRequest) -> Object | None:
        while True:
            try:
                return await self._kube.get(JOBS, namespace, job_name(request.id))
            except ApiError as error:
                if error.status == _NOT_FOUND:
                    return None
                if not error.retryable:
                    raise BackendError(str(error)) from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _informer(self, namespace: str) -> Informer:
        """That tells of the pods of attempts in `namespace`."""
        place = namespace if self._namespaces else None
        async with self._starting:
            informer = self._informers.get(place)
            if informer is None or informer.failed:
                informer = Informer(
                    self._kube,
                    PODS,
                    place,
                    label_selector=f"{MANAGED_BY},{ATTEMPT_LABEL}",
                    patience=float("inf"),
                    key=lambda pod: str(pod["metadata"].get("labels", {}).get(ATTEMPT_LABEL, "")),
                )
                self._informers[place] = await informer.__aenter__()
            return informer

    async def _prepare(self, namespace: str, request: AttemptRequest, secrets: Secrets) -> None:
        """Everything that the pod will look for. Raises `ApiError`."""
        await self._ensure(CONFIG_MAPS, namespace, self._launcher.name, lambda: self._launcher.config_map(namespace))
        if request.confinement.network == "none":
            await self._ensure(NETWORK_POLICIES, namespace, NO_NETWORK, lambda: network_policy(namespace))
        for mount in claims(request).values():
            await self._claim(mount, namespace)
        if secrets.data:
            with _unless_there():
                await self._kube.create(SECRETS, namespace, secrets.object(request))

    async def _claim(self, mount: ClaimMount, namespace: str) -> None:
        """The workspace's, made by its first attempt. Raises `ApiError`, and `InvalidInput` for a stranger's."""
        try:
            found = await self._kube.get(CLAIMS, namespace, claim_name(mount.workspace))
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            with _unless_there():
                await self._kube.create(CLAIMS, namespace, claim(mount, namespace, self._storage_class))
            return
        labels = found["metadata"].get("labels") or {}
        if any(labels.get(name) != value for name, value in WORKSPACE_LABELS.items()):
            name = claim_name(mount.workspace)
            raise InvalidInput(
                f"workspace {mount.workspace}: there is a PersistentVolumeClaim {name} that Remit did not make; delete"
                " it, give it the labels of a workspace, or use another name"
            )

    async def _ensure(self, resource: Any, namespace: str, name: str, wanted: Callable[[], dict[str, Any]]) -> None:
        """It is asked for each time: somebody may have deleted or changed it."""
        manifest = wanted()
        try:
            found = await self._kube.get(resource, namespace, name)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            with _unless_there():
                await self._kube.create(resource, namespace, manifest)
            return
        if any(found.get(part) != manifest[part] for part in ("spec", "binaryData") if part in manifest):
            await self._kube.delete(resource, namespace, name, uid=found["metadata"]["uid"])
            with _unless_there():
                await self._kube.create(resource, namespace, manifest)

    async def _create(
        self, namespace: str, manifest: dict[str, Any], seconds: float, cancel: asyncio.Event
    ) -> Outcome | None:
        """Create the Job: under its one name, so that asking again is safe. Gives an outcome where it is refused."""
        ends = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                await self._kube.create(JOBS, namespace, manifest)
            except ApiError as error:
                if error.status == _CONFLICT:  # an answer was lost
                    return None
                if not error.retryable:
                    return _refused(error)
                if cancel.is_set() or asyncio.get_running_loop().time() >= ends:
                    return None  # it may be there all the same, and is attended to its end
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return None


class _Nowhere:
    """A sink for what nobody reads."""

    def write(self, stream: Stream, chunk: bytes) -> None:
        pass


def _handle(namespace: str, attempt_id: str, had: float) -> Handle:
    """Of a Job that has had so many seconds."""
    return Handle(
        pid=0,
        start_time=0,
        boot_id=boot_id(),
        container=job_name(attempt_id),
        namespace=namespace,
        begun=boot_time() - had,
    )


def _task(request: AttemptRequest) -> TaskReference:
    if request.task is None:
        raise InvalidInput("a Job belongs to a task of the API server's")
    return request.task


@contextlib.contextmanager
def _unless_there() -> Any:
    try:
        yield
    except ApiError as error:
        if error.status != _CONFLICT:
            raise


def _refused(error: ApiError) -> Outcome:
    """What the API server has against an object of an attempt."""
    message = str(error)
    if "exceeded quota" in message:
        return over_quota(message)
    if error.status == _FORBIDDEN and _MISSING_RIGHT in message:
        raise BackendError(f"the operator lacks a right that the chart gives it: {message}") from error
    if error.retryable:
        raise BackendError(message) from error
    return refused(message)


def _seconds_had(recorded: Handle | None, job: Mapping[str, Any]) -> float:
    """By this machine's clock where it was started in this boot, else by the time of day."""
    if recorded is not None and recorded.begun > 0 and recorded.boot_id == boot_id():
        return max(0.0, boot_time() - recorded.begun)
    created = moment(job["metadata"].get("creationTimestamp"))
    return max(0.0, (datetime.now(UTC) - created).total_seconds()) if created else 0.0
