"""One object on a page: how it stands, its attempts, and the decision of policy. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any, Final

from rich.text import Text

from remit import reasons
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.cli.top.cells import size
from remit.cli.top.views import style_of
from remit.describe.ages import short
from remit.execution.durations import human_duration
from remit.telemetry.logs import escape

HANG: Final = 15
"""The column in which the text of a field begins."""
_LONGEST: Final = 4096
"""Characters of one field that are shown."""
_MOST_LINES: Final = 400


def line(title: str, text: object, style: str = "") -> Text:
    """Make a line of what anybody wrote: it is text, and drives no terminal."""
    said = str(text)
    return Text.assemble(
        (f"  {title:<{HANG - 2}}", "dim"), (escape(said[:_LONGEST]) + ("…" if len(said) > _LONGEST else ""), style)
    )


def heading(text: str) -> Text:
    return Text(escape(text), style="bold")


def task_lines(obj: dict[str, Any], now: datetime.datetime) -> Iterator[Text]:
    """Raises `InvalidInput` for a task that cannot be read."""
    task = ExecutionTask.parse(obj)
    status, spec = task.status, task.spec
    phase = str(status.phase or "Pending")
    yield line("phase", phase, f"bold {style_of(phase)}".strip())
    labels = " ".join(f"{key}={value}" for key, value in (obj["metadata"].get("labels") or {}).items())
    facts = {
        "operation": status.operation or spec.operation,
        "backend": " ".join(filter(None, (status.backend or spec.backend or "", status.image))),
        "labels": labels,
        "created": _moment(task.metadata.creation_timestamp, now),
        "message": status.message,
        "queue": f"{status.queue.position} of {status.queue.waiting}, for {status.queue.reason} {status.queue.policy}"
        if status.queue
        else "",
        "deadline": _moment(status.deadline, now),
        "next retry": _moment(status.next_retry_time, now),
        "next run": _moment(status.next_schedule_time, now),
        "last run": _moment(status.last_schedule_time, now),
        "active": ", ".join(status.active),
        "took": status.duration,
        "exit code": "" if status.exit_code is None else str(status.exit_code),
    }
    if spec.schedule:
        facts["schedule"] = f"{spec.schedule.cron} ({spec.schedule.time_zone})"
    yield from (line(title, text) for title, text in facts.items() if text)
    if status.error is not None:
        same = status.error.message == status.message
        reason = status.error.reason or status.error.category
        yield line("reason", reason if same else f"{reason}: {status.error.message}", "red")
        if found := reasons.find(status.error.reason):
            yield line("what to do", found.remedy.replace("`", "'"))
    if status.policy is not None:
        style = "green" if status.policy.decision == "Allowed" else "red"
        yield line(
            "policy", f"{status.policy.decision} by {status.policy.name or 'no policy'} {status.policy.rule}", style
        )
        yield from (line("audited", text, "yellow") for text in status.policy.audited)
    if status.sandbox is not None:
        missing = f"; missing: {', '.join(status.sandbox.missing)}" if status.sandbox.missing else ""
        yield line("sandbox", ", ".join(status.sandbox.layers) + missing)
    if status.attempts:
        yield Text()
        yield heading(f"attempts ({status.attempt_count})")
        yield from (_attempt(each, now) for each in status.attempts)
    for title, entries in (
        ("artifact", [f"{each.name}: {each.files} files, {size(each.bytes)}" for each in status.artifacts]),
        ("result", [f"{each.name}: {each.value}" for each in status.results]),
    ):
        yield from (line(title, text) for text in entries)
    if status.output is not None:
        for title, text in (("stdout", status.output.stdout_tail), ("stderr", status.output.stderr_tail)):
            if text:
                yield Text()
                yield heading(f"the end of {title}")
                yield from (Text("  " + escape(each[:_LONGEST])) for each in text.splitlines()[-_MOST_LINES:])


def _attempt(attempt: AttemptStatus, now: datetime.datetime) -> Text:
    took = human_duration((attempt.finished_at or now) - attempt.started_at)
    usage = attempt.usage
    used = f"cpu {usage.cpu_seconds:.1f}s, memory {size(usage.max_memory_bytes)}" if usage else ""
    code = "" if attempt.exit_code is None else f"exit {attempt.exit_code}"
    ended = attempt.reason or ("" if attempt.finished_at else "running")
    exceeded = f"met {', '.join(attempt.exceeded)}" if attempt.exceeded else ""
    said = "  ".join(
        part for part in (f"{attempt.started_at:%H:%M:%SZ}", f"{took:>7}", ended, code, used, exceeded) if part
    )
    style = {"Completed": "green", "running": "cyan"}.get(ended, "red")
    return Text.assemble((f"  {attempt.number:>3}  ", "bold"), (escape(said), style))


def policy_lines(obj: dict[str, Any], now: datetime.datetime) -> Iterator[Text]:
    """Raises `InvalidInput` for a policy that cannot be read."""
    policy = CommandPolicy.parse(obj)
    status = policy.status
    ready = status.ready
    truth = ready.status if ready else "Unknown"
    said = {"True": "ready", "False": "not ready"}.get(truth, "nobody has looked at it yet")
    yield line("state", said, f"bold {style_of(truth)}".strip())
    if ready is not None and ready.message:
        yield line("message", ready.message)
    yield line("enforcement", policy.spec.enforcement)
    yield line("tasks", f"{status.matched_tasks} selected now, {status.allowed} allowed, {status.denied} denied so far")
    if status.last_denied is not None:
        yield line("last denied", f"{status.last_denied.task}, {_moment(status.last_denied.time, now)}", "red")
        yield line("", status.last_denied.reason, "red")


def decision_lines(allowed: bool, facts: dict[str, str], objection: str, change: str) -> Iterator[Text]:
    """What today's policies say of a task, and what they would have to say: `remit explain`'s findings."""
    yield heading("today's policies say")
    yield line(
        "decision",
        "Allowed" if allowed and not objection else "Denied",
        "green" if allowed and not objection else "red",
    )
    yield from (line(title, text) for title, text in facts.items())
    if objection:
        yield line("network", objection, "red")
    if change:
        yield Text()
        yield heading("to allow it, policies would have to say")
        for each in change.splitlines()[:_MOST_LINES]:
            style = {"+": "green", "-": "red", "@": "cyan"}.get(each[:1], "")
            yield Text("  " + escape(each[:_LONGEST]), style=style)


def _moment(moment: datetime.datetime | None, now: datetime.datetime) -> str:
    if moment is None:
        return ""
    away = (now - moment).total_seconds()
    return f"{moment:%F %TZ} ({short(away)} ago)" if away >= 0 else f"{moment:%F %TZ} (in {short(-away)})"
