"""Tests when schedules run in the next day."""

from __future__ import annotations

import pytest

from remit.web import calendar

MINUTE = 29_934_240  # 2026-11-30T16:00:00Z
NOW = MINUTE * 60.0


def test_a_daily_schedule_has_one_mark() -> None:
    assert calendar.ticks("0 2 * * *", "Europe/Paris", MINUTE) == ((MINUTE + 9 * 60) * 60.0,)
    drawn = str(calendar.day("default/dump", "0 2 * * *", "Europe/Paris", NOW))
    assert drawn.count('class="run"') == 1
    assert 'x="180.0"' in drawn
    assert "in the next 24 hours: 1 runs" in drawn


def test_a_schedule_of_each_minute_is_one_bar() -> None:
    drawn = str(calendar.day("default/often", "* * * * *", "UTC", NOW))
    assert (drawn.count('class="run"'), drawn.count('class="more"')) == (0, 1)


def test_a_schedule_that_does_not_come_has_no_mark() -> None:
    assert calendar.ticks("0 2 1 1 *", "UTC", MINUTE) == ()


@pytest.mark.parametrize(
    ("expression", "zone"), [("", "UTC"), ("61 * * * *", "UTC"), ("* * * * *", "../etc"), ("<b>", "")]
)
def test_what_is_no_schedule_is_not_drawn(expression: str, zone: str) -> None:
    assert str(calendar.day("x", expression, zone, NOW)) == ""
