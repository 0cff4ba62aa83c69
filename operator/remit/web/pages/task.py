"""One task: its attempts, its output, why policy decided so, and what can be done about it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from remit import reasons
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.describe import explained, observedruns, policyyaml
from remit.describe.connection import Connection
from remit.describe.selection import unusual
from remit.errors import InvalidInput
from remit.execution.copies import copy_of
from remit.execution.output import STREAMS
from remit.kube.client import EVENTS, TASKS, Object
from remit.web import output
from remit.web.live import Events
from remit.web.pages import audit
from remit.web.pages.events import event_row
from remit.web.pages.place import place
from remit.web.rendering import View, as_yaml, kind_of, span
from remit.web.rows import task_row
from remit.web.sessions import Notice, Session
from remit.web.timeline import Bar, timeline
from remit.web.usage import runs_of, usage_plots

_MANAGER: Final = "remit-page"


async def task(request: web.Request, session: Session) -> View:
    namespace, name = place(request)
    viewer = session.viewer
    obj = await viewer.fetch(TASKS, namespace, name)
    parsed, row, now = ExecutionTask.parse(obj), task_row(obj), time.time()
    over = parsed.status.phase is not None and parsed.status.phase.final
    scheduled = parsed.spec.schedule is not None
    code = parsed.status.error.reason if parsed.status.error else ""
    found = reasons.find(code) if code else None
    runs = (
        [each for each in viewer.tasks() if each.namespace == namespace and each.schedule == name] if scheduled else []
    )
    family = runs_of(row, viewer.tasks())
    context = {
        "task": parsed,
        "row": row,
        "what": what_of(obj),
        "over": over,
        "scheduled": scheduled,
        "remedy": found.remedy if found else "",
        "unusual": unusual(obj),
        "attempts": [_attempt(each, now) for each in reversed(parsed.status.attempts)],
        "plot": _plot(parsed, row.created, now),
        "may_download": viewer.reads_files and await output.may_read(viewer, namespace),
        "may_events": await viewer.may("list", EVENTS, namespace),
        "chosen": _number(request.query.get("attempt", "")),
        "streams": STREAMS,
        "events": [event_row(each) for each in await viewer.events_of(obj)],
        "labels": obj["metadata"].get("labels") or {},
        "yaml": as_yaml(obj["spec"]),
        "may_cancel": not over and not parsed.spec.cancel and await viewer.may("patch", TASKS, namespace),
        "may_rerun": not scheduled and await viewer.may("create", TASKS, namespace),
        "usage": usage_plots(row, family),
        "runs": sorted(runs, key=lambda each: -each.created)[:20],
    }
    return View("task.html", row.key, "tasks", context, ("head", "attempts", "usage", "facts", "told"))


def what_of(obj: Object) -> str:
    """Describe what the task does, in one line."""
    spec: dict[str, Any] = obj["spec"]
    operation = task_row(obj).operation
    asked = spec.get(operation)
    if operation == "command" and isinstance(asked, dict):
        return str(asked.get("line") or shlex.join(map(str, asked.get("argv") or [])))
    if operation == "http" and isinstance(asked, dict):
        return f"{asked.get('method') or 'GET'} {asked.get('url', '')}"
    if isinstance(asked, dict):
        kept = {key: value for key, value in asked.items() if isinstance(value, str | int | bool) and key != "source"}
        return " ".join([operation, *(f"{key}={value}" for key, value in kept.items())])[:500]
    return operation


def _attempt(attempt: AttemptStatus, now: float) -> dict[str, Any]:
    start = attempt.started_at.timestamp()
    end = attempt.finished_at.timestamp() if attempt.finished_at else None
    going = end is None
    reason = attempt.reason or ("Running" if going else "")
    good = reason == "Completed" or going
    usage, seconds = attempt.usage, (end or now) - start
    return {
        "number": attempt.number,
        "status": "Running" if going else "Succeeded" if good else kind_word(reason),
        "reason": reason,
        "start": start,
        "seconds": seconds,
        "backend": attempt.backend,
        "exit_code": attempt.exit_code,
        "exceeded": attempt.exceeded,
        "usage": usage,
        "cores": usage.cpu_seconds / seconds if usage and seconds > 0 else None,
        "network": attempt.network,
        "going": going,
    }


def kind_word(reason: str) -> str:
    return reason if kind_of(reason) != "off" else "Failed" if reason != "Cancelled" else "Cancelled"


def _plot(parsed: ExecutionTask, created: float, now: float) -> Any:
    """Each attempt on a row of its own, with what it was waited for before."""
    rows: list[list[Bar]] = []
    before = created
    for attempt in parsed.status.attempts:
        start = attempt.started_at.timestamp()
        end = attempt.finished_at.timestamp() if attempt.finished_at else now
        bars = []
        if start - before > 0.05:
            waited = "waited for its turn" if not rows else "waited to be tried again"
            bars.append(Bar(before, start, "gap", f"{waited} for {span(start - before)}"))
        told = attempt.reason or "running"
        kind = "run" if attempt.finished_at is None else "ok" if attempt.reason == "Completed" else "bad"
        bars.append(Bar(start, end, kind, f"attempt {attempt.number} for {span(end - start)}: {told}"))
        rows.append(bars)
        before = end
    waiting = parsed.status.next_retry_time
    if waiting is not None and rows:
        due = waiting.timestamp()
        rows.append([Bar(before, max(now, due), "gap", f"waits to be tried again until {waiting:%T}")])
    return timeline(rows[-10:])


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and 0 < len(text) < 7 else None


async def task_output(request: web.Request, session: Session) -> Events:
    """The events of a task's page besides its regions."""
    namespace, name = place(request)
    async for event in output.events(session.viewer, namespace, name, _number(request.query.get("attempt", ""))):
        yield event


