"""How a notification reads."""

from __future__ import annotations

from typing import Final

from remit.notifications.grouping import Notification
from remit.telemetry.logs import escape

_MOST_NAMED: Final = 20
"""Alerts that one message lists."""


def title(notification: Notification) -> str:
    """The title, such as `[2 firing] TaskFailed in shop`."""
    firing, resolved = len(notification.firing), len(notification.resolved)
    states = [f"{firing} firing"] * bool(firing) + [f"{resolved} resolved"] * bool(resolved)
    where = f" in {notification.group.namespace}" if notification.group.namespace else ""
    return f"[{', '.join(states)}] {notification.group.name}{where}"


def body(notification: Notification) -> str:
    """One line an alert."""
    lines = [f"{alert.key.subject}: {_one_line(alert.message)}" for alert in notification.firing]
    lines += [f"{key.subject}: resolved" for key in notification.resolved]
    more = len(lines) - _MOST_NAMED
    return "\n".join(lines[:_MOST_NAMED] + [f"and {more} more"] * (more > 0))


def _one_line(text: str) -> str:
    """Put a task's text on one line, so that it does not read as a line about another one."""
    return escape(" ".join(text.split()))
