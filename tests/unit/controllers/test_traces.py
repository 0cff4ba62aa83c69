"""Tests spans of tasks and releases, which are made from status."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import Outcome, Release, ReleaseFailure, StageStatus
from remit.api.executiontask import ExecutionTask
from remit.controllers import releasetraces, tasktraces
from remit.telemetry.tracecontext import Span

UID = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def at(seconds: float) -> datetime.datetime:
    return NOW + datetime.timedelta(seconds=seconds)


def attempt(number: int, start: float, end: float | None, reason: str = "Completed", **more: Any) -> dict[str, Any]:
    ended = {} if end is None else {"finishedAt": at(end).isoformat()}
    return {
        "number": number,
        "id": f"run-{number}",
        "startedAt": at(start).isoformat(),
        "reason": reason,
        **ended,
        **more,
    }


def task(*attempts: dict[str, Any], annotations: dict[str, str] | None = None, **status: Any) -> ExecutionTask:
    return ExecutionTask.parse(
        {
            "metadata": {
                "name": "t1",
                "namespace": "team-a",
                "uid": UID,
                "creationTimestamp": NOW.isoformat(),
                "annotations": annotations or {},
            },
            "spec": {
                "command": {"argv": ["mysqldump", "--password=argv-secret"]},
                "env": [{"name": "TOKEN", "value": "env-secret"}],
            },
            "status": {
                "phase": "Succeeded",
                "backend": "process",
                "attempts": list(attempts),
                "attemptCount": len(attempts),
                "startTime": attempts[0]["startedAt"] if attempts else None,
                "completionTime": at(60).isoformat(),
                **status,
            },
        }
    )


def spans(task: ExecutionTask) -> list[Span]:
    return tasktraces.spans_of(task, task.status)


def test_one_trace_from_creation_to_end_across_retries() -> None:
    whole, *parts = spans(
        task(
            attempt(1, 2, 5, "ExitCode", exitCode=3),
            attempt(2, 10, 60, exitCode=0),
            queuedAt=at(1).isoformat(),
            exitCode=0,
        )
    )
    assert f"{whole.context.trace_id:032x}" == UID.replace("-", "")
    assert (whole.name, whole.start, whole.end, whole.parent, whole.error) == ("task command", NOW, at(60), None, "")
    assert [(p.name, p.start, p.end) for p in parts] == [
        ("pending", at(0), at(1)),
        ("queue", at(1), at(2)),
        ("attempt", at(2), at(5)),
        ("attempt", at(10), at(60)),
        ("backoff", at(5), at(10)),
    ]
    assert all(part.parent == whole.context for part in parts)
    assert len({span.context.span_id for span in (whole, *parts)}) == 6
    assert {span.context.trace_id for span in parts} == {whole.context.trace_id}
    assert [part.error for part in parts] == ["", "", "ExitCode", "", ""]
    assert whole.attributes["k8s.namespace.name"] == "team-a"
    assert whole.attributes["remit.task.name"] == "t1"
    assert whole.attributes["remit.attempts"] == 2
    assert parts[2].attributes["process.exit.code"] == 3
    assert parts[2].attributes["error.type"] == "ExitCode"


def test_the_same_status_gives_the_same_spans() -> None:
    ended = task(attempt(1, 2, 60))
    assert spans(ended) == spans(ExecutionTask.model_validate(ended.model_dump(by_alias=True, mode="json")))


def test_a_trace_goes_on_with_that_of_whoever_asked_and_a_bad_one_is_ignored() -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    whole, *parts = spans(task(attempt(1, 2, 60), annotations={"remit.dev/traceparent": given}))
    assert whole.parent is not None
    assert str(whole.parent) == given
    assert {f"{span.context.trace_id:032x}" for span in (whole, *parts)} == {"0af7651916cd43dd8448eb211c80319c"}
    assert not any(span.context.sampled for span in (whole, *parts))
    for bad in ("", "00-zz", given.upper(), f"{given}-more"):
        assert spans(task(attempt(1, 2, 60), annotations={"remit.dev/traceparent": bad})) == spans(
            task(attempt(1, 2, 60))
        )


def test_what_failed_has_its_code_and_no_text_that_may_hold_a_secret() -> None:
    error = {"reason": "NotAllowed", "category": "Denied", "message": "no rule matches: dump argv-secret"}
    output = {"stdoutTail": "output-secret", "stderrTail": "output-secret"}
    policy = {"name": "data", "decision": "Denied", "rule": "commands.deny[0]"}
    message = "no rule matches: argv-secret"
    denied = task(phase="Denied", error=error, output=output, policy=policy, message=message)
    whole, pending = spans(denied)
    assert (whole.error, whole.attributes["error.type"]) == ("NotAllowed", "NotAllowed")
    assert whole.attributes["remit.error.category"] == "Denied"
    assert (pending.name, pending.start, pending.end) == ("pending", NOW, at(60))
    told = json.dumps([{"name": span.name, "error": span.error, **span.attributes} for span in (whole, pending)])
    assert "secret" not in told
    assert "mysqldump" not in told


@pytest.mark.parametrize("clock", [-3600, -61, 0.0, 61, 3600])
def test_no_span_ends_before_it_starts_whatever_the_clocks_say(clock: float) -> None:
    odd = task(
        attempt(1, clock, clock - 5), attempt(2, clock - 9, None), queuedAt=at(clock).isoformat(), phase="Failed"
    )
    found = spans(odd)
    assert all(span.start <= span.end for span in found)
    assert found[0].error == "Failed"


def test_attempts_that_status_does_not_have_any_more_are_left_out() -> None:
    parts = spans(task(attempt(1, 1, 2, "ExitCode"), attempt(7, 20, 30, "ExitCode"), attempt(8, 31, 60)))[1:]
    numbers = [part.attributes["remit.attempt.number"] for part in parts if part.name == "attempt"]
    assert numbers == [1, 7, 8]
    assert [(part.start, part.end) for part in parts if part.name == "backoff"] == [(at(30), at(31))]


def test_what_has_not_ended_and_what_is_a_schedule_has_no_trace() -> None:
    going = task(attempt(1, 2, None), completionTime=None, phase="Running")
    assert spans(going) == []
    body = task().model_dump(by_alias=True, mode="json")
    body["spec"]["schedule"] = {"cron": "* * * * *"}
    assert spans(ExecutionTask.parse(body)) == []


def deployment() -> Deployment:
    metadata = {"name": "shop", "namespace": "team-a", "uid": UID}
    spec = {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["serve", "argv-secret"]}}}
    return Deployment.parse({"metadata": metadata, "spec": spec})


def release(outcome: Outcome | None = "Promoted", revision: int = 2, **changes: Any) -> Release:
    stages = (
        StageStatus(name="Prepare", state="Done", started_at=at(0), finished_at=at(4)),
        StageStatus(name="PrePromotion", state="Done", started_at=at(4), finished_at=at(9)),
        StageStatus(name="Bake", state="Waiting"),
    )
    finished = at(10) if outcome else None
    made = Release(
        revision=revision, slot="blue", started_at=NOW, clock=NOW, outcome=outcome, finished_at=finished, stages=stages
    )
    return replace(made, **changes)


def test_a_release_has_a_span_for_each_stage_that_began() -> None:
    whole, *stages = releasetraces.spans_of(deployment(), release())
    assert (whole.name, whole.start, whole.end, whole.parent) == ("release", NOW, at(10), None)
    assert [(s.name, s.start, s.end) for s in stages] == [
        ("stage Prepare", at(0), at(4)),
        ("stage PrePromotion", at(4), at(9)),
    ]
    assert all(stage.parent == whole.context for stage in stages)
    assert stages[1].context == releasetraces.stage_of(deployment().metadata, release(), "PrePromotion")
    assert releasetraces.spans_of(deployment(), release(None)) == []


def test_each_release_has_a_trace_of_its_own_which_a_restart_does_not_change() -> None:
    metadata = deployment().metadata
    roots = [
        releasetraces.root_of(metadata, each) for each in (release(), release(revision=3), release(started_at=at(1)))
    ]
    assert len({root.trace_id for root in roots}) == 3
    in_memory = release(started_at=at(0.7))  # status has whole seconds
    assert releasetraces.root_of(metadata, in_memory) == roots[0]


@pytest.mark.parametrize(
    ("outcome", "asked", "error"),
    [
        ("Promoted", None, ""),
        ("Superseded", True, ""),
        ("Aborted", True, ""),
        ("RolledBack", True, ""),
        ("RolledBack", False, "CrashLoop"),
        ("Failed", False, "CrashLoop"),
        ("Failed", None, "Failed"),
    ],
)
def test_a_release_failed_unless_somebody_wanted_its_end(outcome: Outcome, asked: bool | None, error: str) -> None:
    failure = None
    if asked is not None:
        failure = ReleaseFailure(outcome=outcome, reason="CrashLoop", message="says argv-secret", at=at(9), asked=asked)
    ended = release(outcome, failure=failure, message="says argv-secret")
    found = releasetraces.spans_of(deployment(), ended)
    assert found[0].error == error
    assert "secret" not in json.dumps([{"error": span.error, **span.attributes} for span in found])


def test_the_stage_that_failed_is_marked() -> None:
    stages = (
        StageStatus(name="Prepare", state="Done", started_at=at(0), finished_at=at(4)),
        StageStatus(name="Health", state="Failed", started_at=at(4), finished_at=at(3)),
    )
    failure = ReleaseFailure(outcome="Failed", reason="CrashLoop", at=at(9))
    found = releasetraces.spans_of(deployment(), release("Failed", failure=failure, stages=stages))
    assert [span.error for span in found] == ["CrashLoop", "", "CrashLoop"]
    assert all(span.start <= span.end for span in found)
    assert all(first.context != second.context for first, second in pairwise(found))
