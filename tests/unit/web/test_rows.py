"""Tests what is kept of a task, whatever its status contains."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.web.rows import PHASES, moment, slim, task_row

Object = dict[str, Any]


def task(name: str = "build", spec: Object | None = None, **status: Any) -> Object:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "7"}
    metadata["creationTimestamp"] = "2026-01-31T08:00:00Z"
    return {"metadata": metadata, "spec": spec or {"command": {"argv": ["make"]}}, "status": status}


def seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def test_a_row_says_where_a_task_stands() -> None:
    row = task_row(
        task(
            phase="Failed",
            backend="process",
            message="exited with 3",
            error={"reason": "ExitCode"},
            exitCode=3,
            attemptCount=2,
            startTime="2026-01-31T08:00:01.5Z",
            completionTime="2026-01-31T08:00:09Z",
            policy={"name": "data-team"},
        )
    )
    assert (row.phase, row.reason, row.operation, row.exit_code, row.attempts) == (
        "Failed",
        "ExitCode",
        "command",
        3,
        2,
    )
    assert row.ended == seconds("2026-01-31T08:00:09+00:00")
    assert row.path == "/tasks/default/build"


def test_a_waiting_task_says_for_what() -> None:
    row = task_row(task(phase="Queued", queue={"reason": "PolicyRate", "policy": "default/data-team"}))
    assert (row.reason, row.policy, row.exit_code) == ("PolicyRate", "data-team", None)


def test_a_schedule_and_its_run_know_each_other() -> None:
    assert task_row(task(spec={"command": {}, "schedule": {"cron": "* * * * *"}})).phase == "Scheduled"
    run = task("dump-28912", phase="Succeeded")
    owner = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "name": "dump",
        "uid": "1",
        "controller": True,
    }
    run["metadata"]["ownerReferences"] = [owner]
    assert task_row(run).family == "dump"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("build-42", "build"),
        ("run-echo-x7f2k", "run-echo"),
        ("a-1-2", "a"),
        ("nightly-dump", "nightly-dump"),
        ("v2", "v2"),
        (f"a{'-1' * 120}-1.a", f"a{'-1' * 120}-1.a"),  # parsing it takes no longer than other names
        ("-42", ""),
    ],
)
def test_names_that_were_counted_are_one_family(name: str, family: str) -> None:
    assert task_row(task(name)).family == family


def test_what_is_kept_is_little() -> None:
    big = task(output={"stdoutTail": "x" * 100_000}, message="y" * 10_000)
    kept = slim(big)
    assert set(kept) == {"metadata", "row"}
    assert len(kept["row"].message) < 300


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
_FIELDS = (
    *("phase", "operation", "backend", "reason", "message", "policy", "queue", "error", "conditions", "attemptCount"),
    *("exitCode", "queuedAt", "startTime", "completionTime", "nextRetryTime"),
)


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON | st.dictionaries(st.sampled_from(("name", "reason")), _JSON)))
def test_no_status_breaks_it(status: Object) -> None:
    row = task_row(task(**status))
    assert row.phase in PHASES
    assert isinstance(row.message, str)


@pytest.mark.parametrize("text", ["", "now", "2026-01-31", "2026-01-31T08:00:00", None, 3, "9" * 400])
def test_an_invalid_time_is_ignored(text: object) -> None:
    assert moment(text) is None


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-01-01T00:00:00", 5])
def test_what_no_clock_shows_is_no_time(text: object) -> None:
    """An Event with an invalid time must not prevent a page from being shown."""
    assert moment(text) is None
