"""Releases to one target of an agent: drives it for as long as the agent is open, and lets callers wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from remit.api.deploymentstatus import PipelineState
from remit.api.slots import Slot
from remit.errors import DeploymentError, RemitError
from remit.release.clock import LOOK_SECONDS
from remit.release.driver import ReleaseDriver
from remit.release.folderstore import DeployRequest, FolderStore
from remit.release.model import Snapshot
from remit.release.places import keeping_state
from remit.release.target import Material

log = structlog.get_logger(__name__)

_RETRY_SECONDS: Final = 1.0
_TEAR_DOWN_SECONDS: Final = 60.0
_UNREACHABLE: Final = "TargetUnreachable"


class ReleaseWorker:
    """Works on one event loop between `start` and `close`; what runs goes on after that, and the next one finds it."""

    def __init__(self, store: FolderStore, driver: ReleaseDriver) -> None:
        self.store, self.driver = store, driver
        self._failure: RemitError | None = None
        """Why the last step came to nothing, for whoever waits."""
        self._away_since: float | None = None
        """Since when each look finds the target out of reach, on the loop's clock."""
        self._looks, self._closed = 0, False
        self._loop: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._looked = asyncio.Condition()

    async def start(self) -> None:
        """Go on from where the one before stopped."""
        with keeping_state():
            await self.store.load()
        self._loop = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Let go; what runs goes on."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self.store.close()
        message = (
            "whoever released it was closed; what runs goes on, and the next one to have this target goes on with it"
        )
        self._closed, self._failure = True, DeploymentError(message, reason="Closed", retryable=True)
        async with self._looked:
            self._looked.notify_all()
        await self.driver.places.close()

    def wake(self) -> None:
        """Something changed: look now."""
        self._due.set()

    @property
    def state(self) -> PipelineState:
        return self.store.status.pipeline

    @property
    def latest(self) -> DeployRequest | None:
        """The request that was made last."""
        return self.store.latest

    async def remove(self) -> None:
        """Drain and stop all of it, and forget that it ever was; `close` is all that may follow."""
        if self.store.latest is not None:
            self.store.delete()
            self.wake()
            await self._until(lambda _: self.store.latest is None)

    async def look(self) -> None:
        """Wait until the target was observed once more. Raises what kept that look from its end."""
        before = self._looks
        self.wake()
        # A look that is in progress may have begun before this call.
        await self._until(lambda _: self._looks > before + 1)

    async def deploy(self, snapshot: Snapshot, material: Material) -> int:
        """Release it, and come back when it is live. Gives the number of this request.

        Raises DeploymentError where it did not come to that: what is live then, the status says.
        """
        await self._until(lambda state: state.releasing is None or state.releasing.failure is None)
        number = (await self.store.deploy(snapshot, material)).number
        state = self.state
        live = state.live.spec_hash if state.live else None
        if state.releasing is None and state.key == snapshot.spec_hash != live:
            # The same spec was declared before and rolled back; the caller wants it released nevertheless.
            self.store.ask("retry")
        await self._settled(number)
        self._check_live(lambda live: live == snapshot.spec_hash)
        return number

    async def rollback(self, number: int) -> None:
        """Return from request `number` to what was live before it. Raises DeploymentError."""
        deployed = (await self.store.deployed(number)).snapshot
        state, left = self.state, deployed.spec_hash
        current = state.releasing.spec_hash if state.releasing else state.live.spec_hash if state.live else ""
        if current != left:
            serving = self.store.status.active or "nothing"
            message = f"{deployed.artifact} is not live, so there is no way back from it; live is {serving}"
            raise DeploymentError(message, reason="NotLive")
        asked = self.store.ask("rollback")
        self.wake()
        await self._until(lambda state: state.answer is not None and state.answer.id == asked)
        answer = self.state.answer
        if answer is not None and not answer.accepted:
            raise DeploymentError(answer.message, reason="RollbackRefused")
        await self._settled(self.latest.number if self.latest else number)
        self._check_live(lambda live: live != left)

    async def _settled(self, number: int) -> None:
        """Wait until the requested release has ended. Raises DeploymentError where something newer was asked for."""
        self.wake()
        await self._until(lambda state: self._at_rest(state, number) or self._is_superseded(number))
        if self._is_superseded(number) and self.latest is not None:
            message = f"a newer deployment, {self.latest.snapshot.artifact}, took its place"
            raise DeploymentError(message, reason="Superseded")
        await self._torn_down()

    def _at_rest(self, state: PipelineState, number: int) -> bool:
        seen = self.store.status.observed_generation == number and not self.store.pending
        return seen and state.releasing is None and state.settled and state.rollback_to is None

    def _is_superseded(self, number: int) -> bool:
        return self.latest is not None and self.latest.number != number

    async def _torn_down(self) -> None:
        """Wait until the side of a failed release is empty: the program may end as soon as it hears of the failure."""
        release, live = self.state.release, self.state.live
        if release is None or (live is not None and live.slot == release.slot):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TEAR_DOWN_SECONDS):
                await self._until(lambda state: state.releasing is not None or self._is_empty(release.slot))

    def _is_empty(self, slot: Slot) -> bool:
        return all(side.name != slot for side in self.store.status.slots)

    def _check_live(self, right: Callable[[str], bool]) -> None:
        state = self.state
        if state.live is None or not right(state.live.spec_hash):
            last = state.release
            message = last.message if last and last.message else self.store.status.message
            raise DeploymentError(message, reason=last.reason if last and last.reason else "DeploymentFailed")

    async def _until(self, reached: Callable[[PipelineState], bool]) -> None:
        """Raises why the work cannot go on, where a look that began by now came to nothing; it is tried again. A target
        that is out of reach is waited for as long as a release may go without progress."""
        before = self._looks

        def why() -> RemitError | None:
            looked = self._looks > before + 1
            return (self._failure or self._away()) if looked or self._closed else None

        async with self._looked:
            await self._looked.wait_for(lambda: why() is not None or self._closed or reached(self.state))
        if (error := why()) is not None:
            raise error

    def _away(self) -> DeploymentError | None:
        """A target that was out of reach for too long. A deletion is given up by the pipeline."""
        deployment = self.store.deployment
        limit = deployment.spec.progress_deadline_seconds
        if self._away_since is None or deployment.metadata.deletion_timestamp is not None:
            return None
        if asyncio.get_running_loop().time() - self._away_since < limit:
            return None
        message = (
            f"{self.store.status.message}; it was tried for {limit} s (progressDeadlineSeconds). What was asked for"
            " goes on by itself once the target can be reached"
        )
        return DeploymentError(message, reason=_UNREACHABLE, retryable=True)

    def _note_reach(self) -> None:
        away = any(condition.reason == _UNREACHABLE for condition in self.store.status.conditions)
        if not away:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()

    async def _work(self) -> None:
        while True:
            self._due.clear()
            try:
                with keeping_state():
                    pause = await self._step()
                failure = self.store.failure
            except RemitError as error:
                pause, failure = _RETRY_SECONDS, error
            except Exception as error:  # waiting callers must get the exception
                log.exception("a release step failed", deployment=self.store.template.key)
                pause, failure = _RETRY_SECONDS, DeploymentError(f"a mistake of Remit's own: {error!r}")
            if failure is not None and str(self._failure) != str(failure):
                log.warning("a release cannot go on", deployment=self.store.template.key, error=str(failure))
            self._failure = failure
            self._note_reach()
            self._looks += 1
            async with self._looked:
                self._looked.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due.wait()

    async def _step(self) -> float:
        self.store.failure = None
        return LOOK_SECONDS if self.store.latest is None else await self.driver.step()
