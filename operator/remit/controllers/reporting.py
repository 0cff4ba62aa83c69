"""Writes reports of releases: observations are kept until the release has ended.

A report delays nothing: what cannot be measured or written is missing from it, and the report says so.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import structlog

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import PipelineState, Release, ReleaseReport
from remit.api.slots import SLOTS, Slot
from remit.controllers.probing import ProbeRun
from remit.errors import DeploymentError
from remit.execution.recording import NODE
from remit.kube.client import Object
from remit.kube.events import Recorder
from remit.release.model import Desired, ObservedState
from remit.release.report import (
    Evidence,
    Measured,
    Proxied,
    Report,
    Sample,
    Subject,
    Switching,
    Usage,
    brief,
    compose,
    folder,
    is_another,
    owed,
    sentence,
)
from remit.release.report.probing import Entry, entry, summed
from remit.release.report.wording import duration
from remit.release.steps import Decision, Drain, Retire, Scale, Step, Switch
from remit.release.target import Target

log = structlog.get_logger(__name__)

_SAMPLE_SECONDS: Final = 1.0
_MOST_SAMPLES: Final = 600
"""A release that waits for days is sampled ever more seldom."""
_MOST_SWITCHINGS: Final = 100
_USAGE_SECONDS: Final = 5.0
"""How long a report waits for the instances' resource usage, in seconds. An engine may take a second or half a minute
to answer, or not answer at all."""

_Id = tuple[int, datetime.datetime]


@dataclass
class _Recording:
    """The observations of one release so far."""

    id: _Id
    missing: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    every: float = _SAMPLE_SECONDS
    switchings: list[Switching] = field(default_factory=list)
    under_way: float | None = None
    """The moment of the last command to switch, in seconds of `time.monotonic`, until it was seen to hold."""
    restarts: int | None = None
    probe_runs: list[ProbeRun] = field(default_factory=list)
    url: str = ""
    out_of_reach: bool = False
    """Whether nothing answers the operator at `url`."""
    sampled_at: datetime.datetime | None = None
    asking: asyncio.Task[None] | None = None
    """What the instances use."""
    asked_at: datetime.datetime | None = None
    over: bool = False

    def note(self, missing: str) -> None:
        if missing not in self.missing:
            self.missing.append(missing)

    def goes_on(self, now: datetime.datetime) -> bool:
        """Whether more is about to be known of it."""
        in_time = self.asked_at is not None and (now - self.asked_at).total_seconds() < _USAGE_SECONDS
        asking = self.asking is not None and not self.asking.done() and in_time
        return asking or any(not probe_run.over for probe_run in self.probe_runs)

    def add(self, sample: Sample) -> None:
        self.samples.append(sample)
        if len(self.samples) > _MOST_SAMPLES:
            del self.samples[1::2]
            self.every *= 2

    def evidence(self, now: datetime.datetime) -> Evidence:
        requests = [request for probe_run in self.probe_runs for request in probe_run.requests]
        origin = now - datetime.timedelta(seconds=time.monotonic())
        return Evidence(
            samples=tuple(sorted(self.samples, key=lambda sample: sample.at)),
            switchings=tuple(self.switchings),
            probed=summed(self.url, requests, origin),
            restarts=self.restarts,
            missing=tuple(self.missing),
        )


@dataclass
class Reports:
    """All that are being recorded, by the key of their Deployment. `wake` is called when one can be written."""

    state_dir: Path
    events: Recorder
    wake: Callable[[str], None]
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    _recordings: dict[str, _Recording] = field(default_factory=dict)
    _written: dict[str, tuple[_Id, ReleaseReport]] = field(default_factory=dict)
    _ending: set[asyncio.Task[None]] = field(default_factory=set)
    """Tasks in the background that only the operator's own shutdown awaits."""

    async def look(
        self,
        deployment: Deployment,
        obj: Object,
        target: Target,
        observed: ObservedState,
        before: PipelineState,
        after: PipelineState,
    ) -> ReleaseReport | None:
        """Keep what is seen now. Gives the report that is due for status, once there is one."""
        key, release = deployment.key, after.release
        recording = self._recordings.get(key)
        if recording is not None and release is not None and recording.id == _id(release) and not recording.over:
            # Before the report is written, because this observation may be the end of a switch.
            self._see(recording, release, observed)
        due = await self._due(deployment, obj, before, after)
        if release is None:
            return due
        recording = self._recordings.get(key)
        if recording is None or recording.id != _id(release):
            if release.outcome is not None:
                return due
            recording = self._recordings[key] = _Recording(_id(release))
            if not is_another(before.release, release):
                late = duration((self.now() - release.started_at).total_seconds())
                recording.note(
                    f"The operator was started anew, {late} after the release began: what it had seen before of"
                    " resources, switches and the probe is lost."
                )
        if not recording.over:
            self._sample(recording, target, observed)
        return due

    async def before(
        self, deployment: Deployment, target: Target, desired: Desired, observed: ObservedState, decision: Decision
    ) -> None:
        """A step is about to be taken: where it touches what is live, a probe begins."""
        recording, release = self._recordings.get(deployment.key), decision.state.releasing
        if recording is None or release is None or desired.deleted or not _touches_live(decision.step, observed):
            return
        if recording.out_of_reach:
            return
        if recording.probe_runs and not recording.probe_runs[-1].over:
            recording.probe_runs[-1].go_on()
            return
        at = _entry(desired, observed, release)
        if at is None:
            recording.note(_unprobed(observed))
            return
        recording.url = at.url
        probe_run = ProbeRun(at.url, lambda: self.wake(deployment.key), _token(at, target))
        await probe_run.began()
        if deployment.spec.target.kubernetes is not None and not probe_run.answered:
            recording.out_of_reach = True
            recording.note(f"No probe ran: nothing answered the operator at {at.url.partition('?')[0]}.")
            self._ending.add(ending := probe_run.stop())
            ending.add_done_callback(self._ending.discard)
            return
        recording.probe_runs.append(probe_run)

    def switching(self, key: str, step: Switch, observed: ObservedState) -> None:
        """The command to switch is given now. The same one again is still the first one.

        A first release switches nothing: no request went anywhere before.
        """
        recording = self._recordings.get(key)
        if recording is None or observed.live is None or len(recording.switchings) >= _MOST_SWITCHINGS:
            return
        last = recording.switchings[-1] if recording.switchings else None
        if recording.under_way is None or last is None or (last.to, last.share) != (step.live, step.share):
            recording.switchings.append(Switching(self.now(), step.live, step.share))
            recording.under_way = time.monotonic()

    async def forget(self, key: str) -> None:
        """Discards what is not written yet."""
        self._written.pop(key, None)
        if recording := self._recordings.pop(key, None):
            await _end(recording)

    async def remove(self, deployment: Deployment) -> None:
        """Leave no report of a Deployment that is gone."""
        await self.forget(deployment.key)
        await asyncio.to_thread(folder.clear, self._folder(deployment))

    async def close(self) -> None:
        for key in list(self._recordings):
            await self.forget(key)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _due(
        self, deployment: Deployment, obj: Object, before: PipelineState, after: PipelineState
    ) -> ReleaseReport | None:
        key = deployment.key
        release = owed(before, after, deployment.status.report)
        if release is None:
            if after.release is not None and after.release.outcome is not None:
                await self.forget(key)
            return None
        if (written := self._written.get(key)) and written[0] == _id(release):
            # The report was written; a status that could not be written is no reason to write it again.
            return written[1]
        recording = self._recordings.get(key)
        if recording is None or recording.id != _id(release):
            missing = "The operator was started anew before it could write this report: all that it had seen is lost."
            evidence = Evidence(missing=(missing,))
        else:
            if release is after.release and recording.goes_on(self.now()):
                return None
            await _end(recording)
            evidence = recording.evidence(self.now())
        report = compose(self._subject(deployment), release, evidence)
        kept = {record.revision for record in after.history} | {release.revision}
        ref = await asyncio.to_thread(self._write, self._folder(deployment), report, kept)
        short = brief(report, ref)
        self._written[key] = _id(release), short
        self.events.record(obj, "Normal", "Reported", sentence(report, ref))
        return short

    def _write(self, where: Path, report: Report, kept: set[int]) -> str:
        try:
            path = folder.write(where, report)
            folder.keep(where, kept)
        except OSError as error:
            log.warning("the report of a release could not be written", folder=str(where), error=str(error))
            return ""
        return str(path)

    def _see(self, recording: _Recording, release: Release, observed: ObservedState) -> None:
        if observed.unreachable:
            return
        new = observed.slot(release.slot)
        if new.revision == release.revision:
            recording.restarts = max(recording.restarts or 0, new.restarts)
        whole = observed.live is not None and observed.converged and observed.slot(observed.live).healthy > 0
        if not whole and recording.probe_runs and not recording.probe_runs[-1].over:
            recording.probe_runs[-1].go_on()
        if release.stage in {"PostPromotion", "Bake"} and recording.probe_runs and not recording.probe_runs[-1].over:
            recording.probe_runs[-1].watch()
        last = recording.switchings[-1] if recording.switchings else None
        if recording.under_way is None or last is None:
            return
        if observed.converged and (observed.live, observed.share) == (last.to, last.share):
            took = (time.monotonic() - recording.under_way) * 1000
            recording.switchings[-1] = replace(last, milliseconds=took)
            recording.under_way = None

    def _sample(self, recording: _Recording, target: Target, observed: ObservedState) -> None:
        now = self.now()
        if observed.unreachable or (
            recording.sampled_at and (now - recording.sampled_at).total_seconds() < recording.every
        ):
            return
        recording.sampled_at = now
        healthy = {slot: view.healthy for slot in SLOTS if (view := observed.slot(slot)).revision is not None}
        if not isinstance(target, Measured):
            recording.note("This target does not tell what its instances use.")
        elif recording.asking is None or recording.asking.done():
            recording.asked_at = now
            recording.asking = asyncio.create_task(_measured(recording, target, healthy, now), name="release usage")
            self._ending.add(recording.asking)
            recording.asking.add_done_callback(self._ending.discard)
            return
        recording.add(Sample(now, healthy, {}))

    def _subject(self, deployment: Deployment) -> Subject:
        metadata = deployment.metadata
        return Subject(metadata.namespace, metadata.name, metadata.uid, deployment.spec.target.kind, NODE)

    def _folder(self, deployment: Deployment) -> Path:
        return folder.of(self.state_dir, deployment.metadata.namespace, deployment.metadata.name)


