"""Tests the work of a controller: failed work is kept, and no other work is lost with it."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from remit.controlplane.controllers.workset import MOST_STEPS, WorkSet
from remit.controlplane.storage import StoreFailed


def test_a_failed_item_stays_and_the_others_are_worked_on() -> None:
    work: WorkSet[str] = WorkSet("tests")
    done: list[str] = []

    def step(item: str) -> None:
        if item == "b" and len(done) < 2:
            raise KeyError(item)
        done.append(item)
        if item == "c":
            work.add("d")

    for item in ("a", "b", "c", "a"):
        work.add(item)
    with capture_logs() as logs:
        assert not work.process(step)
    assert done == ["a", "c"] and len(work) == 1 and work.retry() and len(work) == 2
    assert [(entry["event"], entry["item"]) for entry in logs] == [("controller_step_failed", "b")]
    assert work.process(step) and sorted(done) == ["a", "b", "c", "d"] and not len(work)


def test_what_goes_on_failing_is_logged_once() -> None:
    work: WorkSet[str] = WorkSet("tests")

    def step(item: str) -> None:
        raise KeyError(item)

    work.add("a")
    with capture_logs() as logs:
        for _ in range(3):
            assert not work.process(step) and work.retry()
    assert len(logs) == 1


def test_a_round_of_work_is_bounded() -> None:
    work: WorkSet[int] = WorkSet("tests")
    for item in range(MOST_STEPS + 5):
        work.add(item)
    assert work.process(lambda item: None) and len(work) == 5


def test_a_failed_store_ends_the_work() -> None:
    work: WorkSet[str] = WorkSet("tests")
    work.add("a")

    def step(item: str) -> None:
        raise StoreFailed("disk full")

    with pytest.raises(StoreFailed):
        work.process(step)
