"""Tests schedules at clock changes: `following` and `latest` against an oracle that examines every minute."""

from __future__ import annotations

import datetime
import itertools
import zoneinfo
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from remit.api.executiontask import Schedule
from remit.execution.cron import following, latest
from support import soaking

UTC = datetime.UTC
MINUTE = datetime.timedelta(minutes=1)
AROUND = datetime.timedelta(hours=5)

FIXED = (
    "15,45 2 * * *",
    "30 2 * * *",
    "0 3 * * *",
    "0 0 * * *",
    "30 1 * * *",
    "15 1-3 * * *",
    "0-59/20 0-4 * * *",
    "45 23 * * *",
    "0 0 30 12 *",
)
BY_THE_CLOCK = ("30 * * * *", "*/20 * * * *", "*/15 2 * * *", "*/30 0 * * *", "45 */2 * * *")


# ---------------------------------------------------------------- the oracle


def numbers(field: str, low: int, high: int) -> set[int]:
    """Returns the numbers that a field names."""
    named: set[int] = set()
    for part in field.split(","):
        words, _, step = part.partition("/")
        first, dash, last = words.partition("-")
        begin, end = (low, high) if words == "*" else (int(first), int(last if dash else first))
        named |= set(range(begin, end + 1, int(step or 1)))
    return named


@dataclass
class Oracle:
    """An oracle for expressions without names and weekdays, minute by minute."""

    cron: str

    def __post_init__(self) -> None:
        minute, hour, day, month, weekday = self.cron.split()
        assert weekday == "*"
        self.minutes, self.hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.days, self.months = numbers(day, 1, 31), numbers(month, 1, 12)
        self.by_the_clock = minute.startswith("*") or hour.startswith("*")

    def shows(self, local: datetime.datetime) -> bool:
        """Returns whether the expression names this local time."""
        return (
            local.minute in self.minutes
            and local.hour in self.hours
            and local.day in self.days
            and local.month in self.months
        )

    def ticks(self, minutes: list[datetime.datetime]) -> list[datetime.datetime]:
        """Returns the ticks among consecutive minutes, which are aware of their zone, after the first one."""
        found = []
        for before, now in itertools.pairwise(minutes):
            due = self.shows(now) and (self.by_the_clock or not now.fold)
            if not self.by_the_clock:
                due = due or any(map(self.shows, skipped(before, now)))
            if due:
                found.append(now.astimezone(UTC))
        return found


def skipped(before: datetime.datetime, now: datetime.datetime) -> Iterator[datetime.datetime]:
    """Yields the local times that the clock skipped between two consecutive minutes."""
    shown = before.replace(tzinfo=None) + MINUTE
    while shown < now.replace(tzinfo=None):
        yield shown
        shown += MINUTE


# ---------------------------------------------------------------- the changes of clocks


def changes(zone: zoneinfo.ZoneInfo, first: int, last: int) -> Iterator[datetime.datetime]:
    """Yields the first minutes, in UTC, at which the zone has another offset than an hour before."""
    moment = datetime.datetime(first, 1, 1, tzinfo=UTC)
    step, end = datetime.timedelta(days=7), datetime.datetime(last + 1, 1, 1, tzinfo=UTC)
    while moment < end:
        if offset(moment, zone) != offset(moment + step, zone):
            low, high = moment, moment + step
            while high - low > MINUTE:
                middle = low + (high - low) // MINUTE // 2 * MINUTE
                low, high = (middle, high) if offset(middle, zone) == offset(low, zone) else (low, middle)
            yield high
        moment += step


def offset(moment: datetime.datetime, zone: zoneinfo.ZoneInfo) -> datetime.timedelta:
    return moment.astimezone(zone).utcoffset() or datetime.timedelta()


def kinds() -> list[tuple[str, datetime.datetime]]:
    """Returns one example of each kind of change: when by the clock, and by how much."""
    first, last = (1975, 2037) if soaking() else (2020, 2027)
    found: dict[object, tuple[str, datetime.datetime]] = {}
    for name in sorted(zoneinfo.available_timezones()):
        zone = zoneinfo.ZoneInfo(name)
        for change in changes(zone, first, last):
            shown = (change - MINUTE).astimezone(zone)
            by = offset(change, zone) - offset(change - MINUTE, zone)
            kind = (name, change) if soaking() else (shown.hour, shown.minute, by)
            found.setdefault(kind, (name, change))
    # The largest skip, and one of half an hour.
    named = {"Pacific/Apia": (2011, 12), "Australia/Lord_Howe": (2026, 10)}
    for name, (year, month) in named.items():
        for change in changes(zoneinfo.ZoneInfo(name), year, year):
            if change.month == month:
                found[name] = (name, change)
    return list(found.values())


@pytest.mark.no_cover
def test_following_and_latest_agree_with_a_look_at_every_minute() -> None:
    seen = kinds()
    gaps = {name for name, change in seen if name in {"Pacific/Apia", "Australia/Lord_Howe"}}
    assert len(seen) > 20, "there are many ways to set a clock"
    assert len(gaps) == 2
    for name, change in seen:
        zone = zoneinfo.ZoneInfo(name)
        start = change - AROUND - (datetime.timedelta(days=1) if name == "Pacific/Apia" else datetime.timedelta())
        count = int((change + AROUND - start) / MINUTE)
        minutes = [(start + index * MINUTE).astimezone(zone) for index in range(count)]
        for cron in (*FIXED, *BY_THE_CLOCK):
            expected = Oracle(cron).ticks(minutes)
            schedule = Schedule.model_validate({"cron": cron, "timeZone": name})
            found, moment = [], minutes[0].astimezone(UTC)
            while (moment := following(schedule, moment)) <= minutes[-1]:
                found.append(moment)
            where = f"{cron} in {name} around {change}"
            assert found == expected, where
            for index, tick in enumerate(expected):
                after = expected[index + 1] if index + 1 < len(expected) else minutes[-1].astimezone(UTC) + MINUTE
                for now in (tick, tick + datetime.timedelta(seconds=59), after - datetime.timedelta(seconds=1)):
                    assert latest(schedule, now, minutes[0]) == expected[bisect_right(expected, now) - 1], (
                        f"{where}, at {now}"
                    )


@pytest.mark.parametrize(
    ("cron", "zone", "day", "runs"),
    [
        ("15,45 2 * * *", "Europe/Paris", (2026, 3, 29), ["03:00"]),
        ("*/15 2 * * *", "Europe/Paris", (2026, 3, 29), []),
        ("15 2,3 * * *", "Europe/Paris", (2026, 3, 29), ["03:00", "03:15"]),
        ("30 2 * * *", "Europe/Paris", (2026, 10, 25), ["02:30"]),
        ("30 * * * *", "Australia/Lord_Howe", (2026, 4, 5), ["00:30", "01:30", "01:30", "02:30"]),
    ],
)
def test_what_the_documentation_says(cron: str, zone: str, day: tuple[int, int, int], runs: list[str]) -> None:
    schedule = Schedule.model_validate({"cron": cron, "timeZone": zone})
    local = zoneinfo.ZoneInfo(zone)
    moment = (datetime.datetime(*day, tzinfo=local) - MINUTE).astimezone(UTC)
    end = datetime.datetime(*day, 3, 30, tzinfo=local).astimezone(UTC)
    found = []
    while (moment := following(schedule, moment)) < end:
        found.append(f"{moment.astimezone(local):%H:%M}")
    assert found == runs
