"""Cron expressions in time zones. Pure.

Where a zone's clock is set, Debian's cron decides. An expression whose minute and hour both do not begin with `*` names
times of the day: those that are skipped run once, right after the gap, however many it skips; those that are repeated
run the first time only. Any other follows the clock: what it does not show is not run, and what it shows twice is run
twice.
"""

from __future__ import annotations

import datetime
import difflib
import zoneinfo
from collections.abc import Iterator
from typing import Final

from cronsim import CronSim, CronSimError

from remit.api.executiontask import Schedule
from remit.errors import InvalidInput

_FIELDS: Final = 5
_MINUTE: Final = datetime.timedelta(minutes=1)
_WEEK: Final = datetime.timedelta(days=7)
"""No zone changes its clock twice within this time."""


def check(schedule: Schedule) -> None:
    """Raises `InvalidInput` naming the field."""
    zone_of(schedule)
    if len(schedule.cron.split()) != _FIELDS:
        raise InvalidInput(
            f"{schedule.cron!r} has not five fields: minute, hour, day of month, month, day of week",
            field="spec.schedule.cron",
        )
    try:
        next(CronSim(schedule.cron, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)))
    except CronSimError as error:
        raise InvalidInput(f"{schedule.cron!r}: {error}", field="spec.schedule.cron") from None
    except StopIteration:
        raise InvalidInput(f"{schedule.cron!r} names a day that never comes", field="spec.schedule.cron") from None


def zone_of(schedule: Schedule) -> zoneinfo.ZoneInfo:
    """Raises `InvalidInput`."""
    try:
        return zoneinfo.ZoneInfo(schedule.time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        close = _closest(schedule.time_zone)
        hint = f"did you mean {close}?" if close else "use an IANA name such as Europe/Paris"
        raise InvalidInput(
            f"{schedule.time_zone!r} is no time zone that this host knows; {hint}", field="spec.schedule.timeZone"
        ) from None


def _closest(name: str) -> str | None:
    """The zone whose whole name, or else whose city, is spelled most alike."""
    known = {zone.lower(): zone for zone in sorted(zoneinfo.available_timezones())}
    cities = {zone.rpartition("/")[2]: whole for zone, whole in known.items()}
    wanted = name.strip().lower().replace(" ", "_")
    for names, word in ((known, wanted), (cities, wanted.rpartition("/")[2])):
        if close := difflib.get_close_matches(word, names, n=1, cutoff=0.75):
            return names[close[0]]
    return None


def following(schedule: Schedule, after: datetime.datetime) -> datetime.datetime:
    """The first tick after `after`, in UTC."""
    zone, moment = zone_of(schedule), after.astimezone(datetime.UTC)
    of_the_day = not any(field.startswith("*") for field in schedule.cron.split()[:2])
    offset = _offset(moment, zone)
    while True:
        found = next(CronSim(schedule.cron, _shown(moment, offset))).replace(tzinfo=datetime.UTC) - offset
        change = _first_change(moment, found, offset, zone)
        if change is not None:
            if of_the_day and _skips(schedule, change, zone):
                return change
            # Continue from the minute before the change, with the offset that applies after it.
            moment, offset = change - _MINUTE, _offset(change, zone)
        elif of_the_day and found.astimezone(zone).fold:
            moment = found
        else:
            return found


def latest(schedule: Schedule, now: datetime.datetime, since: datetime.datetime) -> datetime.datetime | None:
    """The last tick after `since` and not after `now`, in UTC: halved, so that no number of missed ticks costs much."""
    if following(schedule, since) > now:
        return None
    low, high = since.astimezone(datetime.UTC), now.astimezone(datetime.UTC)
    while high - low > _MINUTE:
        middle = low + (high - low) / 2
        low, high = (middle, high) if following(schedule, middle) <= now else (low, middle)
    return following(schedule, low)


def _shown(moment: datetime.datetime, offset: datetime.timedelta) -> datetime.datetime:
    """The time that a clock of that offset shows."""
    return (moment + offset).replace(tzinfo=None)


def _offset(moment: datetime.datetime, zone: zoneinfo.ZoneInfo) -> datetime.timedelta:
    return moment.astimezone(zone).utcoffset() or datetime.timedelta()


def _first_change(
    after: datetime.datetime, until: datetime.datetime, offset: datetime.timedelta, zone: zoneinfo.ZoneInfo
) -> datetime.datetime | None:
    """The first full minute after the one of `after`, and not after `until`, at which the offset is another."""
    for low, high in _weeks(after.replace(second=0, microsecond=0), until):
        if _offset(high, zone) != offset:
            while high - low > _MINUTE:
                middle = low + (high - low) // _MINUTE // 2 * _MINUTE
                low, high = (low, middle) if _offset(middle, zone) != offset else (middle, high)
            return high
    return None


def _weeks(start: datetime.datetime, end: datetime.datetime) -> Iterator[tuple[datetime.datetime, datetime.datetime]]:
    while start < end:
        stop = min(start + _WEEK, end)
        yield start, stop
        start = stop


def _skips(schedule: Schedule, change: datetime.datetime, zone: zoneinfo.ZoneInfo) -> bool:
    """Whether the change skips a time that the expression names."""
    last = _shown(change - _MINUTE, _offset(change - _MINUTE, zone))
    return next(CronSim(schedule.cron, last)) < _shown(change, _offset(change, zone))
