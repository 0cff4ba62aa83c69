"""Tests `remit errors`: what is counted, from which sources, and how it is shown."""

from __future__ import annotations

import asyncio
import datetime
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import commandline
from remit.cli import failurereport
from remit.cli.failuretally import Failure, Tally, of_deployment, of_release_record, of_task, of_task_record
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, TASKS, Resource
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def ago(hours: float) -> datetime.datetime:
    return NOW - datetime.timedelta(hours=hours)


def failed(code: str = "ExitCode", hours: float = 1.0, policy: str = "data", name: str = "dump") -> Failure:
    return Failure("task", "team-a", name, ago(hours), "ExitCode", code, policy, f"{name} exited with code 1")


def task(name: str, phase: str = "Failed", hours: float = 1.0, **status: Any) -> dict[str, Any]:
    ended = ago(hours).isoformat().replace("+00:00", "Z")
    return {
        "metadata": {"name": name, "namespace": "team-a", "uid": f"uid-{name}"},
        "status": {"phase": phase, "completionTime": ended, **status},
    }


def denied(name: str, hours: float = 1.0) -> dict[str, Any]:
    error = {"reason": "NotAllowed", "category": "Denied", "message": "policy data allows no dropdb"}
    return task(name, "Denied", hours, error=error, policy={"name": "data", "rule": ""})


class Server:
    """The pages of a list from an API server."""

    def __init__(self, tasks: list[dict[str, Any]], deployments: list[dict[str, Any]] | ApiError | None = None) -> None:
        self.objects = {TASKS: [tasks], DEPLOYMENTS: [deployments or []]}

    async def pages(self, resource: Resource, namespace: str | None = None) -> AsyncGenerator[Any, None]:
        for page in self.objects[resource]:
            if isinstance(page, ApiError):
                raise page
            yield page


def report(server: Any, trail: Path | None = None, namespace: str | None = None) -> failurereport.Report:
    return asyncio.run(failurereport.found(server, namespace, NOW - DAY, NOW, trail))


def groups(found: failurereport.Report) -> dict[tuple[str, str, str], tuple[int, int]]:
    return {key: (group.count, group.before) for key, group in found.tally.groups.items()}


def test_failures_count_by_category_code_and_policy_now_and_before() -> None:
    tally = Tally(NOW - DAY, NOW)
    for failure in (
        failed(),
        failed(hours=2, name="older"),
        failed(hours=30),
        failed(hours=49),
        failed(policy="other"),
    ):
        tally.add(failure)
    tally.add(failed(hours=-1))  # the clock is ahead
    first, second = tally.ranked()
    assert (first.policy, first.count, first.before, first.trend) == ("data", 2, 1, "up")
    assert (second.policy, second.count, second.before) == ("other", 1, 0)
    assert first.newest is not None
    assert first.newest.name == "dump"
    assert (tally.count, tally.before) == (3, 1)


@pytest.mark.parametrize(("now", "before", "trend"), [(1, 2, "down"), (2, 1, "up"), (1, 1, "same"), (0, 1, "down")])
def test_the_trend_is_against_the_equally_long_time_before(now: int, before: int, trend: str) -> None:
    tally = Tally(NOW - DAY, NOW)
    for _ in range(now):
        tally.add(failed())
    for _ in range(before):
        tally.add(failed(hours=25))
    (group,) = tally.ranked()
    assert group.trend == trend


def test_a_task_counts_once_it_has_failed() -> None:
    found = of_task(denied("drop"))
    assert found is not None
    assert (found.category, found.code, found.policy) == ("Denied", "NotAllowed", "data")
    assert (found.namespace, found.name, found.time) == ("team-a", "drop", ago(1))
    for phase in ("Succeeded", "Running", "Backoff", "Cancelled", "Scheduled"):
        assert of_task(task("other", phase)) is None
    assert of_task({"metadata": {"name": "new"}}) is None


def test_a_status_that_an_earlier_version_wrote_is_read_by_its_conditions() -> None:
    conditions = [{"type": "Succeeded", "reason": "Other"}, {"type": "Finished", "reason": "OOMKilled"}]
    found = of_task(task("old", error={"category": "Resources", "message": "m"}, conditions=conditions))
    assert found is not None
    assert (found.category, found.code) == ("Resources", "OOMKilled")
    bare = of_task(task("bare", "TimedOut"))
    assert bare is not None
    assert bare.code == "TimedOut"


