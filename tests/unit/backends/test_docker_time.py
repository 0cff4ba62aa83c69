"""Tests how much of its time a container has used when an operator adopts it. Clock changes have no effect."""

from __future__ import annotations

import datetime

import pytest

from remit.backends.base import Handle
from remit.backends.docker.container import time_had

STARTED = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
RECORDED = Handle(0, 0, "this-boot", container="c", begun=1000.0)
ZONE = datetime.timezone(datetime.timedelta(hours=2))


def engine(seconds: float, zone: datetime.tzinfo = datetime.UTC) -> str:
    """Returns the engine's time so many seconds after the start."""
    return (STARTED + datetime.timedelta(seconds=seconds)).astimezone(zone).isoformat()


@pytest.mark.parametrize("set_by", [0, 3600, -3600])
def test_a_clock_that_was_set_meanwhile_changes_nothing(set_by: float) -> None:
    assert time_had(RECORDED, "this-boot", 1020.0, "2026-03-01T12:00:00.123456789Z", engine(20 + set_by)) == 20


@pytest.mark.parametrize(
    ("recorded", "boot"),
    [(None, "this-boot"), (RECORDED, "another-boot"), (Handle(0, 0, "", container="c"), "this-boot")],
)
@pytest.mark.parametrize("zone", [datetime.UTC, ZONE])
def test_what_another_machine_or_version_started_has_the_engines_time(
    recorded: Handle | None, boot: str, zone: datetime.tzinfo
) -> None:
    assert time_had(recorded, boot, 5.0, "2026-03-01T12:00:00Z", engine(20, zone)) == 20
    assert time_had(recorded, boot, 5.0, "2026-03-01T12:00:00Z", engine(-20, zone)) == 0


def test_an_engine_that_does_not_tell_the_time_has_ours() -> None:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert time_had(None, "", 0.0, now, "") < 3600
