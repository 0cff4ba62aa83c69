"""A report, made of what the release remembers and of what was seen. Pure."""

from __future__ import annotations

from dataclasses import replace

from remit.api.deploymentstatus import DeploymentStatus, PipelineState, Release, ReleaseReport, StageStatus
from remit.release.report.model import Evidence, Report, StageTime, Subject
from remit.release.report.wording import duration, rough


def owed(before: PipelineState, after: PipelineState, told: ReleaseReport | None) -> Release | None:
    """The release that ended and has no report yet; `told` is what status says of the last one that has.

    A newer release may have begun between the two memories: then it is the one before.
    """
    begun = is_another(before.release, after.release)
    release = before.release if begun and before.release is not None and before.release.outcome else after.release
    if release is None or release.outcome is None:
        return None
    done = told is not None and (told.revision, told.started_at) == (release.revision, release.started_at)
    return None if done else release


def is_another(before: Release | None, after: Release | None) -> bool:
    """Whether `after` is not the same release gone on."""
    if before is None or after is None:
        return before is not after
    return (before.revision, before.started_at) != (after.revision, after.started_at)


def compose(subject: Subject, release: Release, evidence: Evidence) -> Report:
    """The report of a release that has ended."""
    return Report(
        subject=subject,
        revision=release.revision,
        artifact=release.artifact,
        slot=release.slot,
        strategy=release.strategy,
        rollback=release.rollback,
        outcome=str(release.outcome),
        reason=release.reason,
        message=release.message,
        started_at=release.started_at,
        finished_at=max(release.finished_at or release.started_at, release.started_at),
        stages=tuple(_timed(record) for record in release.stages if record.name != "Retire"),
        restarts=evidence.restarts or 0,
        served=None if release.requests is None else (release.requests, release.failed_requests or 0),
        evidence=evidence,
    )


def brief(report: Report, ref: str) -> ReleaseReport:
    """The summary of the report for status. `ref` is where the whole of it is."""
    probed = report.evidence.probed
    return ReleaseReport(
        revision=report.revision,
        started_at=report.started_at,
        stage_seconds={stage.name: stage.seconds for stage in report.stages if stage.seconds is not None},
        switch_milliseconds=None if report.switch_milliseconds is None else round(report.switch_milliseconds, 1),
        requests_during_switch=probed.requests if probed else 0,
        failed_during_switch=probed.failed if probed else 0,
        requests_in_bake=report.served[0] if report.served else None,
        failed_in_bake=report.served[1] if report.served else None,
        restarts=report.restarts,
        missing=list(report.evidence.missing),
        ref=ref,
    )


def reported(status: DeploymentStatus, short: ReleaseReport) -> DeploymentStatus:
    """The status with a report in it, as that of the last release and as that of its revision."""
    history = tuple(
        replace(record, report=short) if record.revision == short.revision else record for record in status.history
    )
    pipeline = replace(status.pipeline, history=history)
    return status.model_copy(update={"report": short, "history": history, "pipeline": pipeline})


def sentence(report: Report, ref: str) -> str:
    """A sentence about the release for its Event."""
    probed, switch = report.evidence.probed, report.switch_milliseconds
    parts = [
        f"revision {report.revision}: {report.outcome} after {rough(report.seconds)}",
        "" if switch is None else f"the switch took {duration(switch / 1000)}",
        f"{probed.failed} of {probed.requests} requests of the probe failed" if probed else "",
        "{1} of {0} requests of the new side failed".format(*report.served) if report.served else "",
        f"{report.restarts} restarts",
        f"the whole report is in {ref}" if ref else "",
    ]
    return "; ".join(filter(None, parts))


def _timed(record: StageStatus) -> StageTime:
    started, finished = record.started_at, record.finished_at
    took = max(0.0, (finished - started).total_seconds()) if started and finished else None
    return StageTime(record.name, record.state, started, took, record.message)
