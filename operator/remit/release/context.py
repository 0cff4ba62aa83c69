"""The input of every rule of the pipeline, and the few questions that they all ask."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from remit.api.deploymentstatus import LiveSide, PipelineState, Release, RequestCount
from remit.api.slots import Slot, other
from remit.api.strategy import Strategy
from remit.release.model import Desired, ObservedState, Revision, SlotView

CRASH_LIMIT = 5
"""Restarts of one instance after which a side that was never healthy is given up before its deadline."""

FAILURES_THAT_COUNT = 5
"""A few failed requests are no share of anything: a service that gets ten an hour is not judged by one of them."""

FAILURE_PERCENT = 5
"""How many of the requests may fail where the spec does not say. A healthy service is well below 1 %."""

MARK_SECONDS = 60
"""How far the counts are apart that are remembered. Requests are judged over the last one to two of these, too: an
outage late in a long bake is not outweighed by all that went well before."""


def seconds(count: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=count)


@dataclass(frozen=True, slots=True)
class Fail:
    """A stage cannot be passed. `reason` is a stable CamelCase word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Context:
    """The desired state, the observed state, the pipeline's own state, and the time, during a release."""

    desired: Desired
    observed: ObservedState
    state: PipelineState
    release: Release
    now: datetime.datetime

    def remember(self, release: Release) -> PipelineState:
        """The pipeline's state with this release in it."""
        return replace(self.state, release=release)

    @property
    def slot(self) -> Slot:
        """The new side."""
        return self.release.slot

    @property
    def new(self) -> SlotView:
        return self.observed.slot(self.slot)

    @property
    def old(self) -> SlotView:
        return self.observed.slot(other(self.slot))

    @property
    def live(self) -> LiveSide | None:
        """The side to return to."""
        return self.state.live

    @property
    def switched(self) -> bool:
        """Whether requests were told to go to the new side, all of them."""
        return self.observed.live == self.slot and self.observed.share == 0

    @property
    def strategy(self) -> Strategy:
        """The settings as they are now, but of the type that the release began with."""
        now = self.desired.spec.strategy
        return now if now.type == self.release.strategy else Strategy.model_construct(type=self.release.strategy)

    @property
    def paused(self) -> bool:
        """Whether the release is paused. A rollback is never paused, because it is requested during an outage."""
        return (self.desired.spec.paused or self.state.paused) and not self.release.rollback

    @property
    def deadline(self) -> datetime.datetime:
        """When there was no progress for too long."""
        return self.release.clock + seconds(self.desired.spec.progress_deadline_seconds)

    def revision(self, number: int) -> Revision | None:
        """A revision that is kept, or the one that is being released."""
        kept = self.desired.revisions.get(number)
        if (
            kept is None
            and number == self.release.revision
            and self.release.spec_hash == self.desired.snapshot.spec_hash
        ):
            return Revision(number, self.desired.snapshot)
        return kept

    def ready(self, replicas: int) -> bool:
        """Whether the new side has so many healthy instances."""
        return self.observed.ready(self.release.revision, self.slot, replicas)

    @property
    def lost(self) -> bool:
        """An instance of the new side that was healthy has failed; one that has just begun may be slow."""
        return self.new.failed > 0 and self.new.healthy < self.release.best

    @property
    def served(self) -> tuple[int, int] | None:
        """Requests to the new side since it went live, and how many of them failed. None if nothing counts requests."""
        before, failed = self.release.requests_before, self.release.failed_before or 0
        return None if before is None else self._served_since(before, failed)

    def _served_since(self, before: int, failed: int) -> tuple[int, int] | None:
        new = self.new
        if new.requests is None or new.revision != self.release.revision:
            return None
        if new.requests < before:  # another proxy replaced the previous one and counts from 0
            return new.requests, new.failed_requests
        return new.requests - before, max(0, new.failed_requests - failed)

    def marked(self) -> Release | None:
        """The release with the counts of now, once those that it remembers are old; None: they are not."""
        new, marks = self.new, self.release.marks
        if new.requests is None or (marks and self.now < marks[-1].at + seconds(MARK_SECONDS)):
            return None
        mark = RequestCount(at=self.now, requests=new.requests, failed=new.failed_requests)
        return replace(self.release, marks=(*marks[-1:], mark))

    def failing(self) -> Fail | None:
        """Too many of the requests fail, of those since it went live or of the latest."""
        spans = [(self.served, "since the switch")]
        if self.release.marks:
            first = self.release.marks[0]
            lately = f"since {first.at:%H:%M:%S} UTC"
            spans.append((self._served_since(first.requests, first.failed), lately))
        percent = self.desired.spec.stages.failure_threshold_percent
        if percent is None:
            percent = FAILURE_PERCENT
        for served, when in spans:
            requests, failed = served or (0, 0)
            if failed >= FAILURES_THAT_COUNT and 100 * failed > percent * requests:
                return Fail("RequestsFailed", f"{failed} of {requests} requests {when} failed; {percent} % may")
        return None

    def crashing(self) -> Fail | None:
        """The new side keeps crashing before it was ever healthy, or will never start."""
        if self.new.hopeless:
            return Fail("CannotStart", f"its instances cannot start: {self.new.hopeless}")
        restarts = max((each.restarts for each in self.new.instances.values()), default=0)
        if restarts < CRASH_LIMIT:
            return None
        return Fail("CrashLoop", f"an instance was restarted {restarts} times{self.detail}")

    def crashed(self) -> Fail | None:
        """An instance of the new side has ended since it became healthy, whether or not it runs again by now."""
        if self.new.revision != self.release.revision:
            return None
        first, now = self.release.incarnations, self.new.instances
        crashed = [now[name] for name in sorted(first) if name in now and now[name].incarnation != first[name]]
        if not crashed:
            return None
        count = f"{len(crashed)} of its instances" if len(crashed) > 1 else "an instance"
        if all(each.incarnation for each in crashed):
            return Fail("InstanceRestarted", f"{count} crashed after being healthy, and was restarted{self.detail}")
        return Fail("InstanceFailed", f"{count} crashed after being healthy{self.detail}")

    @property
    def detail(self) -> str:
        """Describe what is wrong with the new side's instances, as the end of a sentence."""
        return f": {self.new.message}" if self.new.message else ""
