"""How long something took, for people."""

from __future__ import annotations

import datetime


def human_duration(span: datetime.timedelta) -> str:
    """Format a duration as kubectl does, with tenths below ten seconds: `0.4s`, `42s`, `3m12s`, `2h5m`."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m" if minute else f"{hours}h"
    if minutes:
        return f"{minutes}m{second}s" if second else f"{minutes}m"
    return f"{second}s"
