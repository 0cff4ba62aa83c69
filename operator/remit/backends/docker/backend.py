"""Run an attempt in a container of its own, and find it again after an operator was lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from remit.backends.base import AttemptRequest, Handle, OutputSink
from remit.backends.beforehand import in_time
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.docker.archives import EngineArchives
from remit.backends.docker.archivetree import ArchiveTree
from remit.backends.docker.container import ENGINE_ENDS, Container, time_had
from remit.backends.docker.engine import Engine, create, inspect_image
from remit.backends.docker.files import archives
from remit.backends.docker.folders import Folders, Staging, folders
from remit.backends.docker.holder import start_holder
from remit.backends.docker.holding import files_name, filling, holder_name
from remit.backends.docker.imagelinks import ImageLinks
from remit.backends.docker.network import RestrictedNetwork
from remit.backends.docker.outcomes import not_started, outcome_of
from remit.backends.docker.planning import (
    Given,
    check_links,
    container_name,
    creation,
    enforcement_of,
    kept_folders,
    missing_working_dir,
    places_to_resolve,
    private_folders,
)
from remit.backends.docker.stdin import FileInput, fed
from remit.backends.egress.listeners import EgressListeners
from remit.backends.egress.usage import NetworkUse
from remit.backends.egress.usagestore import UsageStore
from remit.backends.ending import CANCELLED_MESSAGE
from remit.backends.failure import OperationFailed
from remit.backends.filetree import COLLECTING_SECONDS, DescriptorTree, collected
from remit.backends.outcome import ExitReason, Outcome
from remit.backends.stdinfeed import Feed, opened_feed
from remit.errors import BackendError, OutcomeUnknown, RemitError, SandboxUnavailable
from remit.sandbox import boot_id
from remit.sandbox.fencing import now as boot_time

_RETRY_SECONDS = 1.0
_MOST_BESIDE, _BESIDE = 1 << 30, 4
"""Bytes that are passed over to find what is to be kept, and how often all that fits into `/workspace`: beyond that
there are files that only seem to be large."""
_NO_HOLDER = (
    "nothing can be kept of it: the container of image {image} that would hold what it leaves cannot be started"
    " ({error}); leave artifacts and results out, or use backend: process"
)


class DockerBackend:
    """Runs commands in containers on `engine`, each from the image that its task names.

    `listeners` creates the egress listeners of containers with a restricted network. `usage_store` keeps their network
    use for an operator that adopts them; without it, such an operator counts from zero. `staging` mounts host folders.
    """

    name = "docker"
    keeps_secret_versions = False

    def __init__(
        self,
        engine: Engine,
        listeners: EgressListeners | None = None,
        usage_store: UsageStore | None = None,
        boot: Callable[[], float] = boot_time,
        staging: Staging | None = None,
    ) -> None:
        self._engine, self._staging = engine, staging
        self._links = ImageLinks(engine)
        self._boot = boot
        self._listeners, self._usage_store = listeners or EgressListeners(), usage_store

    async def run(
        self,
        request: AttemptRequest,
        sink: OutputSink,
        *,
        cancel: asyncio.Event,
        on_started: Callable[[Handle], None] | None = None,
    ) -> Outcome:
        """See `Backend.run`. Cancelled itself, as on a shutdown, it lets go of a container that runs: see `adopt`."""
        if cancel.is_set():
            return not_started(ConfinementStatus((), (), {}), ExitReason.CANCELLED, CANCELLED_MESSAGE)
        info = await self._about_engine()
        given = enforcement_of(request.confinement, info, keeps=request.collector is not None)
        if missing := missing_working_dir(request):
            return not_started(given, ExitReason.START_FAILED, f"could not be started: {missing}")
        began = asyncio.get_running_loop().time()
        try:
            image = await in_time(self._image(request.image), cancel, request.timeout_seconds)
        except OperationFailed as error:
            if error.retryable:
                raise
            return not_started(given, ExitReason.START_FAILED, f"image {request.image}: {error}")
        if image is None:
            if cancel.is_set():
                return not_started(given, ExitReason.CANCELLED, CANCELLED_MESSAGE)
            waited = f"timed out after {request.timeout_seconds:g} s, before image {request.image} was pulled"
            return not_started(given, ExitReason.TIMED_OUT, waited)
        seconds = max(0.0, request.timeout_seconds - (asyncio.get_running_loop().time() - began))
        private_folders(request)  # raises for invalid private files before anything is created
        staged = folders(self._staging, self._engine.address, request, info, stage=True)
        async with self._feed(request) as feed, staged as found, self._network(request) as network:
            record = on_started or _not_recorded
            handle = self._handle(container_name(request.id), request.timeout_seconds - seconds)
            record(replace(handle, feeding=feed is not None))
            file = FileInput(feed, lambda: record(handle)) if feed else None
            return await self._run(request, sink, cancel, seconds, image, info, given, network, found, file)

    async def _run(
        self,
        request: AttemptRequest,
        sink: OutputSink,
        cancel: asyncio.Event,
        seconds: float,
        image: Mapping[str, Any],
        info: Mapping[str, Any],
        given: ConfinementStatus,
        network: RestrictedNetwork | None,
        found: Folders,
        file: FileInput | None,
    ) -> Outcome:
        name, asked, refused = container_name(request.id), False, None
        try:
            id_, holder = await self._create(name, request, image, info, network, found.given)
            async with (
                self._engine.opened(lambda client: client.attach(id_, stream=True, demux=True)) as output,
                file.sent(self._engine, id_) if file else fed(self._engine, id_, request.command.stdin),
                self._ended_unless_fed(name, request, file),
            ):
                asked = True
                with _unknown_from_now_on():
                    refused = await self._start(id_, network)
                    await found.started()
                if refused:
                    outcome = not_started(given, ExitReason.START_FAILED, f"could not be started: {refused}")
                else:
                    container = Container(self._engine, id_, sink)
                    with _unknown_from_now_on():
                        outcome = await self._until_over(
                            container, request, output, cancel, seconds, given, network, file
                        )
            if not refused:
                outcome = await self._collected(request, outcome, replace(found.given, holder=holder), found.opened)
        except asyncio.CancelledError:
            if not asked:  # otherwise the container may run, and the operator that adopts it takes over
                with contextlib.suppress(OperationFailed):
                    await self._remove(name, request)
            raise
        except BaseException:
            # The engine may have carried out a request that it did not answer.
            await self._surely_remove(name, request, network)
            raise
        return replace(outcome, network=await self._surely_remove(name, request, network))

    def _feed(self, request: AttemptRequest) -> contextlib.AbstractAsyncContextManager[Feed | None]:
        """Raises as `opened_feed` does, and SandboxUnavailable where nothing says what must not be read."""
        if self._staging is None and request.confinement.stdin_file:
            raise SandboxUnavailable("the backend docker cannot read spec.stdinFrom.volume: use backend: process")
        identities, protected = (self._staging.identities, self._staging.protected) if self._staging else (None, ())
        return opened_feed(request, identities, protected)

    @contextlib.asynccontextmanager
    async def _ended_unless_fed(
        self, name: str, request: AttemptRequest, file: FileInput | None
    ) -> AsyncIterator[None]:
        """Whoever lets go of a container closes its standard input, which must not look like the end of a file."""
        try:
            yield
        except asyncio.CancelledError:
            if file and not file.complete:
                with contextlib.suppress(OperationFailed):
                    await self._remove(name, request)
            raise

    async def _create(
        self,
        name: str,
        request: AttemptRequest,
        image: Mapping[str, Any],
        info: Mapping[str, Any],
        network: RestrictedNetwork | None,
        given: Given,
    ) -> tuple[str, str]:
        """The container, with its private files and, where that is restricted, its network. Gives its id, and that of
        its holder; empty: it has none."""
        if places := places_to_resolve(request, image, info):
            check_links(request, await self._links.resolved(holder_name(name), request, image, places))
        mode: str = request.confinement.network
        holder = ""
        if network:
            holder = await network.make(image, info["Architecture"])
            mode = f"container:{holder}"
        elif request.collector:
            holder = await self._hold(request, image, info["Architecture"])
        proxy = network.environment if network else {}
        filled = await self._fill(name, request, image, given) if request.files else ""
        config = creation(request, image, info, mode, proxy, replace(given, holder=holder, filled=filled))
        return await self._engine.call(lambda client: create(client, name, config)), holder

    async def _fill(self, name: str, request: AttemptRequest, image: Mapping[str, Any], given: Given) -> str:
        """The id of a container that has the private files in volumes, and never runs."""
        config = filling(request, image)
        id_ = await self._engine.call(lambda client: create(client, files_name(name), config))
        for folder, archive in archives(request, given).items():
            await self._engine.call(
                lambda client, folder=folder, archive=archive: client.put_archive(id_, folder, archive)  # type: ignore[misc]
            )
        return id_

    async def _hold(self, request: AttemptRequest, image: Mapping[str, Any], architecture: str) -> str:
        try:
            name = holder_name(container_name(request.id))
            return await start_holder(self._engine, name, request, image, architecture)
        except OperationFailed as error:
            if error.retryable:
                raise
            raise SandboxUnavailable(_NO_HOLDER.format(image=request.image, error=error)) from None

    async def _collected(
        self, request: AttemptRequest, outcome: Outcome, given: Given, opened: Mapping[str, int]
    ) -> Outcome:
        """How the attempt ended, with what was kept of what is left in its holder and in folders of the host."""
        if request.collector is None:
            return outcome
        reading = EngineArchives(self._engine, given.holder, COLLECTING_SECONDS)
        beside = _BESIDE * (request.confinement.limits.disk_bytes or 0) or _MOST_BESIDE
        hosts = DescriptorTree(opened, given.user)
        places = list(kept_folders(request))
        left = ArchiveTree(reading, places, given.user, given.group, max(_MOST_BESIDE, beside), hosts)
        try:
            return await collected(request.collector, left, outcome)
        finally:
            reading.stop()

    async def _start(self, id_: str, network: RestrictedNetwork | None) -> OperationFailed | None:
        """Start it. Gives what the engine has against that."""
        try:
            await self._engine.call(lambda client: client.start(id_))
        except OperationFailed as error:
            if error.retryable:
                raise
            if network:
                network.check()
            return error
        return None

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
        name = container_name(request.id)
        found = await self._engine.patiently(lambda client: client.inspect_container(name))
        async with self._network(request) as network:
            half_fed = request.confinement.stdin_file is not None and (recorded is None or recorded.feeding)
            # The container never ran, or its stdin was not fed completely.
            if found is None or found["State"]["Status"] == "created" or half_fed:
                await self._surely_remove(name, request, network)
                return None
            # The container may have run, so this must not fail.
            info = await self._engine.patiently(lambda client: client.info()) or {}
            had = time_had(recorded, boot_id(), self._boot(), found["State"]["StartedAt"], info.get("SystemTime", ""))
            on_found(self._handle(name, had))
            given = enforcement_of(replace(request.confinement, require=frozenset()), info)
            left = request.timeout_seconds - had
            container = Container(self._engine, found["Id"], sink)
            try:
                with _unknown_from_now_on():
                    if network and found["State"]["Running"]:
                        await network.resume(await self._holder(found))
                    outcome = await self._until_over(container, request, None, cancel, max(0.0, left), given, network)
                if request.collector:
                    outcome = await self._collected_later(request, outcome, found)
            except asyncio.CancelledError:
                raise
            except BaseException:
                await self._surely_remove(name, request, network)
                raise
            return replace(outcome, network=await self._surely_remove(name, request, network))

    def _handle(self, name: str, had: float) -> Handle:
        """The handle of a container that has used `had` seconds of its time."""
        return Handle(pid=0, start_time=0, boot_id=boot_id(), container=name, begun=self._boot() - had)

    def handle_of(self, namespace: str, attempt_id: str) -> Handle:
        """See `AdoptingBackend.handle_of`."""
        return Handle(pid=0, start_time=0, boot_id=boot_id(), container=container_name(attempt_id))

    async def forget(self, request: AttemptRequest) -> None:
        """See `AdoptingBackend.forget`: the container is gone before anything is told of its end."""

    async def recover(self, handle: Handle) -> bool:
        """See `Backend.recover`. Raises `OperationFailed` while the engine does not answer."""
        if handle.namespace:  # the handle is one of a Job
            return False
        found = await self._remove_one(handle.container)
        held = await self._remove_one(holder_name(handle.container))
        await self._remove_one(files_name(handle.container))
        if self._usage_store:
            self._usage_store.forget(holder_name(handle.container))
        return found or held

    @contextlib.asynccontextmanager
    async def _network(self, request: AttemptRequest) -> AsyncIterator[RestrictedNetwork | None]:
        """The network of an attempt with restricted access, released in the end; None for other attempts."""
        if request.confinement.network != "restricted":
            yield None
            return
        name = holder_name(container_name(request.id))
        network = RestrictedNetwork(self._engine, name, request, self._listeners, self._usage_store)
        try:
            yield network
        finally:
            await network.close()

    async def _holder(self, found: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The container whose network that of an attempt joined; None if it is gone."""
        kind, _, id_ = str(found["HostConfig"]["NetworkMode"]).partition(":")
        return (
            await self._engine.patiently(lambda client: client.inspect_container(id_)) if kind == "container" else None
        )

    async def _until_over(
        self,
        container: Container,
        request: AttemptRequest,
        output: AsyncIterator[Any] | None,
        cancel: asyncio.Event,
        seconds: float,
        given: ConfinementStatus,
        network: RestrictedNetwork | None,
        file: FileInput | None = None,
    ) -> Outcome:
        """Carry its output, end it when its time is over, it is to be cancelled or has lost its network or its input,
        and say how it ended."""
        lost = [needed.failed for needed in (network, file) if needed]
        ended = await container.until_over(output, cancel, seconds, request.grace_seconds, lost=lost)
        state = ended.state
        if ended.lost and network:
            network.check()
        if ended.lost and file:
            file.check()
        if file and not file.complete and container.lost_engine:
            raise OutcomeUnknown("the Docker engine went away while the container was given its standard input")
        by_itself = ended.stopped or state.oom_killed or state.exit_code not in ENGINE_ENDS
        if not by_itself:
            if await container.was_ended_from_outside(state):
                raise BackendError(
                    "the container was ended from outside: its Docker engine was stopped, or somebody killed it"
                )
            state = await container.settled(state)
        return outcome_of(container, request, state, ended.stopped, given)

    async def _image(self, reference: str) -> dict[str, Any]:
        """The image, fetched if the engine does not have it."""
        try:
            return await self._engine.call(lambda client: inspect_image(client, reference))
        except OperationFailed as error:
            if error.reason != "NotFound":
                raise
        await self._engine.pull(reference)
        return await self._engine.call(lambda client: inspect_image(client, reference))

    async def _collected_later(self, request: AttemptRequest, outcome: Outcome, found: Mapping[str, Any]) -> Outcome:
        """The outcome with the files of a container that another operator started. `found` is its inspection."""
        holder = next(iter(found["HostConfig"]["VolumesFrom"] or []), "")
        user, group = (int(number) for number in found["Config"]["User"].split(":"))
        try:
            info = await self._engine.patiently(lambda client: client.info()) or {}
            async with folders(self._staging, self._engine.address, request, info, stage=False) as mounted:
                return await self._collected(
                    request, outcome, Given(user=user, group=group, holder=holder), mounted.opened
                )
        except RemitError as error:
            raise OutcomeUnknown(f"what it left in a mounted folder cannot be read: {error}") from error

    async def _surely_remove(
        self, name: str, request: AttemptRequest, network: RestrictedNetwork | None
    ) -> NetworkUse | None:
        """Nothing is told of an attempt while its container may be alive, or may yet be started.

        Gives what went over its network.
        """
        while True:
            with contextlib.suppress(OperationFailed):
                await self._remove(name, request)
                return await network.end() if network else None
            await asyncio.sleep(_RETRY_SECONDS)

    async def _remove(self, name: str, request: AttemptRequest) -> None:
        """The container, then those beside it. Raises as `_remove_one` does."""
        await self._remove_one(name)
        restricted = request.confinement.network == "restricted"
        if any((request.collector, restricted, request.files, request.confinement.mounts)):
            await self._remove_one(holder_name(name))
        if request.files:
            await self._remove_one(files_name(name))

    async def _remove_one(self, name: str) -> bool:
        """Whether there was anything to remove. Raises while that cannot be told, which is not waited for."""
        try:
            await self._engine.call(lambda client: client.remove_container(name, v=True, force=True))
        except OperationFailed as error:
            if error.reason == "Conflict":  # another client is removing the container now
                raise OperationFailed(error.reason, str(error), category="Infrastructure") from None
            if error.retryable:
                raise
            return False
        return True

    async def _about_engine(self) -> Mapping[str, Any]:
        """Asked each time: an engine may come back with other settings."""
        return await self._engine.call(lambda client: client.info())


@contextlib.contextmanager
def _unknown_from_now_on() -> Iterator[None]:
    """Raise failures of the engine as `OutcomeUnknown`, once it was asked to start the container: that may have run."""
    try:
        yield
    except OperationFailed as error:
        raise OutcomeUnknown(str(error)) from error


def _not_recorded(_: Handle) -> None:
    """The recorder of containers that are not adopted after a restart."""
