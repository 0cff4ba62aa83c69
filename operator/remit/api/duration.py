"""Durations in the form that users write: `90s`, `36h`, `7d`, `1d12h`."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field

PATTERN: Final = r"^([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

Duration = Annotated[str, Field(pattern=PATTERN, min_length=2, max_length=32)]
"""Days, hours, minutes and seconds, in this order. A unit that is left out counts as 0."""


def seconds_of(duration: str) -> int:
    """Returns a `Duration` in seconds."""
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([dhms])", duration))
