"""A report as Markdown. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from remit.api.slots import SLOTS
from remit.release.report import series
from remit.release.report.facts import facts, usage_rows
from remit.release.report.model import Report
from remit.release.report.wording import duration, moment, rough
from remit.telemetry.logs import escape

_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>|~&$]|^[-+#=])")


def markdown(report: Report) -> str:
    """The whole report but for its plots, ending in a newline."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    subject, evidence = report.subject, report.evidence
    yield f"# {plain(subject.namespace)}/{plain(subject.name)}: revision {report.revision}, {plain(report.outcome)}"
    yield ""
    if report.message:
        yield f"{plain(report.reason)}: {plain(report.message)}"
        yield ""
    yield from _table(("", ""), facts(report))
    yield from ("", "## Stages", "")
    rows = (
        (stage.name, stage.state, "" if stage.seconds is None else rough(stage.seconds), stage.message)
        for stage in report.stages
    )
    yield from _table(("Stage", "State", "Took", "What happened"), rows)
    if evidence.switchings:
        yield from ("", "## Switches", "")
        yield from _table(
            ("At", "To", "Share of the other side", "Took"),
            (
                (
                    moment(each.at),
                    each.to,
                    f"{each.share} %",
                    "not seen" if each.milliseconds is None else duration(each.milliseconds / 1000),
                )
                for each in evidence.switchings
            ),
        )
    if evidence.probed is not None and evidence.probed.errors:
        yield from ("", "## What the probe's failed requests met", "")
        yield from (f"- {plain(error)}" for error in evidence.probed.errors)
    if any(series.memory(evidence.samples, slot, report.started_at) for slot in SLOTS):
        yield from ("", "## Resources", "")
        yield from _table(("Side", "CPU, mean", "CPU, most", "Memory, mean", "Memory, most"), usage_rows(report))
    if evidence.missing:
        yield from ("", "## What is missing", "")
        yield from (f"- {plain(each)}" for each in evidence.missing)


def plain(text: str) -> str:
    """`text` on one line as itself, whatever Markdown, HTML or a terminal would make of it."""
    return _SPECIAL.sub(r"\\\1", escape(text))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(plain(cell) for cell in row)} |"
