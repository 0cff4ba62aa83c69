"""The rows that both the Markdown and the page show."""

from __future__ import annotations

from collections.abc import Callable

from remit.api.slots import SLOTS
from remit.release.report import series
from remit.release.report.model import Report
from remit.release.report.wording import duration, moment, rough, size


def facts(report: Report) -> list[tuple[str, str]]:
    """The release in a few rows."""
    probed, switch = report.evidence.probed, report.switch_milliseconds
    rows = [
        ("Artifact", report.artifact),
        ("Outcome", f"{report.outcome} ({report.reason})" if report.reason != report.outcome else report.outcome),
        ("How", f"{report.strategy} to {report.slot}" + (", as a rollback" if report.rollback else "")),
        ("Target", report.subject.target),
        ("Began", moment(report.started_at)),
        ("Took", rough(report.seconds)),
        ("Switch", "not measured" if switch is None else duration(switch / 1000)),
        ("Restarts of the new side", str(report.restarts)),
        *(
            [("Its requests since the switch", "{}, of which {} failed".format(*report.served))]
            if report.served
            else []
        ),
    ]
    if probed is not None:
        rows += [
            ("Probe", probed.what),
            ("Its requests", f"{probed.requests}, of which {probed.failed} failed"),
            ("Its answers", f"{_ms(probed.p50_milliseconds)} (median), {_ms(probed.p99_milliseconds)} (99 %)"),
        ]
    return rows


def cores(value: float) -> str:
    return f"{value:.3f} cores"


def usage_rows(report: Report) -> list[tuple[str, ...]]:
    """Each side, and what it used."""
    rows: list[tuple[str, ...]] = []
    for slot in SLOTS:
        cpu = series.cores(report.evidence.samples, slot, report.started_at)
        memory = series.memory(report.evidence.samples, slot, report.started_at)
        name = f"{slot} (new)" if slot == report.slot else slot
        if memory:
            cells = (
                (series.mean, cpu, cores),
                (series.most, cpu, cores),
                (series.mean, memory, size),
                (series.most, memory, size),
            )
            rows.append((name, *(_cell(pick(line), show) for pick, line, show in cells)))
    return rows


def _cell(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None else show(value)


def _ms(milliseconds: float) -> str:
    return duration(milliseconds / 1000)
