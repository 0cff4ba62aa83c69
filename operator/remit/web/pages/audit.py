"""The audit trail: searched, and checked."""

from __future__ import annotations

import asyncio
import datetime
import shlex
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from aiohttp import web

from remit.api.endpoint import Resource
from remit.api.group import GROUP, VERSION
from remit.describe import audittrail
from remit.errors import RemitError
from remit.telemetry.chain import Kind
from remit.telemetry.trail import Filter
from remit.telemetry.verifying import verify
from remit.web.rendering import View, kind_of
from remit.web.rows import moment
from remit.web.sessions import Notice, Session

T = TypeVar("T")

TRAIL: Final = Resource(GROUP, VERSION, "audittrails", namespaced=False)
"""What RBAC has to allow `get` of: there is no such object, and the trail tells of every namespace."""
_SHOWN: Final = 200
_SECONDS: Final = 60.0
_TOO_LONG: Final = (
    f"The audit trail could not be read within {_SECONDS:g} s: it is long, or others read it. Try again, or use"
    " 'remit audit show' on the operator's host, which takes its time."
)
_KINDS: Final = get_args(Kind)
_reading = asyncio.Semaphore(1)
"""A trail may be long: it is read by one thread at a time."""


async def audit(request: web.Request, session: Session) -> View:
    if not session.viewer.reads_files:
        return View("elsewhere.html", "Audit", "audit", {"operator_namespace": session.viewer.operator_namespace})
    trail = await _trail(session)
    words = ("since", "until", "namespace", "task", "verdict")
    asked = {name: request.query.get(name, "").strip()[:200] for name in words}
    asked["kind"] = kind if (kind := request.query.get("kind", "")) in _KINDS else ""
    mistake, records, more = "", list[dict[str, Any]](), False
    try:
        wanted = _filter(asked)
        found = await in_turn(lambda stop: list(audittrail.Selection(trail, wanted, _SHOWN + 1, stop)))
        records = [_record(record) for _, record in found]
        more = len(records) > _SHOWN
    except ValueError as error:
        mistake = str(error)
    except FileNotFoundError:
        mistake = "There is no audit trail yet."
    context = {"asked": asked, "mistake": mistake, "records": records[-_SHOWN:][::-1], "more": more, "kinds": _KINDS}
    return View("audit.html", "Audit", "audit", context)


async def check(request: web.Request, session: Session) -> str:
    """Follow the chain of hashes, as `remit audit verify`."""
    trail = await _trail(session)
    report = await in_turn(lambda stop: verify(trail, stop=stop))
    if report.ok:
        text = f"The trail is whole: {report.records} records, each continues the one before. Head {report.head}"
    else:
        first = report.problems[0]
        where = f"{first.path.name} at line {first.line}: {first.kind}, {first.message}"
        text = f"The trail is NOT whole: {len(report.problems)} problems, the first in {where}"
    session.notices.append(Notice(text, good=report.ok))
    return "/audit"


async def _trail(session: Session) -> Path:
    """Raises `RemitError` where it is not here, and 403 for who may not read it."""
    if not await session.viewer.may("get", TRAIL, None):
        raise web.HTTPForbidden(text="You may not read the audit trail: it needs get of audittrails.remit.dev.")
    if (trail := session.viewer.trail) is None:
        raise RemitError("the audit trail is on the operator's host, and not on this one")
    return trail


async def in_turn(work: Callable[[threading.Event], T]) -> T:
    """Read a trail by `work`, in a thread. It has to end once the event is set, which is when nobody waits for it any
    more. The next turn begins when the thread has ended, so no more than one is ever held. Raises 504 after a
    minute."""
    stop = threading.Event()
    try:
        async with asyncio.timeout(_SECONDS):
            await _reading.acquire()
            reading = asyncio.ensure_future(asyncio.to_thread(work, stop))
            reading.add_done_callback(_end_turn)
            return await asyncio.shield(reading)
    except TimeoutError:
        raise web.HTTPGatewayTimeout(text=_TOO_LONG) from None
    finally:
        stop.set()


def _end_turn(reading: asyncio.Future[Any]) -> None:
    _reading.release()
    if not reading.cancelled():
        reading.exception()  # the client that disconnected does not retrieve the exception


def _filter(asked: Mapping[str, str]) -> Filter:
    """Raises ValueError."""
    now = datetime.datetime.now(datetime.UTC)
    return Filter(
        since=audittrail.moment(asked["since"], now) if asked["since"] else None,
        until=audittrail.moment(asked["until"], now) if asked["until"] else None,
        namespace=asked["namespace"] or None,
        task=asked["task"] or None,
        verdict=asked["verdict"] or None,
        kind=asked["kind"] or None,
    )


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    argv, verdict = record.get("argv"), str(record.get("verdict", ""))
    failed = bool(record.get("category")) and kind_of(verdict) == "off"  # each way to fail has a verdict of its own
    return {
        "seq": record.get("seq"),
        "at": moment(record.get("time")),
        "kind": str(record.get("kind", "")),
        "verdict": verdict,
        "like": "Failed" if failed else verdict,
        "namespace": str(record.get("namespace", "")),
        "task": str(record.get("task", "")),
        "who": str(record.get("who", "")),
        "what": str(record.get("what") or (shlex.join(map(str, argv)) if isinstance(argv, list) else "")),
        "policy": " ".join(filter(None, (str(record.get("policy", "")), str(record.get("rule", ""))))),
        "message": str(record.get("message", "")),
    }
