"""Tests circuits: which hosts are not contacted for a while, and how many are remembered."""

from __future__ import annotations

import pytest

from remit.backends import breaker as module
from remit.backends.breaker import FAILURES, OPEN_SECONDS, Breaker
from remit.backends.failure import OperationFailed


def test_who_never_failed_leaves_nothing() -> None:
    breaker = Breaker("host")
    for number in range(10):
        breaker.enter(f"h{number}", 0.0)
        breaker.unknown(f"h{number}")
    assert not breaker._circuits


def test_the_names_that_failed_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CIRCUITS", 2)
    trips: list[None] = []
    breaker = Breaker("host", on_trip=lambda: trips.append(None))
    for now, name in enumerate(["a", "b"] + ["a"] * (FAILURES - 1)):
        breaker.enter(name, now)
        breaker.failed(name, now)
    breaker.failed("c", 10.0)
    assert list(breaker._circuits) == ["a", "c"]
    with pytest.raises(OperationFailed, match="failed 5 times"):
        breaker.enter("a", 11.0)
    breaker.enter("a", 11.0 + OPEN_SECONDS)
    breaker.succeeded("a")
    assert breaker.open() == [] and len(trips) == 1
