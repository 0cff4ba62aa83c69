"""Run an attempt as a Job in its task's namespace, and find it again after an operator was lost."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import structlog

from remit.backends.base import AttemptRequest, Handle, OutputSink, Stream, TaskReference
from remit.backends.beforehand import in_time
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.ending import CANCELLED_MESSAGE
from remit.backends.kubernetes import labels
from remit.backends.kubernetes.attending import Attendance, remove_for_sure, remove_job
from remit.backends.kubernetes.discarding import discard_of_attempt, discard_of_job
from remit.backends.kubernetes.ensuring import Immutables, ensure, exists
from remit.backends.kubernetes.fileparts import Part, parts
from remit.backends.kubernetes.gateway import EgressGateway
from remit.backends.kubernetes.gatewaymanifests import as_made, behind_gateway
from remit.backends.kubernetes.isolation import Isolation
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.manifests import (
    Secrets,
    belongs_to,
    enforcement_of,
    files_secret,
    job,
    job_name,
    network_policy,
    runs,
    secret_versions_of,
    with_held_network,
)
from remit.backends.kubernetes.pods import confined, is_over_quota, moment, never_started, over_quota, refused
from remit.backends.kubernetes.spool import Spool
from remit.backends.kubernetes.workspaces import Workspaces
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import ApiError, BackendError, InvalidInput, RemitError, SandboxUnavailable
from remit.kube.client import JOBS, NETWORK_POLICIES, PODS, SECRETS, Kube, Object
from remit.kube.informer import Informer
from remit.sandbox import NOT_ENFORCED, Network, boot_id
from remit.sandbox.fencing import now as boot_time

log = structlog.get_logger(__name__)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404
_RETRY_SECONDS: Final = 1.0
_ISOLATION_SECONDS: Final = 60.0
"""How long the test of NetworkPolicy enforcement may take, even if the attempt itself has less time."""
_REFUSED_PATIENCE: Final = 600.0
"""How long a refusal by the API server is tried again, as while the operator's roles are being reinstalled."""
_FORGET_TRIES: Final = 8
"""Each after twice as long as the one before: some four minutes."""
_MISSING_RIGHT: Final = re.compile("cannot [a-z]+ resource")
_GIVEN_OTHERS: Final = (
    "a Secret that it was given has changed while no operator was there, so that the old value could not be redacted;"
    " nothing of it is alive"
)
_NOT_ISOLATED: Final = (
    "spec.network: {network} is not kept by this cluster: {why}; install a network plugin that enforces"
    " NetworkPolicies, use network: host where policies allow it, or start the operator with"
    " --accept-unenforced-network"
)
_NO_GATEWAY: Final = (
    "spec.network: restricted needs an egress gateway, which runs Remit's own image, and this operator was not told"
    " which one that is; start it with --remit-image, or use network: none or host"
)