def _id(release: Release) -> _Id:
    return release.revision, release.started_at


def _touches_live(step: Step, observed: ObservedState) -> bool:
    match step:
        case Switch():
            return True
        case Scale(slot=slot) | Drain(slot=slot) | Retire(slot=slot):
            return slot == observed.live
        case _:
            return False


def _entry(desired: Desired, observed: ObservedState, release: Release) -> Entry | None:
    """The entry that is probed during this release; None if nothing could be reached both before and after."""
    live = desired.revisions.get(observed.slot(observed.live).revision or 0) if observed.live else None
    if live is None:
        return None
    new = desired.revisions.get(release.revision)
    return entry(new.snapshot.spec if new else desired.snapshot.spec, live.snapshot.spec, observed.address)


def _token(at: Entry, target: Target) -> str:
    """The token by which the probe is known at `at`; empty if nothing keeps it from the program."""
    if not at.http or not isinstance(target, Proxied):
        return ""
    try:
        return target.probe_token()
    except (DeploymentError, OSError) as error:
        log.warning("the requests of the probe count as those of users", error=str(error))
        return ""


def _unprobed(observed: ObservedState) -> str:
    if observed.live is None:
        return "Nothing was live before, so no probe ran through the switch."
    return "No probe ran: there is no published port that both sides have."


async def _measured(
    recording: _Recording, target: Measured, healthy: Mapping[Slot, int], now: datetime.datetime
) -> None:
    """Add a sample, as soon as it is known what the instances use."""
    usage: Mapping[Slot, Usage] = {}
    try:
        usage = await target.usage()
    except DeploymentError as error:
        log.info("what a release uses cannot be told", error=str(error))
    recording.add(Sample(now, healthy, usage))


async def _end(recording: _Recording) -> None:
    recording.over = True
    if recording.asking is not None:
        recording.asking.cancel()  # not awaited: its end does not matter
    await asyncio.gather(*(probe_run.end() for probe_run in recording.probe_runs if not probe_run.over))
