"""The logs of the long-running commands."""

from __future__ import annotations

from typing import TextIO, cast

from remit.telemetry.logs import Format, configure
from remit.telemetry.redact import Redactor

QUIET = {"kopf": "warning", "kopf._core.reactor.running": "error"}
"""kopf tells of every event that it hands over; and that it runs in a thread of its own, which is meant."""


def set_up_logs(form: str, level: str, *, colors: bool | None = None, stream: TextIO | None = None) -> Redactor:
    """Send logs to `stream`, by default standard error. Raises `InvalidInput` for an unknown format or level."""
    levels = {} if level == "debug" else QUIET
    return configure(format=cast(Format, form), level=level, levels=levels, stream=stream, colors=colors)
