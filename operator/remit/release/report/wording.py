"""Numbers as people read them."""

from __future__ import annotations

import datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """`0.4 ms`, `250 ms`, `4.2 s`, `3 min 12 s`, `2 h 5 min`."""
    milliseconds = seconds * 1000
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms" if milliseconds else "0 s"
    if round(milliseconds) < 1000:
        return f"{milliseconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min" if minute else f"{hours} h"
    return f"{minutes} min {second} s" if second else f"{minutes} min"


def rough(seconds: float) -> str:
    """A duration that is known to the second, as status keeps times."""
    return duration(seconds) if seconds >= 1 else "< 1 s"


def size(count: float) -> str:
    """`512 B`, `12.5 MiB`."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def moment(at: datetime.datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
