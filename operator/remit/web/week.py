"""A week of schedules: what ran on each day and how it ended, and what will run. Days are those of UTC. Pure."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from remit.web.calendar import MOST_TICKS, ticks
from remit.web.rows import TaskRow

DAYS: Final = 7
_MOST_TIMES: Final = 3
"""Runs of one day that are told by their times. Of more, their number is told."""
_FIRST, _LAST = datetime.date(1970, 1, 5), datetime.date(9990, 1, 1)
_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Day:
    date: datetime.date
    is_today: bool

    @property
    def name(self) -> str:
        return f"{self.date:%a} {self.date.day} {self.date:%b}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One schedule on one day."""

    ended: Mapping[str, int] = field(default_factory=dict)
    """How many of its runs have which phase."""
    times: Sequence[str] = ()
    """When it will run, if that is seldom."""
    planned: str = ""
    """How often it will run; empty if it will not."""


def monday_of(text: str, now: float) -> datetime.date:
    """Give the Monday of the week that has the date `text`, or of this week if that is no date."""
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        day = _date(now)
    day = min(max(day, _FIRST), _LAST)
    return day - datetime.timedelta(days=day.weekday())


def days_of(monday: datetime.date, now: float) -> list[Day]:
    dates = (monday + datetime.timedelta(days=number) for number in range(DAYS))
    return [Day(date, date == _date(now)) for date in dates]


def cells_of(row: TaskRow, runs: Iterable[TaskRow], days: Sequence[Day], now: float) -> list[Cell]:
    """Give what the schedule `row` did and will do on each of `days`. `runs` are its own."""
    ended: dict[datetime.date, Counter[str]] = {}
    for run in runs:
        ended.setdefault(_date(run.started or run.created), Counter())[run.phase] += 1
    return [_cell(row, dict(sorted(ended.get(day.date, {}).items())), day.date, now) for day in days]


def _cell(row: TaskRow, ended: Mapping[str, int], date: datetime.date, now: float) -> Cell:
    begin = _minute(date)
    end = begin + _MINUTES
    since = max(begin - 1, int(now // 60))  # the minute after it is the first one
    if row.suspended or since >= end:
        return Cell(ended)
    found = ticks(row.cron, row.zone, since, end - since) or ()
    if len(found) <= _MOST_TIMES:
        times = tuple(f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%H:%M}" for at in found)
        return Cell(ended, times, f"{len(found)}" if found else "")
    return Cell(ended, (), f"{MOST_TICKS} or more" if len(found) == MOST_TICKS else f"{len(found)}")


def _date(moment: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).date()


def _minute(date: datetime.date) -> int:
    return (date - datetime.date(1970, 1, 1)).days * _MINUTES
