"""Tests when a waiting Deployment is reconciled again."""

from __future__ import annotations

import datetime

import pytest

from remit.release.clock import LOOK_SECONDS, REST_SECONDS, next_look
from remit.release.model import ObservedState
from remit.release.steps import Wait

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
WATCHED, SILENT = ObservedState(watched=True), ObservedState()
SETTLED = Wait("Settled", "nothing to do", held=True)


def test_at_rest_a_target_that_tells_of_changes_is_left_alone() -> None:
    assert next_look(SETTLED, WATCHED, NOW) == REST_SECONDS
    assert next_look(SETTLED, SILENT, NOW) == LOOK_SECONDS


def test_a_release_that_goes_on_is_looked_at_often_on_every_target() -> None:
    waiting = Wait("Unhealthy", "0 of 2 instances are healthy")
    assert next_look(waiting, WATCHED, NOW) == next_look(waiting, SILENT, NOW) == LOOK_SECONDS


@pytest.mark.parametrize(("left", "pause"), [(1.5, 1.5), (60, LOOK_SECONDS), (0, 0.05), (-5, 0.05)])
def test_what_waits_for_a_moment_is_looked_at_then(left: float, pause: float) -> None:
    until = NOW + datetime.timedelta(seconds=left)
    assert next_look(Wait("Baking", "watched", until), WATCHED, NOW) == pause
