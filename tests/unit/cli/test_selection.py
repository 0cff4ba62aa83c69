"""Tests which objects `remit get` shows, and in which order."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.describe.selection import Selection, order, phases, unusual

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def task(name: str, created: int, version: int, phase: str = "", **status: Any) -> dict[str, Any]:
    """Returns a task. `created` is in hours before NOW."""
    moment = (NOW - datetime.timedelta(hours=created)).isoformat()
    metadata = {"name": name, "namespace": "d", "creationTimestamp": moment, "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"phase": phase, **status} if phase else {}}


TASKS = [
    task("b", 3, 10, "Failed", exitCode=10),
    task("a", 2, 9, "Succeeded", exitCode=0),
    task("d", 1, 100),
    task("c", 9, 11, "Failed", exitCode=9, completionTime=NOW.isoformat()),
]


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("", "abcd"),
        ("name", "abcd"),
        ("created", "dabc"),
        ("changed", "dcba"),
        ("phase", "bcda"),
        (".status.exitCode", "acbd"),
        ("{.metadata.name}", "abcd"),
        (".status.exitCode.deeper", "abcd"),
    ],
)
def test_objects_come_in_the_order_that_is_asked_for(written: str, names: str) -> None:
    chosen = Selection(order=order(written) if written else "").of(TASKS)
    assert "".join(obj["metadata"]["name"] for obj in chosen) == names


def test_phases_and_time_choose() -> None:
    assert phases("failed, DENIED", ["tasks"]) == {"Failed", "Denied"}
    assert "Healthy" in phases("healthy,Failed", ["tasks", "deployments"])
    failed = Selection(phases("Failed,Pending", ["tasks"])).of(TASKS)
    assert [obj["metadata"]["name"] for obj in failed] == ["b", "c", "d"]
    recent = Selection(since=NOW - datetime.timedelta(hours=2)).of(TASKS)
    assert [obj["metadata"]["name"] for obj in recent] == ["a", "c", "d"]


def test_unusual_tasks_are_those_that_say_so() -> None:
    def conditions(status: str) -> list[dict[str, str]]:
        return [{"type": "Finished", "status": "True"}, {"type": "Unusual", "status": status, "message": "took 41s; …"}]

    slow = task("slow", 1, 1, "Succeeded", conditions=conditions("True"))
    tasks = [*TASKS, slow, task("usual", 1, 1, "Succeeded", conditions=conditions("False"))]
    assert Selection(unusual=True).of(tasks) == [slow]
    assert Selection(frozenset({"Failed"}), unusual=True).of(tasks) == []
    assert [unusual(obj) for obj in tasks] == ["", "", "", "", "took 41s; …", ""]


@pytest.mark.parametrize("written", ["size", ".", ".a..b", "$.a", ""])
def test_an_order_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is none of name, created"):
        order(written)
