"""When schedules run in the next day, as inline SVG. Pure."""

from __future__ import annotations

import datetime
from functools import lru_cache
from typing import Final

from markupsafe import Markup
from pydantic import ValidationError

from remit.api.executiontask import Schedule
from remit.errors import InvalidInput
from remit.execution import cron

HOURS: Final = 24
WIDTH: Final = 480.0
_HEIGHT: Final = 22
MOST_TICKS: Final = 200
"""Runs that are drawn one by one. More are drawn as one bar."""


@lru_cache(4096)
def ticks(expression: str, zone: str, minute: int, minutes: int = HOURS * 60) -> tuple[float, ...] | None:
    """Give when it runs, in seconds since 1970, in so many `minutes` after a minute, which is counted since 1970. Of
    more than `MOST_TICKS` runs the first ones. None for what is no schedule."""
    try:
        schedule = Schedule.model_validate({"cron": expression, "timeZone": zone})
        cron.check(schedule)
        at = datetime.datetime.fromtimestamp(minute * 60, datetime.UTC)
        end, found = at + datetime.timedelta(minutes=minutes), list[float]()
        while len(found) < MOST_TICKS and (at := cron.following(schedule, at)) < end:
            found.append(at.timestamp())
        return tuple(found)
    except (InvalidInput, ValidationError, StopIteration, OverflowError):
        return None


_FRAME: Final = Markup(
    '<svg class="day" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
)


def day(name: str, expression: str, zone: str, now: float) -> Markup:
    """The next 24 hours of one schedule."""
    begin = int(now // 60)
    found = ticks(expression, zone, begin)
    if found is None:
        return Markup()
    drawn = Markup()
    for hour in range(0, HOURS + 1, 6):
        x = round(hour / HOURS * WIDTH, 1)
        drawn += Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(x, _HEIGHT)
    many = len(found) == MOST_TICKS
    for at in () if many else found:
        x = round((at - begin * 60) / (HOURS * 3600) * WIDTH, 1)
        drawn += Markup('<rect class="run" x="{}" y="5" width="2.4" height="12" rx="1"/>').format(x)
    if many:
        drawn += Markup('<rect class="more" x="0" y="8" width="{}" height="6"/>').format(WIDTH)
    label = f"{name} in the next 24 hours: {f'{MOST_TICKS} or more' if many else len(found)} runs"
    return _FRAME.format(label, WIDTH, _HEIGHT, drawn)
