"""How long ago something was, as kubectl has ages: `42s`, `5m` or `3d`. Pure."""

from __future__ import annotations

import datetime


def age(since: datetime.datetime | None, now: datetime.datetime) -> str:
    """Empty where it is not known."""
    return short((now - since).total_seconds()) if since is not None else ""


def short(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds) // length}{unit}"
    return f"{max(0, int(seconds))}s"