def test_the_last_release_counts_with_its_reason_and_earlier_ones_with_their_end() -> None:
    eleven, ten, nine = (f"2026-03-01T{hour:02}:00:00Z" for hour in (11, 10, 9))
    history = [
        {"revision": 3, "artifact": "v3", "outcome": "RolledBack", "deployedAt": eleven, "durationSeconds": 60},
        {"revision": 2, "artifact": "v2", "outcome": "Failed", "deployedAt": ten},
        {"revision": 1, "artifact": "v1", "outcome": "Promoted", "deployedAt": nine},
        {"revision": 4, "artifact": "v4", "outcome": "InProgress"},
    ]
    last = {"revision": 3, "reason": "RequestsFailed", "message": "9 of 10 requests failed"}
    shop = {
        "metadata": {"name": "shop", "namespace": "web"},
        "status": {"history": history, "pipeline": {"release": last}},
    }
    (third, first), (second, other) = of_deployment(shop)
    assert (third, first.code, first.category, first.message) == (
        3,
        "RequestsFailed",
        "Release",
        "9 of 10 requests failed",
    )
    assert first.time == datetime.datetime(2026, 3, 1, 11, 1, tzinfo=datetime.UTC)
    assert (second, other.code, other.message) == (2, "Failed", "v2 (revision 2)")


