"""Audit records as rows for people, and as the lines that `remit audit export` writes."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import shlex
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import orjson

from remit.telemetry.chain import Anchor, AuditEvent
from remit.telemetry.logs import escape
from remit.telemetry.trail import Filter, read

HEADER: Final = f"{'SEQ':>6}  {'TIME':<20}  {'KIND':<9}  {'VERDICT':<18}  {'TASK':<28}  ABOUT"
COLUMNS: Final = (
    *("seq", "time"),
    *(field.name for field in fields(AuditEvent)),
    *("argv_digest", "prev", "hash"),
)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_FORMULA: Final = ("=", "+", "-", "@")
"""A spreadsheet would calculate a cell that begins so."""


def moment(text: str, now: datetime.datetime) -> datetime.datetime:
    """An RFC 3339 time, in UTC where it names no zone, or how long ago: `90s`, `30m`, `1h`, `2d`, `1w`. Raises
    `ValueError`."""
    try:
        if ago := re.fullmatch(r"([0-9]{1,9})([smhdw])", text):
            return now - datetime.timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        time = datetime.datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is neither a time such as 2026-01-31T08:00:00Z nor one ago, such as 1h") from error


def since_or(text: str | None, default: str) -> datetime.datetime:
    """The moment that `text` names, or else the `default` one. Raises `ValueError`."""
    return moment(text or default, datetime.datetime.now(datetime.UTC))


def row(record: dict[str, Any]) -> str:
    """A record on one line, harmless on a terminal."""
    text = {name: str(value) for name, value in record.items()}
    argv, exceeded = record.get("argv"), record.get("exceeded")
    about = [
        text.get("message", ""),
        f"[{' '.join(filter(None, (text['policy'], text.get('rule'))))}]" if "policy" in text else "",
        *_would_be(record.get("audited")),
        text.get("what", ""),
        shlex.join(map(str, argv)) if isinstance(argv, list) else "",
        f"exit {text['exit_code']}" if record.get("exit_code") else "",
        f"exceeded {', '.join(map(str, exceeded))}" if isinstance(exceeded, list) else "",
    ]
    task = f"{text.get('namespace', '')}/{text['task']}" if "task" in text else "-"
    time = text.get("time", "").partition(".")[0] + "Z"
    head = f"{text['seq']:>6}  {time:<20}  {text.get('kind', ''):<9}  {text.get('verdict', ''):<18}  {task:<28}"
    return escape(f"{head}  {'  '.join(filter(None, about))}").rstrip()


def _would_be(audited: Any) -> Iterator[str]:
    """The denials by policies that only audit."""
    for denial in filter(lambda each: isinstance(each, dict), audited if isinstance(audited, list) else ()):
        by = f"{denial.get('policy', '')} {denial.get('rule', '')}".strip()
        why = denial.get("message") or denial.get("reason", "")
        yield f"would be denied by [{by}]: {why}"


def as_json(line: bytes) -> str:
    """The record's own bytes as text; or the same JSON in ASCII, when something in it would drive a terminal."""
    text = line.decode(errors="replace").removesuffix("\n")
    if escape(text) == text:
        return text
    return json.dumps(orjson.loads(line), separators=(",", ":")).replace("\x7f", "\\u007f")


def as_csv(cells: Iterable[Any]) -> str:
    """One line, newline included. Lists and mappings are JSON; control characters are escaped, so that a record is a
    line; and no text is a formula: one that begins like it has a `'` before it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([_cell(cell) for cell in cells])
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    text = escape(value if isinstance(value, str) else orjson.dumps(value).decode())
    return f"'{text}" if text.startswith(_FORMULA) else text


@dataclass
class Selection:
    """The lines of a trail that are asked for, and, once they were read, what they were. Iterate over it once."""

    path: Path
    wanted: Filter
    last: int | None = None
    """Only so many, from the end."""
    stop: threading.Event | None = None
    """Ends the reading with `ReadCancelled` once it is set."""
    records: int = 0
    whole: bool = True
    """Nothing was left out between the first record and the last."""
    before: Anchor | None = None
    """What the first record continues."""
    end: Anchor | None = None
    """The last record."""
    unreadable: int = 0
    """Lines that are no records. They are not among those that are given."""

    def __iter__(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Raises `OSError`."""
        lines = self._selected()
        for raw, record in deque(lines, maxlen=self.last) if self.last else lines:
            self._count(record)
            yield raw, record

    def _selected(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        for raw, record in read(self.path, self.stop):
            if record is None:
                self.unreadable += 1
            elif self.wanted(record):
                yield raw, record

    def _count(self, record: dict[str, Any]) -> None:
        seq = record["seq"]
        if self.end is None:
            self.before = Anchor(seq - 1, str(record.get("prev")))
        elif seq != self.end.seq + 1:
            self.whole = False
        self.end = Anchor(seq, str(record.get("hash")))
        self.records += 1
