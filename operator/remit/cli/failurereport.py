"""Reports what failed, from the API server and, for deleted objects, from the audit trail of this machine."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from remit.cli import tables
from remit.cli.failuretally import (
    MOST_REMEMBERED,
    Failure,
    Group,
    Tally,
    of_deployment,
    of_release_record,
    of_task,
    of_task_record,
)
from remit.errors import ApiError
from remit.execution.durations import human_duration
from remit.kube.client import DEPLOYMENTS, TASKS, Kube
from remit.telemetry.logs import escape
from remit.telemetry.trail import Filter, read

_ARROWS: Final = {"up": "↑", "down": "↓", "same": "="}
_MOST_POLICY: Final = 24


@dataclass
class Report:
    """The failures that were found, and where they were looked for."""

    tally: Tally
    trail: Path | None = None
    """The audit trail that was read too."""
    incomplete: list[str] = field(default_factory=list)
    """What the counts lack, in one sentence each."""


async def found(
    kube: Kube, namespace: str | None, since: datetime.datetime, until: datetime.datetime, trail: Path | None
) -> Report:
    """Failures in the namespace, or in all. Objects are read in pages, and of each no more is kept than that it was
    counted. Raises `ApiError`."""
    report = Report(Tally(since, until))
    seen = await _of_objects(kube, namespace, report)
    if trail is None:
        report.incomplete.append(
            "what was deleted meanwhile is not counted: the audit trail of this API server's operator is not on this"
            " machine, or may not be read; if it is, name its --state-dir"
        )
    elif len(seen) >= MOST_REMEMBERED:
        report.incomplete.append(f"what was deleted meanwhile is not counted: there are {len(seen)} objects")
    else:
        try:
            _of_records(trail, namespace, seen, report)
            report.trail = trail
        except OSError as error:
            report.incomplete.append(f"what was deleted meanwhile is not counted: {trail}: {error.strerror or error}")
    return report


async def _of_objects(kube: Kube, namespace: str | None, report: Report) -> set[str]:
    """Counts them. Gives the uids of tasks, and `UID/REVISION` of releases."""
    seen: set[str] = set()
    async for page in kube.pages(TASKS, namespace):
        for obj in page:
            uid = str(obj["metadata"].get("uid"))
            if uid not in seen and (failure := of_task(obj)) is not None:
                report.tally.add(failure)
            seen.add(uid)
    try:
        async for page in kube.pages(DEPLOYMENTS, namespace):
            for obj in page:
                for revision, failure in of_deployment(obj):
                    if (key := f"{obj['metadata'].get('uid')}/{revision}") not in seen:
                        report.tally.add(failure)
                    seen.add(key)
    except ApiError as error:
        if error.status != 403:
            raise
        report.incomplete.append(f"releases are not counted: {error}")
    return seen


def _of_records(trail: Path, namespace: str | None, seen: set[str], report: Report) -> None:
    """Counts what the records tell of tasks and releases that are not there any more. Raises `OSError`."""
    gone: dict[str, Failure] = {}
    policies: dict[str, str] = {}
    wanted = Filter(since=report.tally.earliest, namespace=namespace)
    for _, record in read(trail):
        if record is None or not wanted(record) or not (key := _key(record)) or key in seen:
            continue
        failure = of_release_record(record) or of_task_record(record)
        if failure is None:
            if record.get("kind") == "execution":
                gone.pop(key, None)  # a retry succeeded
            elif record.get("kind") == "decision" and len(policies) < MOST_REMEMBERED:
                policies[key] = sys.intern(str(record.get("policy") or ""))
        elif key in gone or len(gone) < MOST_REMEMBERED:
            gone[key] = replace(failure, policy=failure.policy or policies.get(key, ""))
        elif not report.incomplete:
            report.incomplete.append(f"of what was deleted, only {MOST_REMEMBERED} failures are counted")
    for failure in gone.values():
        report.tally.add(failure)


def _key(record: Mapping[str, Any]) -> str:
    """What the record is about, as `_of_objects` calls it; empty for what is neither a task nor a release."""
    uid = str(record.get("uid") or "")
    if not uid or record.get("kind") != "release":
        return uid
    return f"{uid}/{str(record.get('attempt', '')).removeprefix('revision ')}"


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs. Times are RFC 3339, in UTC."""
    tally = report.tally
    return {
        "since": _time(tally.since),
        "until": _time(tally.until),
        "count": tally.count,
        "countBefore": tally.before,
        "groups": [
            {
                "category": group.category,
                "code": group.code,
                "policy": group.policy,
                "count": group.count,
                "countBefore": group.before,
                "trend": group.trend,
                "newest": _example(group.newest) if group.newest else None,
            }
            for group in tally.ranked()
        ],
        "auditTrail": str(report.trail) if report.trail else None,
        "incomplete": report.incomplete,
    }


def _example(failure: Failure) -> dict[str, str]:
    return {
        "kind": failure.kind,
        "namespace": failure.namespace,
        "name": failure.name,
        "time": _time(failure.time),
        "message": failure.message,
    }


def _time(moment: datetime.datetime) -> str:
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def show(report: Report) -> None:
    """Print a line for each group, with its newest example below it."""
    screen = tables.console()
    for line in lines(report, screen.width):
        screen.print(line, markup=False, highlight=False, soft_wrap=True)


def lines(report: Report, width: int) -> Iterator[str]:
    """The report in lines of at most `width` cells, but for names that are longer."""
    tally = report.tally
    groups, span = tally.ranked(), human_duration(tally.until - tally.since)
    what = "failed or denied in" if tally.count != 1 else "failed or was denied in"
    yield f"{tally.count} {what} the last {span}, {tally.before} in the {span} before"
    if not groups:
        return
    yield ""
    rows = [("COUNT", "TREND", "CATEGORY", "CODE", "POLICY"), *(_row(group) for group in groups)]
    widths = [max(cell_len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row, group in zip(rows, [None, *groups], strict=True):
        cells = [
            _padded(cell, size, right=index == 0) for index, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
        if group is not None and group.newest is not None:
            yield _cut(f"       {_told(group.newest, tally.until)}", width)


def _row(group: Group) -> tuple[str, ...]:
    trend = f"{_ARROWS[group.trend]} {group.before}→{group.count}"
    policy = group.policy if len(group.policy) <= _MOST_POLICY else f"{group.policy[: _MOST_POLICY - 1]}…"
    return str(group.count), trend, group.category, escape(group.code), escape(policy) or "-"


def _told(failure: Failure, now: datetime.datetime) -> str:
    kind = "deploy/" if failure.kind == "release" else ""
    return escape(
        f"{failure.namespace}/{kind}{failure.name} {human_duration(now - failure.time)} ago: {failure.message}"
    )


def _padded(text: str, size: int, *, right: bool) -> str:
    blanks = " " * (size - cell_len(text))
    return blanks + text if right else text + blanks


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(1, width - 1)).rstrip()}…"
