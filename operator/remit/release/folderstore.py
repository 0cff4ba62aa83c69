"""One Deployment in a folder, for `remit.release.driver`: what was asked for, its status, and hooks of this process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog

from remit.api.deployment import Deployment, Hook
from remit.api.deploymentstatus import DeploymentStatus, PipelineState, Release, RequestAnswer, RequestKind
from remit.errors import DeploymentError, RemitError
from remit.privatefiles import write_private
from remit.release.model import Desired, HookKey, HookView, ObservedState, ReleaseRequest, Revision, Snapshot
from remit.release.places import keeping_state
from remit.release.revisions import LocalRevisions
from remit.release.steps import Decision, RunHook
from remit.release.target import Material, Target

log = structlog.get_logger(__name__)

_KEPT_REQUESTS: Final = 64


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """The `number`th time that something was deployed there. The number is the generation of the Deployment."""

    number: int
    snapshot: Snapshot
    material: Material = field(repr=False)


@dataclass
class FolderStore:
    """Keeps a Deployment in `folder`, to which no other process writes. Requests and hooks exist in this process only,
    and end with it.

    There are no Events and no report: events are logged, and the caller gets the outcome.
    """

    template: Deployment
    """The Deployment whose metadata is used."""
    folder: Path
    who: str
    """The requester of releases, for the audit trail."""
    hook: Callable[[HookKey, Hook], Awaitable[HookView]]
    """Runs the task of a hook to its end."""
    wake: Callable[[], None]
    """Called when a hook has ended."""
    status: DeploymentStatus = field(default_factory=DeploymentStatus)
    latest: DeployRequest | None = None
    """What was deployed last; None: nothing is declared."""
    pending: list[ReleaseRequest] = field(default_factory=list)
    """Requests in order. None replaces one that was not answered."""
    failure: RemitError | None = None
    """Why the last step failed, where the target is not to blame but the state or the audit trail."""
    _deleted_at: datetime.datetime | None = None
    _hooks: dict[HookKey, HookView] = field(default_factory=dict)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        # The folder's name on disk is from an earlier version and is kept for compatibility.
        self._requests = LocalRevisions(self.folder / "wishes")
        self._file = self.folder / "status.json"

    async def load(self) -> None:
        """Loads the state in which the previous process stopped."""
        with contextlib.suppress(FileNotFoundError):
            self.status = DeploymentStatus.model_validate_json(await asyncio.to_thread(self._file.read_bytes))
        if numbers := await self._requests.all():
            self.latest = await self.deployed(max(numbers))

    async def deployed(self, number: int) -> DeployRequest:
        """Raises DeploymentError where it is not kept any more."""
        revision, material = await self._requests.load(number)
        return DeployRequest(revision.number, revision.snapshot, material)

    async def deploy(self, snapshot: Snapshot, material: Material) -> DeployRequest:
        """Declare it. Raises DeploymentError where that cannot be kept."""
        number = 1 + (self.latest.number if self.latest else 0)
        with keeping_state():
            await self._requests.keep(Revision(number, snapshot), material)
            await self._requests.forget({n for n in await self._requests.all() if n <= number - _KEPT_REQUESTS})
        self.latest = DeployRequest(number, snapshot, material)
        return self.latest

    def ask(self, kind: RequestKind) -> str:
        """Make a request by hand. Gives the id that its answer will have."""
        self.pending.append(ReleaseRequest(secrets.token_hex(6), kind))
        return self.pending[-1].id

    def delete(self) -> None:
        self._deleted_at = self._deleted_at or datetime.datetime.now(datetime.UTC)

    async def close(self) -> None:
        """End the hooks."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def deployment(self) -> Deployment:
        latest, template = self.latest, self.template
        if latest is None:
            return template
        declared = {"generation": latest.number, "deletion_timestamp": self._deleted_at}
        metadata = template.metadata.model_copy(update=declared)
        return template.model_copy(update={"metadata": metadata, "spec": latest.snapshot.spec, "status": self.status})

    @property
    def declared_by(self) -> str:
        return self.who

    @property
    def requested_by(self) -> str:
        return self.who

    @property
    def request(self) -> ReleaseRequest | None:
        return self.pending[0] if self.pending else None

    async def configuration(self) -> tuple[Snapshot, Material]:
        if self.latest is None:
            raise AssertionError("nothing is declared")
        return self.latest.snapshot, self.latest.material

    async def write_status(self, status: DeploymentStatus) -> None:
        """Raises DeploymentError where it cannot be kept."""
        if status == self.status and self._file.exists():
            return
        with keeping_state():
            await asyncio.to_thread(write_private, self._file, status.model_dump_json(by_alias=True).encode())
        self.status = status

    async def remove_request(self, answer: RequestAnswer) -> None:
        self.pending = [request for request in self.pending if request.id != answer.id]

    async def forget(self) -> None:
        await self._requests.clear()
        await asyncio.to_thread(self._file.unlink, missing_ok=True)
        self.latest, self.status = None, DeploymentStatus()

    def record_event(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        log.info("release event", deployment=self.template.key, type=type_, reason=reason, message=message)

    def observe_hooks(self, release: Release) -> Mapping[HookKey, HookView]:
        return dict(self._hooks)

    async def run_hook(self, release: Release, step: RunHook) -> None:
        if step.key not in self._hooks:
            self._hooks[step.key] = HookView("Running")
            task = asyncio.create_task(self._run(step.key, step.hook))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def clean_up_hooks(self, over: Release | None) -> None:
        for task in self._running:
            task.cancel()
        self._hooks.clear()

    async def report(
        self, target: Target, observed: ObservedState, before: PipelineState, after: PipelineState
    ) -> None:
        return None

    async def before_step(self, target: Target, desired: Desired, observed: ObservedState, decision: Decision) -> None:
        """Nothing to do."""

    def step_failed(self, error: RemitError) -> None:
        if not isinstance(error, DeploymentError) or error.reason == "StateNotKept":
            self.failure = error

    async def _run(self, key: HookKey, hook: Hook) -> None:
        try:
            self._hooks[key] = await self.hook(key, hook)
        except RemitError as error:
            self._hooks[key] = HookView("Failed", str(error))
        self.wake()
