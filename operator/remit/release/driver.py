"""One Deployment, released by this process itself: the operator's loop, with a file where the API server would be."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from remit.api.deployment import Hook
from remit.api.deploymentstatus import DeploymentStatus, PipelineState, RequestKind, Slot
from remit.api.resource import Deployment
from remit.errors import DeploymentError, RemitError
from remit.release import private, recording
from remit.release.clock import LOOK_SECONDS, next_look
from remit.release.model import Desired, HookKey, HookView, Problem, Request, Revision, Snapshot, StepError
from remit.release.pipeline import next_step
from remit.release.places import Place, carry_out, keep_only, look_ahead
from remit.release.revisions import LocalRevisions
from remit.release.status import status_after
from remit.release.steps import Decision, Finish, Retire, RunHook, Wait, step_error
from remit.release.target import Material
from remit.telemetry import AuditLog

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
_KEPT_WISHES = 64
_TEAR_DOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for: the `number`th time that something was deployed there."""

    number: int
    snapshot: Snapshot
    material: Material = field(repr=False)


@dataclass
class Driver:
    """Works on one event loop between `start` and `close`; what runs goes on after that, and the next one finds it.

    `folder` is this Deployment's alone. `run_hook` runs a hook's task to its end.
    """

    deployment: Deployment
    folder: Path
    place: Place
    problem: Callable[[Deployment, Material], Problem | None]
    run_hook: Callable[[HookKey, Hook], Awaitable[HookView]]
    audit: AuditLog
    who: str
    status: DeploymentStatus = field(default_factory=DeploymentStatus)
    _wish: Wish | None = None
    _requests: list[Request] = field(default_factory=list)
    """In turn: none takes the place of one that was not answered."""
    _error: StepError | None = None
    _broken: RemitError | None = None
    """Why the last look came to nothing."""
    _removing: bool = False
    _looks: int = 0
    _hooks: dict[HookKey, HookView] = field(default_factory=dict)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _loop: asyncio.Task[None] | None = None
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _looked: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self._wishes = LocalRevisions(self.folder / "wishes")
        self._file = self.folder / "status.json"

    async def start(self) -> None:
        """Go on from where the one before stopped."""
        with contextlib.suppress(FileNotFoundError):
            self.status = DeploymentStatus.model_validate_json(await asyncio.to_thread(self._file.read_bytes))
        numbers = await self._wishes.all()
        if numbers:
            revision, material = await self._wishes.load(max(numbers))
            self._wish = Wish(revision.number, revision.snapshot, material)
        self._loop = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        """Let go; what runs goes on."""
        tasks = [task for task in (self._loop, *self._running) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        message = (
            "whoever released it was closed; what runs goes on, and the next one to have this target goes on with it"
        )
        self._broken = DeploymentError(message, reason="Closed", retryable=True)
        async with self._looked:
            self._looked.notify_all()
        await self.place.target.close()

    def wake(self) -> None:
        """Something changed: look now."""
        self._due.set()

    async def remove(self) -> None:
        """Drain and stop all of it, and forget that it ever was; `close` is all that may follow."""
        if self._wish is not None:
            self._removing = True
            self.wake()
            await self._until(lambda _: self._wish is None)

    async def look(self) -> None:
        """Until the target was looked at once more. Raises what kept that look from its end."""
        before = self._looks
        self.wake()
        await self._until(lambda _: self._looks > before + 1)  # the one under way may have begun before

    @property
    def state(self) -> PipelineState:
        return self.status.pipeline

    @property
    def latest(self) -> Wish | None:
        """What was asked for last."""
        return self._wish

    async def deploy(self, snapshot: Snapshot, material: Material) -> int:
        """Release it, and come back when it is live. Gives the number of this wish.

        Raises DeploymentError where it did not come to that: what is live then, `status` says.
        """
        await self._until(lambda state: state.releasing is None or state.releasing.failure is None)
        number = 1 + (self._wish.number if self._wish else 0)
        await self._wishes.keep(Revision(number, snapshot), material)
        await self._wishes.forget({each for each in await self._wishes.all() if each <= number - _KEPT_WISHES})
        state, self._wish = self.state, Wish(number, snapshot, material)
        live = state.live.spec_hash if state.live else None
        if state.releasing is None and state.key == snapshot.spec_hash != live:
            self._ask("retry")  # the same was declared before, and went back: it is wanted all the same
        self.wake()
        await self._until(lambda state: self._at_rest(state, number) or self._newer(number))
        self._check_newer(number)
        await self._torn_down()
        self._check_live(lambda live: live == snapshot.spec_hash)
        return number

    async def rollback(self, number: int) -> None:
        """Return from wish `number` to what was live before it. Raises DeploymentError."""
        wish, _ = await self._wishes.load(number)
        state, left = self.state, wish.snapshot.spec_hash
        current = state.releasing.spec_hash if state.releasing else state.live.spec_hash if state.live else ""
        if current != left:
            serving = self.status.active or "nothing"
            message = f"{wish.snapshot.artifact} is not live, so there is no way back from it; live is {serving}"
            raise DeploymentError(message, reason="NotLive")
        asked = self._ask("rollback")
        self.wake()
        await self._until(lambda state: state.answer is not None and state.answer.id == asked)
        answer = self.state.answer
        if answer is not None and not answer.accepted:
            raise DeploymentError(answer.message, reason="RollbackRefused")
        now = self._wish.number if self._wish else number
        await self._until(lambda state: self._at_rest(state, now) or self._newer(now))
        self._check_newer(now)
        await self._torn_down()
        self._check_live(lambda live: live != left)

    def _ask(self, kind: RequestKind) -> str:
        self._requests.append(Request(secrets.token_hex(6), kind))
        return self._requests[-1].id

    def _at_rest(self, state: PipelineState, number: int) -> bool:
        seen = self.status.observed_generation == number and not self._requests
        return seen and state.releasing is None and state.settled and state.rollback_to is None

    async def _torn_down(self) -> None:
        """Until the side of a release that failed is empty: the program may end as soon as it hears of the failure."""
        release, live = self.state.release, self.state.live
        if release is None or (live is not None and live.slot == release.slot):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TEAR_DOWN_SECONDS):
                await self._until(lambda state: state.releasing is not None or self._is_empty(release.slot))

    def _is_empty(self, slot: Slot) -> bool:
        return all(each.name != slot for each in self.status.slots)

    def _newer(self, number: int) -> bool:
        return self._wish is not None and self._wish.number != number

    def _check_newer(self, number: int) -> None:
        if self._newer(number) and self._wish is not None:
            message = f"a newer deployment, {self._wish.snapshot.artifact}, took its place"
            raise DeploymentError(message, reason="Superseded")

    def _check_live(self, right: Callable[[str], bool]) -> None:
        state = self.state
        if state.live is None or not right(state.live.spec_hash):
            last = state.release
            message = last.message if last and last.message else self.status.message
            raise DeploymentError(message, reason=last.reason if last and last.reason else "DeploymentFailed")

    async def _until(self, reached: Callable[[PipelineState], bool]) -> None:
        async with self._looked:
            await self._looked.wait_for(lambda: self._broken is not None or reached(self.state))
        if self._broken is not None:
            raise self._broken

    async def _go_on(self) -> None:
        while True:
            self._due.clear()
            try:
                pause, self._broken = await self._look(), None
            except RemitError as error:
                if str(self._broken) != str(error):
                    log.warning("a release cannot go on", deployment=self.deployment.key, error=str(error))
                pause, self._broken = _RETRY_SECONDS, error
            self._looks += 1
            async with self._looked:
                self._looked.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due.wait()

    async def _look(self) -> float:
        """One look, and one step. Gives seconds until the next."""
        wish, now = self._wish, datetime.datetime.now(datetime.UTC)
        if wish is None:
            return LOOK_SECONDS
        deployment = self.deployment.model_copy(update={"spec": wish.snapshot.spec})
        request = self._requests[0] if self._requests else None
        desired = Desired(
            snapshot=wish.snapshot,
            revisions=await self.place.revisions.all(),
            request=request,
            problem=self.problem(deployment, wish.material),
            deleted=self._removing,
        )
        observed = replace(await self.place.target.observe(), hooks=dict(self._hooks), error=self._error)
        desired = await look_ahead(self.place, desired, self.state, observed)
        decision = next_step(desired, observed, self.state, now)
        status = status_after(desired, observed, decision, self.status, generation=wish.number, now=now)
        if isinstance(decision.step, Finish):
            await self._record(deployment, decision)
        await self._write(status)
        answer = decision.state.answer
        if request is not None and answer is not None and answer.id == request.id:
            self._requests.remove(request)
            await self.audit.append_async(recording.answer(deployment, answer, self.who))
        if isinstance(decision.step, Wait):
            return next_look(decision.step, observed, now)
        return await self._perform(deployment, decision, wish.material)

    async def _perform(self, deployment: Deployment, decision: Decision, material: Material) -> float:
        step = decision.step
        try:
            if not isinstance(step, Finish) and self._error is None:  # one that is tried again is on record already
                await self._record(deployment, decision)
            await carry_out(self.place, step, material)
            match step:
                case RunHook(key=key, hook=hook) if key not in self._hooks:
                    self._hooks[key] = HookView("Running")
                    task = asyncio.create_task(self._hook(key, hook))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                case Finish(outcome="Deleted", reason=reason):
                    await (self.place.target.remove() if reason == "Deleted" else self.place.target.abandon())
                    await self.place.revisions.clear()
                    await self._wishes.clear()
                    await asyncio.to_thread(self._file.unlink, missing_ok=True)
                    self._wish, self.status = None, DeploymentStatus()
                case Finish():
                    for task in self._running:
                        task.cancel()
                    self._hooks.clear()
                    await keep_only(self.place, decision.state)
                case Retire() if decision.state.releasing is None:
                    await keep_only(self.place, decision.state)
        except DeploymentError as error:
            self._error = step_error(step, error)
            return _RETRY_SECONDS
        self._error = None
        return 0.0

    async def _hook(self, key: HookKey, hook: Hook) -> None:
        try:
            self._hooks[key] = await self.run_hook(key, hook)
        except RemitError as error:
            self._hooks[key] = HookView("Failed", str(error))
        self.wake()

    async def _record(self, deployment: Deployment, decision: Decision) -> None:
        """What cannot be recorded must not happen."""
        release = decision.state.release
        event = recording.step(deployment, self.who, decision.step, release.revision if release else None)
        if event is not None:
            await self.audit.append_async(event)

    async def _write(self, status: DeploymentStatus) -> None:
        if status != self.status or not self._file.exists():
            await asyncio.to_thread(private.write, self._file, status.model_dump_json(by_alias=True).encode())
            self.status = status
