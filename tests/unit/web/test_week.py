"""A week of schedules."""

from __future__ import annotations

import datetime

import pytest

from pagerows import row
from remit.web import week
from remit.web.calendar import MOST_TICKS
from remit.web.rows import TaskRow

NOW = datetime.datetime(2026, 12, 2, 10, 30, tzinfo=datetime.UTC).timestamp()  # a Wednesday
MONDAY = datetime.date(2026, 11, 30)
DAYS = week.days_of(MONDAY, NOW)


def schedule(cron: str, zone: str = "UTC", **more: bool) -> TaskRow:
    return row("dump", "Scheduled", cron=cron, zone=zone, **more)


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "monday"),
    [
        ("this", "2026-11-30"),
        ("", "2026-11-30"),
        ("2026-12-06", "2026-11-30"),
        ("2026-12-07", "2026-12-07"),
        ("0001-01-01", "1970-01-05"),
        ("9999-12-31", "9990-01-01"),
        ("<b>", "2026-11-30"),
    ],
)
def test_any_date_leads_to_its_week(text: str, monday: str) -> None:
    found = week.monday_of(text, NOW)
    assert found.isoformat() == monday
    assert found.weekday() == 0
    assert len(week.days_of(found, NOW)) == week.DAYS


def test_days_are_named_and_today_is_known() -> None:
    assert [day.name for day in DAYS][:3] == ["Mon 30 Nov", "Tue 1 Dec", "Wed 2 Dec"]
    assert [day.is_today for day in DAYS] == [False, False, True, False, False, False, False]


def test_days_have_what_ran_and_what_will() -> None:
    runs = [
        row("dump-1", "Succeeded", started=at("2026-11-30T02:00:00Z"), schedule="dump"),
        row("dump-2", "Failed", started=at("2026-11-30T14:00:00Z"), schedule="dump"),
        row("dump-3", "Succeeded", started=at("2026-12-02T02:00:00Z"), schedule="dump"),
        row("dump-0", "Succeeded", started=at("2026-11-29T02:00:00Z"), schedule="dump"),
    ]
    cells = week.cells_of(schedule("0 2,14 * * *"), runs, DAYS, NOW)
    assert cells[0] == week.Cell({"Failed": 1, "Succeeded": 1})
    assert cells[1] == week.Cell()
    assert cells[2] == week.Cell({"Succeeded": 1}, ("14:00",), "1")
    assert cells[3] == week.Cell({}, ("02:00", "14:00"), "2")


def test_the_schedule_has_its_own_time_zone() -> None:
    (*_, thursday, _, _, _) = week.cells_of(schedule("0 2 * * *", "Europe/Paris"), [], DAYS, NOW)
    assert thursday.times == ("01:00",)


def test_the_first_and_the_last_minute_are_of_the_day() -> None:
    cells = week.cells_of(schedule("0,59 0,23 * * *"), [], DAYS, NOW)
    assert cells[3].planned == "4"
    assert week.cells_of(schedule("0 0 * * *"), [], DAYS, NOW)[3].times == ("00:00",)
    assert week.cells_of(schedule("59 23 * * *"), [], DAYS, NOW)[3].times == ("23:59",)


def test_many_runs_of_a_day_are_counted() -> None:
    cells = week.cells_of(schedule("0 * * * *"), [], DAYS, NOW)
    assert [cell.planned for cell in cells] == ["", "", "13", "24", "24", "24", "24"]
    assert not any(cell.times for cell in cells)
    often = week.cells_of(schedule("* * * * *"), [], DAYS, NOW)
    assert often[3].planned == f"{MOST_TICKS} or more"


@pytest.mark.parametrize(
    "none", [schedule("0 2 * * *", suspended=True), schedule("61 * * * *"), schedule("0 2 * * *", "../etc")]
)
def test_what_does_not_run_has_no_plan(none: TaskRow) -> None:
    assert week.cells_of(none, [], DAYS, NOW) == [week.Cell()] * week.DAYS


def test_a_far_week_is_shown_without_a_plan_or_with_one() -> None:
    days = week.days_of(week.monday_of("9999-12-31", NOW), NOW)
    assert len(week.cells_of(schedule("0 2 * * *"), [], days, NOW)) == week.DAYS
