"""Counts what failed by category, code and policy, now and in the equally long time before. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from remit import reasons
from remit.api.phases import FAILED_PHASES

Object = Mapping[str, Any]
MOST_REMEMBERED: Final = 200_000
"""Objects of which it is known that they were counted. Beyond, records of the audit trail are not taken for others."""
_LONGEST_MESSAGE: Final = 500
_FAILED_RELEASES: Final = frozenset({"Failed", "RolledBack"})
_SUCCEEDED: Final = frozenset({"Completed", "Cancelled"})
_REASON: Final = re.compile(r"([A-Z][A-Za-z]+): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Failure:
    """One task or release that failed or was denied."""

    kind: Literal["task", "release"]
    namespace: str
    name: str
    time: datetime.datetime
    """When it ended, in UTC."""
    category: str
    code: str
    policy: str = ""
    message: str = ""


@dataclass(slots=True)
class Group:
    """The failures of one category, code and policy."""

    category: str
    code: str
    policy: str
    count: int = 0
    before: int = 0
    """How many there were in the equally long time before."""
    newest: Failure | None = None

    @property
    def trend(self) -> Literal["up", "down", "same"]:
        return "up" if self.count > self.before else "down" if self.count < self.before else "same"


@dataclass(slots=True)
class Tally:
    """Failures from `since` to `until`, and those of the equally long time before. Keeps one example of each group."""

    since: datetime.datetime
    until: datetime.datetime
    groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)

    @property
    def earliest(self) -> datetime.datetime:
        return self.since - (self.until - self.since)

    def add(self, failure: Failure) -> None:
        if not self.earliest <= failure.time <= self.until:
            return
        key = failure.category, failure.code, failure.policy
        group = self.groups.setdefault(key, Group(*key))
        if failure.time < self.since:
            group.before += 1
            return
        group.count += 1
        if group.newest is None or failure.time >= group.newest.time:
            group.newest = failure

    def ranked(self) -> list[Group]:
        """The groups with failures now or in the period before; most failures first."""
        order = sorted(self.groups.values(), key=lambda each: (each.category, each.code, each.policy))
        return sorted(order, key=lambda each: (-each.count, -each.before))

    @property
    def count(self) -> int:
        return sum(group.count for group in self.groups.values())

    @property
    def before(self) -> int:
        return sum(group.before for group in self.groups.values())


def of_task(obj: Object) -> Failure | None:
    """The failure that the task's status tells of, if it ended so. Also of a status that another version wrote."""
    status, metadata = _dict(obj.get("status")), _dict(obj.get("metadata"))
    ended = moment(status.get("completionTime"))
    if status.get("phase") not in FAILED_PHASES or ended is None:
        return None
    error, decided = _dict(status.get("error")), _dict(status.get("policy"))
    code = str(error.get("reason") or _reason_of(status) or status["phase"])
    return Failure(
        "task",
        str(metadata.get("namespace", "")),
        str(metadata.get("name", "")),
        ended,
        str(error.get("category") or reasons.category_of(code)),
        code,
        str(decided.get("name") or ""),
        _short(error.get("message") or status.get("message")),
    )


def of_deployment(obj: Object) -> Iterator[tuple[int, Failure]]:
    """The releases of the history that failed, each with its revision. Only the last one's own reason is in status."""
    status, metadata = _dict(obj.get("status")), _dict(obj.get("metadata"))
    last = _dict(_dict(status.get("pipeline")).get("release"))
    for record in status.get("history") or []:
        revision, outcome = record.get("revision"), str(record.get("outcome"))
        began = moment(record.get("deployedAt"))
        if outcome not in _FAILED_RELEASES or began is None or not isinstance(revision, int):
            continue
        is_last = last.get("revision") == revision and bool(last.get("reason"))
        code = str(last["reason"]) if is_last else outcome
        ended = began + datetime.timedelta(seconds=float(record.get("durationSeconds") or 0.0))
        message = str(last.get("message") or "") if is_last else f"{record.get('artifact', '')} (revision {revision})"
        place = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
        yield revision, Failure("release", *place, ended, reasons.category_of(code), code, "", _short(message))


def of_release_record(record: Mapping[str, Any]) -> Failure | None:
    """The failed release that a record of the audit trail tells of."""
    ended = moment(record.get("time"))
    if record.get("kind") != "release" or record.get("verdict") not in _FAILED_RELEASES or ended is None:
        return None
    told = _REASON.fullmatch(str(record.get("message", "")))
    code, message = (told[1], told[2]) if told else (str(record["verdict"]), str(record.get("message", "")))
    return Failure("release", *_place(record), ended, reasons.category_of(code), code, "", _short(message))


def of_task_record(record: Mapping[str, Any]) -> Failure | None:
    """How the task stood after this record, if that is a failure: denied, or its attempt failed."""
    ended, kind, verdict = moment(record.get("time")), record.get("kind"), str(record.get("verdict", ""))
    code = str(record.get("reason") or verdict) if kind == "decision" else verdict
    over = verdict == "Denied" if kind == "decision" else kind == "execution" and verdict not in _SUCCEEDED
    if ended is None or not over:
        return None
    category = str(record.get("category") or reasons.category_of(code))
    policy = str(record.get("policy") or "")
    return Failure("task", *_place(record), ended, category, code, policy, _short(record.get("message")))


def moment(text: object) -> datetime.datetime | None:
    """None for what is no time with a zone."""
    try:
        time = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time.astimezone(datetime.UTC) if time.tzinfo else None


def _reason_of(status: Object) -> str:
    """The reason of a status that an earlier version wrote."""
    conditions = (each for each in status.get("conditions") or [] if each.get("type") == "Finished")
    return str(next(conditions, {"reason": ""}).get("reason") or "")


def _place(record: Mapping[str, Any]) -> tuple[str, str]:
    return str(record.get("namespace", "")), str(record.get("task", ""))


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _short(text: object) -> str:
    return " ".join(str(text or "").split())[:_LONGEST_MESSAGE]