def test_records_of_the_audit_trail_tell_the_same() -> None:
    place = {"time": "2026-03-01T11:00:00.5Z", "namespace": "team-a", "task": "gone", "uid": "u"}
    refused = of_task_record({**place, "kind": "decision", "verdict": "Denied", "reason": "NoPolicy", "policy": "p"})
    assert refused is not None
    assert (refused.category, refused.code, refused.policy) == ("Denied", "NoPolicy", "p")
    killed = of_task_record({**place, "kind": "execution", "verdict": "OOMKilled"})
    assert killed is not None
    assert (killed.category, killed.code) == ("Resources", "OOMKilled")
    for harmless in ("Completed", "Cancelled"):
        assert of_task_record({**place, "kind": "execution", "verdict": harmless}) is None
    assert of_task_record({**place, "kind": "decision", "verdict": "Allowed"}) is None
    assert of_task_record({"kind": "execution", "verdict": "OOMKilled", "time": "no time"}) is None
    back = of_release_record({**place, "kind": "release", "verdict": "RolledBack", "message": "CrashLoop: it crashed"})
    assert back is not None
    assert (back.category, back.code, back.message) == ("Release", "CrashLoop", "it crashed")
    assert of_release_record({**place, "kind": "release", "verdict": "Promoted", "message": "Promoted: live"}) is None


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Provides records of tasks that exist, that were deleted, and that are in another namespace."""
    path = tmp_path / "audit" / "audit.jsonl"
    log = AuditLog(path, clock=lambda: ago(1))
    for kind, name, uid, verdict, more in (
        ("decision", "drop", "uid-drop", "Denied", {"reason": "NotAllowed"}),
        ("decision", "gone", "u1", "Denied", {"reason": "NoPolicy", "category": "Denied"}),
        ("decision", "tried", "u2", "Allowed", {"policy": "data"}),
        ("execution", "tried", "u2", "ExitCode", {"category": "ExitCode"}),
        ("execution", "tried", "u2", "OOMKilled", {"category": "Resources"}),
        ("execution", "well", "u3", "ExitCode", {"category": "ExitCode"}),
        ("execution", "well", "u3", "Completed", {}),
        ("execution", "theirs", "u4", "Signal", {"category": "ExitCode", "namespace": "team-b"}),
        ("release", "shop", "s", "Failed", {"attempt": "revision 2", "message": "CannotStart: no"}),
    ):
        event = AuditEvent(kind=kind, task=name, uid=uid, verdict=verdict, **{"namespace": "team-a", **more})
        log.append(event)
    log.close()
    return path


def test_what_was_deleted_is_counted_from_the_audit_trail_once_and_as_it_ended(trail: Path) -> None:
    found = report(Server([denied("drop")]), trail, "team-a")
    assert groups(found) == {
        ("Denied", "NotAllowed", "data"): (1, 0),
        ("Denied", "NoPolicy", ""): (1, 0),
        ("Resources", "OOMKilled", "data"): (1, 0),
        ("Release", "CannotStart", ""): (1, 0),
    }
    assert found.trail == trail
    assert found.incomplete == []
    assert ("ExitCode", "Signal", "") in groups(report(Server([]), trail))


def test_it_says_what_it_could_not_count(tmp_path: Path) -> None:
    refused = ApiError("deployments is forbidden", status=403, reason="Forbidden")
    server = Server([denied("drop")])
    server.objects[DEPLOYMENTS] = [refused]  # type: ignore[list-item]
    found = report(server)
    assert groups(found) == {("Denied", "NotAllowed", "data"): (1, 0)}
    assert [each.partition(":")[0] for each in found.incomplete] == [
        "releases are not counted",
        "what was deleted meanwhile is not counted",
    ]
    assert "No such file" in report(Server([]), tmp_path / "audit.jsonl").incomplete[0]


def test_a_page_that_comes_again_is_not_counted_twice() -> None:
    server = Server([denied("drop")])
    server.objects[TASKS] *= 2
    assert groups(report(server)) == {("Denied", "NotAllowed", "data"): (1, 0)}


@pytest.mark.no_cover
def test_memory_does_not_grow_with_what_objects_hold() -> None:
    class Large(Server):
        async def pages(self, resource: Resource, namespace: str | None = None) -> AsyncGenerator[Any, None]:
            for page in range(20 if resource is TASKS else 0):
                yield [{**denied(f"{page}-{number}"), "spec": "x" * 8192} for number in range(500)]

    tracemalloc.start()
    try:
        found = report(Large([]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert groups(found) == {("Denied", "NotAllowed", "data"): (10_000, 0)}
    assert peak < 16 << 20  # the objects have 80 MiB


def test_lines_fit_on_a_narrow_terminal_and_drive_none() -> None:
    found = report(Server([]))
    found.tally.add(failed(code="EnvironmentNotAllowed", policy="a-policy-with-a-name-that-is-quite-long"))
    found.tally.add(Failure("release", "web", "shop", ago(2), "Release", "CrashLoop", "", f"\x1b[2J{'crashed ' * 40}"))
    told = list(failurereport.lines(found, 80))
    assert told[0] == "2 failed or denied in the last 24h, 0 in the 24h before"
    assert max(cell_len(line) for line in told) <= 80
    assert told[2].split() == ["COUNT", "TREND", "CATEGORY", "CODE", "POLICY"]
    assert told[3].split() == ["1", "↑", "0→1", "ExitCode", "EnvironmentNotAllowed", "a-policy-with-a-name-th…"]
    assert told[4].strip() == "team-a/dump 1h ago: dump exited with code 1"
    assert told[6].strip().startswith(r"web/deploy/shop 2h ago: \x1b[2Jcrashed")
    assert told[6].endswith("…")
    assert len(list(failurereport.lines(report(Server([])), 80))) == 1


def test_json_has_all_of_it() -> None:
    found = failurereport.as_json(report(Server([denied("drop"), denied("before", hours=30)])))
    assert (found["since"], found["until"]) == ("2026-02-28T12:00:00Z", "2026-03-01T12:00:00Z")
    assert (found["count"], found["countBefore"]) == (1, 1)
    (group,) = found["groups"]
    assert (group["category"], group["code"], group["policy"], group["trend"]) == (
        "Denied",
        "NotAllowed",
        "data",
        "same",
    )
    assert group["newest"]["time"] == "2026-03-01T11:00:00Z"
    assert found["auditTrail"] is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--since", "yesterday"], "'yesterday' is neither a time"),
        (["--since", "2999-01-01T00:00:00Z"], "is not in the past"),
        (["--since", "0001-01-02T00:00:00Z"], "--since"),
        (["--since", "999999999w"], "--since"),
        (["-A", "-n", "team-a"], "leave one out"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], told: str) -> None:
    result = commandline.invoke("errors", *arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert told in result.stderr