async def download(request: web.Request, session: Session) -> web.StreamResponse:
    namespace, name = place(request)
    number, stream = _number(request.match_info["attempt"]), request.match_info["stream"]
    if number is None or stream not in STREAMS:
        raise web.HTTPNotFound
    if not await output.may_read(session.viewer, namespace):
        raise web.HTTPForbidden(text="You may not read output: it needs get of executiontasks/log.")
    parsed = await output.read_task(session.viewer, namespace, name)
    return await output.download(request, session.viewer, parsed, number, stream)


async def why(request: web.Request, session: Session) -> View:
    """Explain by today's policies, as `remit explain` does."""
    namespace, name = place(request)
    viewer = session.viewer
    obj = await viewer.fetch(TASKS, namespace, name)
    refused = any((each.get("network") or {}).get("denied") for each in (obj.get("status") or {}).get("attempts") or [])
    # The audit trail has the destinations of a task. It is long, so it is read only if a connection was denied and the
    # viewer may read it.
    trail = viewer.trail if refused and await viewer.may("get", audit.TRAIL, None) else None
    reached = await audit.in_turn(lambda stop: observedruns.reached_by(trail, namespace, stop)) if trail else None
    connection = Connection(viewer.kube, namespace, viewer.state_dirs)
    told: explained.Explained | None = None
    unclear = ""
    try:
        told = await explained.explain(connection, name, viewer.operator_namespace, reached)
    except InvalidInput as error:
        unclear = str(error)
    left_out: Sequence[str] = policyyaml.told(told.suggestion.left_out) if told and told.suggestion else ()
    context = {"row": task_row(obj), "what": what_of(obj), "told": told, "unclear": unclear, "left_out": left_out}
    return View("why.html", f"Why: {namespace}/{name}", "tasks", context)


async def cancel(request: web.Request, session: Session) -> str:
    namespace, name = place(request)
    obj = await session.viewer.fetch(TASKS, namespace, name)
    body: Object = {"metadata": {"uid": obj["metadata"]["uid"]}, "spec": {"cancel": True}}
    await session.viewer.kube.patch(TASKS, namespace, name, body)
    session.notices.append(Notice(f"{name} is being cancelled."))
    return f"/tasks/{namespace}/{name}"


async def rerun(request: web.Request, session: Session) -> str:
    namespace, name = place(request)
    made = await session.viewer.kube.create(
        TASKS, namespace, copy_of(await session.viewer.fetch(TASKS, namespace, name)), manager=_MANAGER
    )
    again = str(made["metadata"]["name"])
    session.notices.append(Notice(f"{again} runs what {name} ran."))
    return f"/tasks/{namespace}/{again}"
