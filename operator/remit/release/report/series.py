"""Draws the samples as lines over the time since the release began. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from itertools import pairwise

from remit.api.slots import Slot
from remit.release.report.model import Report, Sample

Line = list[tuple[float, float]]


def since(start: datetime.datetime, at: datetime.datetime) -> float:
    return max(0.0, (at - start).total_seconds())


def memory(samples: Sequence[Sample], slot: Slot, start: datetime.datetime) -> Line:
    """Bytes."""
    return [(since(start, each.at), each.usage[slot].memory_bytes) for each in samples if slot in each.usage]


def healthy(samples: Sequence[Sample], slot: Slot, start: datetime.datetime) -> Line:
    """Instances, as steps: what was seen holds until something else was."""
    line: Line = []
    for each in samples:
        at, count = since(start, each.at), each.healthy.get(slot, 0)
        if line and line[-1][1] != count:
            line.append((at, line[-1][1]))
        line.append((at, count))
    return line


def cores(samples: Sequence[Sample], slot: Slot, start: datetime.datetime) -> Line:
    """Processor time for each second of time. Where instances ended in between, it cannot be told."""
    line: Line = []
    for before, after in pairwise(each for each in samples if slot in each.usage):
        passed = (after.at - before.at).total_seconds()
        spent = after.usage[slot].cpu_seconds - before.usage[slot].cpu_seconds
        if passed > 0 and spent >= 0:
            line.append((since(start, after.at), spent / passed))
    return line


def span(report: Report) -> float:
    """How long all plots reach: to the end of the release, or as far as anything was seen."""
    probed, seen = report.evidence.probed, [each.at for each in report.evidence.samples]
    if probed is not None:
        seen += [each.at + datetime.timedelta(seconds=1) for each in probed.seconds]
    return max(report.seconds, *(since(report.started_at, at) for at in seen), 0.001)


def most(line: Line) -> float | None:
    return max((value for _, value in line), default=None)


def mean(line: Line) -> float | None:
    return sum(value for _, value in line) / len(line) if line else None
