"""The trace of a release: a span for the whole, and one for each stage. The tasks of its hooks continue it. Pure."""

from __future__ import annotations

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import Outcome, Release, StageName
from remit.api.resource import ObjectMeta
from remit.telemetry.tracecontext import Span, TraceContext, derived_id

NAME = "release"
"""The name of the span of the whole release."""
_GOOD: frozenset[Outcome] = frozenset({"Promoted", "Superseded"})


def root_of(metadata: ObjectMeta, release: Release) -> TraceContext:
    """The context of the span of the whole release. The same before and after status was written and read again, which
    cuts the time of its start to whole seconds."""
    of = metadata.uid, release.revision, int(release.started_at.timestamp())
    return TraceContext(derived_id(16, *of), derived_id(8, *of, "release"))


def stage_of(metadata: ObjectMeta, release: Release, stage: StageName) -> TraceContext:
    """The context of the span of a stage, which need not have ended."""
    root = root_of(metadata, release)
    return root.child(f"{root.trace_id:032x}", stage)


def spans_of(deployment: Deployment, release: Release) -> list[Span]:
    """Returns the spans of a release that has ended, the root span first; empty for a release in progress."""
    metadata, ended = deployment.metadata, release.finished_at
    if release.outcome is None or ended is None or not metadata.uid:
        return []
    root, failure = root_of(metadata, release), release.failure
    wanted = release.outcome in _GOOD or (failure is not None and failure.asked)
    error = "" if wanted else (failure.reason if failure else release.reason) or release.outcome
    attributes: dict[str, str | int | float | bool] = {
        "k8s.namespace.name": metadata.namespace,
        "remit.deployment.name": metadata.name,
        "remit.deployment.uid": metadata.uid,
        "remit.release.revision": release.revision,
        "remit.release.strategy": release.strategy,
        "remit.release.outcome": release.outcome,
    }
    if error:
        attributes["error.type"] = error
    start = release.started_at
    spans = [Span(NAME, root, None, start, max(start, ended), attributes, error)]
    for stage in release.stages:
        if stage.started_at is None:
            continue
        failed = error or "StageFailed" if stage.state == "Failed" else ""
        about = {"remit.release.stage": stage.name, **({"error.type": failed} if failed else {})}
        end = max(stage.started_at, stage.finished_at or ended)
        context = stage_of(metadata, release, stage.name)
        spans.append(Span(f"stage {stage.name}", context, root, stage.started_at, end, about, failed))
    return spans
