"""Rows of the page in the form that tests need."""

from __future__ import annotations

from typing import Any

from remit.web.rows import TaskRow

NOW = 1_800_000_000.0


def row(name: str, phase: str, **more: Any) -> TaskRow:
    fields: dict[str, Any] = dict.fromkeys(("operation", "backend", "reason", "message", "policy", "schedule"), "")
    fields |= dict.fromkeys(("exit_code", "queued", "started", "ended", "next_time"))
    fields |= {"namespace": "default", "uid": name, "attempts": 1, "created": NOW - 30}
    return TaskRow(name=name, phase=phase, **{**fields, **more})