class KubernetesBackend:
    """Jobs by `kube`, which needs as many connections as attempts run at once, and some.

    Workspaces are kept in claims of `storage_class`; empty: the cluster's default one.
    `namespaces` are those that it may watch; none: all. Where NetworkPolicies are not enforced, attempts with
    `network: none` or `restricted` are refused, unless `accept_unenforced_network`. `remit_image` is Remit's own image,
    for the gateways of restricted networks; empty: these are refused.
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
        remit_image: str = "",
        spool: Path | None = None,
    ) -> None:
        """`spool`: where files of attempts are until they are collected; by default where temporary files are."""
        if spool is not None:
            spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._spool = spool
        self._kube, self._launcher, self._namespaces = kube, launcher, tuple(namespaces)
        self._remit_image = remit_image
        self.workspaces = Workspaces(kube, storage_class)
        self._accept_unenforced_network = accept_unenforced_network
        self._immutables = Immutables(kube)
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
        task, network = _task(request), request.confinement.network
        enforcement = _enforcement_of(request)
        if network == "restricted" and not self._remit_image:
            raise SandboxUnavailable(_NO_GATEWAY)
        if cancel.is_set():
            return confined(Outcome(ExitReason.CANCELLED, CANCELLED_MESSAGE), enforcement)
        if network != "host" and not request.own_program:
            # This wait does not count towards the attempt's timeout: the first attempt in a namespace waits for two
            # pods, and for a network plugin that may apply rules late.
            asking = self._is_isolated(task.namespace, request.image, network)
            isolated = await in_time(asking, cancel, max(request.timeout_seconds, _ISOLATION_SECONDS))
            if isolated is None:
                waited_for = f"it was still being tried whether network: {network} holds"
                return never_started(waited_for, request, enforcement, cancelled=cancel.is_set())
            enforcement = enforcement_of(request.confinement, isolated=isolated)
        run = self._run_restricted if network == "restricted" else self._run
        async with self.workspaces.held(request, task.namespace):
            return await run(request, task.namespace, sink, cancel, enforcement, on_started)

    async def _run_restricted(
        self,
        request: AttemptRequest,
        namespace: str,
        sink: OutputSink,
        cancel: asyncio.Event,
        enforcement: ConfinementStatus,
        on_started: Callable[[Handle], None] | None,
    ) -> Outcome:
        """Run it once its gateway accepts connections. The wait counts towards the attempt's time."""
        began = asyncio.get_running_loop().time()
        # Raises for an invalid Job before a gateway is started.
        job(as_made(request), Secrets.of(as_made(request)), self._launcher)
        async with self._gateway(request, namespace, await self._informer(namespace)) as gateway:
            try:
                url = await in_time(_started(gateway), cancel, request.timeout_seconds)
                if url is None:
                    waited_for = f"its egress gateway: {gateway.waits_for}"
                    return never_started(waited_for, request, enforcement, cancelled=cancel.is_set())
                if isinstance(url, Outcome):
                    return confined(replace(url, message=f"its egress gateway: {url.message}"), enforcement)

                def run(stop: asyncio.Event) -> Awaitable[Outcome]:
                    behind = behind_gateway(request, url)
                    return self._run(
                        behind, namespace, sink, stop, enforcement, on_started, gateway=gateway.uid, began=began
                    )

                return await gateway.attend(run, cancel)
            except RemitError:
                await discard_of_attempt(self._kube, namespace, request)
                raise

    def _gateway(self, request: AttemptRequest, namespace: str, informer: Informer) -> EgressGateway:
        return EgressGateway(self._kube, namespace, request, informer, self._remit_image, self._launcher.architecture)

    async def _run(
        self,
        request: AttemptRequest,
        namespace: str,
        sink: OutputSink,
        cancel: asyncio.Event,
        enforcement: ConfinementStatus,
        on_started: Callable[[Handle], None] | None,
        *,
        gateway: str = "",
        began: float | None = None,
    ) -> Outcome:
        """`gateway`: the uid of its gateway's Job. `began`: since when its time counts, by the loop's clock."""
        secrets = Secrets.of(request)
        manifest = job(request, secrets, self._launcher)
        if enforcement.enforced_by.get("network", NOT_ENFORCED) != NOT_ENFORCED and request.task is not None:
            with_held_network(manifest)
        notes = {labels.GATEWAY_UID: gateway, labels.NETWORK_BY: enforcement.enforced_by.get("network", "")}
        notes[labels.MADE_BY] = token_hex(16)
        manifest["metadata"].setdefault("annotations", {}).update({name: note for name, note in notes.items() if note})
        clock = asyncio.get_running_loop().time
        began = clock() if began is None else began
        try:
            there = await in_time(self.workspaces.prepare(request, namespace), cancel, request.timeout_seconds)
        except ApiError as error:
            return confined(_refused(error), enforcement)
        if not there:
            waited_for = self.workspaces.waits_for(request)
            return never_started(waited_for, request, enforcement, cancelled=cancel.is_set())
        informer = await self._informer(namespace)
        with informer.subscribe(request.id) as news:
            try:
                await self._prepare(namespace, request, secrets)
            except ApiError as error:
                return confined(_refused(error), enforcement)
            if on_started:
                on_started(_handle(namespace, request.id, clock() - began))
            try:
                made = await self._create(namespace, manifest, request.timeout_seconds, cancel)
            except BackendError:
                await discard_of_attempt(self._kube, namespace, request)
                raise
            if isinstance(made, Outcome):
                return confined(made, enforcement)
            if on_started and made.uid:
                on_started(_handle(namespace, request.id, clock() - began, made.uid))
            attendance = Attendance(
                self._kube,
                request,
                namespace,
                made.uid,
                sink,
                enforcement,
                news,
                spool=Spool(request.kept, self._spool),
                waits_for=made.waited_for,
            )
            return await self._attended(attendance, request, namespace, cancel, clock() - began)

    async def _is_isolated(self, namespace: str, image: str, network: Network) -> bool:
        """Raises `SandboxUnavailable` where that is not so, and nobody said that it need not be."""
        verdict = await self._isolation.verdict(namespace, image)
        if not (verdict.holds or self._accept_unenforced_network):
            raise SandboxUnavailable(_NOT_ISOLATED.format(network=network, why=verdict.why))
        return verdict.holds

    async def _probe(self, request: AttemptRequest, namespace: str) -> Outcome:
        """An attempt of no task, of which nothing stays."""
        try:
            return await self._run(
                request, namespace, _Nowhere(), asyncio.Event(), enforcement_of(request.confinement), None
            )
        finally:
            await discard_of_attempt(self._kube, namespace, request)

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
        namespace = _task(request).namespace
        async with self.workspaces.held(request, namespace):
            return await self._adopt(as_made(request), namespace, sink, cancel, on_found, recorded)

    async def _adopt(
        self,
        request: AttemptRequest,
        namespace: str,
        sink: OutputSink,
        cancel: asyncio.Event,
        on_found: Callable[[Handle], None],
        recorded: Handle | None,
    ) -> Outcome | None:
        found = await self._found(namespace, request, recorded)
        if found is None:
            return None
        had, uid = _seconds_had(recorded, found), found["metadata"]["uid"]
        on_found(_handle(namespace, request.id, had, uid))
        if secret_versions_of(found) != request.secret_versions:
            await remove_for_sure(self._kube, namespace, job_name(request.id), uid)
            return Outcome(ExitReason.INTERRUPTED, _GIVEN_OTHERS)
        notes = found["metadata"].get("annotations") or {}
        isolated = notes.get(labels.NETWORK_BY) != NOT_ENFORCED
        enforcement = _enforcement_of(
            replace(request, confinement=replace(request.confinement, require=frozenset())), isolated=isolated
        )
        informer = await self._informer(namespace)

        async def attend(cancel: asyncio.Event) -> Outcome:
            with informer.subscribe(request.id) as news:
                spool = Spool(request.kept, self._spool)
                attendance = Attendance(self._kube, request, namespace, uid, sink, enforcement, news, spool=spool)
                return await self._attended(attendance, request, namespace, cancel, had)

        if request.confinement.network != "restricted":
            return await attend(cancel)
        async with self._gateway(request, namespace, informer) as gateway:
            gateway.resume(notes.get(labels.GATEWAY_UID, ""))
            return await gateway.attend(attend, cancel)

    async def _attended(
        self, attendance: Attendance, request: AttemptRequest, namespace: str, cancel: asyncio.Event, had: float
    ) -> Outcome:
        """To its end; it has had so many seconds."""
        try:
            return await attendance.until_over(cancel, max(0.0, request.timeout_seconds - had))
        except BackendError:
            await attendance.remove()
            await discard_of_attempt(self._kube, namespace, request)
            raise

    def handle_of(self, namespace: str, attempt_id: str) -> Handle:
        """See `AdoptingBackend.handle_of`."""
        return _handle(namespace, attempt_id, 0.0)

    async def forget(self, request: AttemptRequest) -> None:
        """See `AdoptingBackend.forget`. What is left in the end goes with its task, or after a day."""
        pause = _RETRY_SECONDS
        for _ in range(_FORGET_TRIES):
            if await discard_of_attempt(self._kube, _task(request).namespace, request):
                return
            await asyncio.sleep(pause)
            pause *= 2

    async def recover(self, handle: Handle) -> bool:
        """See `Backend.recover`. Raises `ApiError` of a server that refuses."""
        namespace, name = handle.namespace, handle.container
        if not namespace:
            return False
        was_there = await remove_job(self._kube, namespace, name, handle.uid)
        await discard_of_job(self._kube, namespace, name)
        return was_there

    async def close(self) -> None:
        """Let go of the watches."""
        informers, self._informers = list(self._informers.values()), {}
        for informer in informers:
            await informer.__aexit__(None, None, None)

    async def _found(self, namespace: str, request: AttemptRequest, recorded: Handle | None) -> Object | None:
        """The attempt's Job, and no other one of its name. Nothing stays of one that only says so."""
        while True:
            try:
                found = await self._kube.get(JOBS, namespace, job_name(request.id))
                if recorded is not None and recorded.uid:
                    return found if found["metadata"]["uid"] == recorded.uid else None
                manifest = job(request, Secrets.of(request), self._launcher)
                return found if await self._is_ours(namespace, found, manifest) else None
            except ApiError as error:
                if error.status == _NOT_FOUND:
                    return None
                if not error.retryable:
                    raise BackendError(str(error)) from error
            await asyncio.sleep(_RETRY_SECONDS)

    async def _is_ours(self, namespace: str, found: Object, manifest: Object) -> bool:
        """Whether a Job, of which nobody knows who made it, runs what `manifest` would. The server says what that comes
        to, with its own defaults and what its webhooks change. One that is not, but says that it belongs to the task,
        is removed. Raises `ApiError`."""
        name = found["metadata"]["name"]
        if not _has_owners_of(found, manifest):
            return False
        metadata = {key: value for key, value in manifest["metadata"].items() if key != "name"}
        trial = {**manifest, "metadata": {**metadata, "generateName": f"{name}-"}}
        try:
            if runs(found) == runs(await self._kube.create(JOBS, namespace, trial, dry_run=True)):
                return True
        except ApiError as error:
            if error.retryable:
                raise
        await self._remove_another(namespace, found)
        return False

    async def _remove_another(self, namespace: str, found: Object) -> None:
        name = found["metadata"]["name"]
        log.warning("a Job that says that it is an attempt's is another one; it is removed", job=name)
        await remove_for_sure(self._kube, namespace, name, found["metadata"]["uid"])

    async def _informer(self, namespace: str) -> Informer:
        """The informer of the pods of attempts in `namespace`."""
        place = namespace if self._namespaces else None
        async with self._starting:
            informer = self._informers.get(place)
            if informer is None or informer.failed:
                informer = Informer(
                    self._kube,
                    PODS,
                    place,
                    label_selector=labels.ATTEMPTS,
                    patience=float("inf"),
                    refusal_patience=_REFUSED_PATIENCE,
                    key=lambda pod: str(pod["metadata"].get("labels", {}).get(labels.ATTEMPT, "")),
                )
                self._informers[place] = await informer.__aenter__()
            return informer

    async def _prepare(self, namespace: str, request: AttemptRequest, secrets: Secrets) -> None:
        """Everything that the pod will look for. Raises `ApiError`."""
        launcher = self._launcher
        await self._immutables.ensure(SECRETS, namespace, launcher.name, lambda: launcher.secret(namespace))
        if (network := request.confinement.network) != "host":
            await ensure(self._kube, NETWORK_POLICIES, namespace, network_policy(namespace, network))
        if secrets.data:
            await ensure(self._kube, SECRETS, namespace, secrets.object(request), new=True)
        for part in _parts(request):
            try:
                manifest = await asyncio.to_thread(files_secret, request, part)
            except OSError as error:
                raise BackendError(f"an artifact that it mounts cannot be read: {error}") from error
            await ensure(self._kube, SECRETS, namespace, manifest, new=True)

    async def _create(
        self, namespace: str, manifest: dict[str, Any], seconds: float, cancel: asyncio.Event
    ) -> Outcome | _Made:
        """Create the Job: under its one name, so that asking again is safe. Gives an outcome where it is refused.

        Raises `BackendError` where another one has the name.
        """
        ends, name = asyncio.get_running_loop().time() + seconds, manifest["metadata"]["name"]
        while True:
            try:
                return _Made((await self._kube.create(JOBS, namespace, manifest))["metadata"]["uid"])
            except ApiError as error:
                if exists(error):  # an answer was lost, or another operator created it first
                    if (uid := await self._own(namespace, manifest)) is None:
                        raise BackendError(f"{namespace} has a Job {name} that Remit did not make") from None
                    return _Made(uid)
                if not error.retryable and not is_over_quota(str(error)):
                    return _refused(error)
                if cancel.is_set() or asyncio.get_running_loop().time() >= ends:
                    return _Made("", str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _own(self, namespace: str, manifest: Object) -> str | None:
        """The uid of a Job that is there already, where that is ours: nobody else knew what it says of its maker."""
        while True:
            try:
                found = await self._kube.get(JOBS, namespace, manifest["metadata"]["name"])
                ours = _made_by(found) == _made_by(manifest)
                if not ours and _has_owners_of(found, manifest):
                    await self._remove_another(namespace, found)
            except ApiError as error:
                if not error.retryable:
                    return None
            else:
                return str(found["metadata"]["uid"]) if ours else None
            await asyncio.sleep(_RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class _Made:
    """The Job `uid`; empty: there was no answer. It may be there all the same, and is attended to its end."""

    uid: str
    waited_for: str = ""


async def _started(gateway: EgressGateway) -> str | Outcome:
    """Call `EgressGateway.start`, and return why the server refuses it, if it does. Raises `BackendError`."""
    try:
        return await gateway.start()
    except ApiError as error:
        return _refused(error)


def _made_by(job: Object) -> str:
    return str((job["metadata"].get("annotations") or {}).get(labels.MADE_BY, ""))


def _has_owners_of(found: Object, manifest: Object) -> bool:
    return all(belongs_to(found, owner["uid"]) for owner in manifest["metadata"].get("ownerReferences", []))


def _enforcement_of(request: AttemptRequest, *, isolated: bool = True) -> ConfinementStatus:
    return enforcement_of(request.confinement, isolated=None if request.own_program else isolated)


class _Nowhere:
    """A sink for what nobody reads."""

    def write(self, stream: Stream, chunk: bytes) -> None:
        pass


def _handle(namespace: str, attempt_id: str, had: float, uid: str = "") -> Handle:
    """The handle of a Job that has used `had` seconds of its time."""
    return Handle(
        pid=0,
        start_time=0,
        boot_id=boot_id(),
        container=job_name(attempt_id),
        namespace=namespace,
        uid=uid,
        begun=boot_time() - had,
    )


def _parts(request: AttemptRequest) -> list[Part]:
    return list(itertools.chain.from_iterable(parts(request, job_name(request.id)).values()))


def _task(request: AttemptRequest) -> TaskReference:
    if request.task is None:
        raise InvalidInput("a Job belongs to a task of the API server's")
    return request.task


def _refused(error: ApiError) -> Outcome:
    """The outcome of an attempt of which the API server refuses an object."""
    message = str(error)
    if is_over_quota(message):
        return over_quota(message)
    if error.status == _FORBIDDEN and _MISSING_RIGHT.search(message):
        raise BackendError(f"the operator lacks a right that the chart gives it: {message}") from error
    if error.retryable or error.status == _UNAUTHORIZED:
        raise BackendError(message) from error
    return refused(message)


def _seconds_had(recorded: Handle | None, job: Mapping[str, Any]) -> float:
    """By this machine's clock where it was started in this boot, else by the time of day."""
    if recorded is not None and recorded.begun > 0 and recorded.boot_id == boot_id():
        return max(0.0, boot_time() - recorded.begun)
    created = moment(job["metadata"].get("creationTimestamp"))
    return max(0.0, (datetime.now(UTC) - created).total_seconds()) if created else 0.0
