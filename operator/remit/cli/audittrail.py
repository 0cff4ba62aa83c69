"""Audit records as lines for people. The file itself is JSON lines, for `jq`."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from remit.telemetry import escape
from remit.telemetry.chain import parse_line


def lines(path: Path, *, task: str | None, namespace: str | None, last: int | None) -> Iterable[str]:
    """The records that are asked for, in their order. Raises `OSError` when the file cannot be read."""
    wanted = (
        _line(record)
        for record in _records(path)
        if task in {None, record.get("task")} and namespace in {None, record.get("namespace")}
    )
    return deque(wanted, maxlen=last) if last else wanted


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                yield parse_line(line.rstrip(b"\n"))[0]
            except ValueError:
                continue  # `remit audit verify` tells of it


def _line(record: dict[str, Any]) -> str:
    task = f"{record.get('namespace', '')}/{record.get('task', '')}" if record.get("task") else "-"
    argv = record.get("argv") or []
    about = [
        record.get("message", ""),
        f"[{record['policy']} {record.get('rule', '')}]" if record.get("policy") else "",
        shlex.join(argv),
    ]
    head = f"{record['seq']:>6}  {record.get('time', '')}  {record.get('kind', ''):<9}  {record.get('verdict', ''):<12}"
    return escape(f"{head}  {task}  {'  '.join(str(part) for part in about if part)}")
