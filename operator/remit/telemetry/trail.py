"""Reads an audit trail over all of its files, one line at a time, while it may be written to."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from remit.regularfile import open_regular
from remit.telemetry.chain import parse_line, timestamp
from remit.telemetry.segments import segments

_MOST_LINE = 16 << 20
"""No record is that long. What follows counts as another line, and neither is a record."""


class ReadCancelled(Exception):
    """Nobody waits any more for what a trail is read for."""


def trail_of(state_dirs: Sequence[Path]) -> Path | None:
    """Give the audit trail in the first of the state directories that has one which may be read."""
    paths = (state_dir / "audit" / "audit.jsonl" for state_dir in state_dirs)
    return next((path for path in paths if os.access(path, os.R_OK)), None)


class TrailFile(NamedTuple):
    path: Path
    file: BinaryIO
    size: int
    stop: threading.Event | None = None

    def lines(self) -> Iterator[bytes]:
        """Yield the lines up to the end that the file had when it was opened: it may grow meanwhile. Raises
        `ReadCancelled` once `stop` is set."""
        left, stop = self.size, self.stop
        while left > 0 and (line := self.file.readline(_MOST_LINE)):
            if stop is not None and stop.is_set():
                raise ReadCancelled
            left -= len(line)
            yield line


def opened(path: Path, stop: threading.Event | None = None) -> Iterator[TrailFile]:
    """The closed files of the trail, oldest first, and then `path`, its newest, unless that is missing. Each is open
    until the next is asked for. Their lines end with `ReadCancelled` once `stop` is set, by another thread. Raises
    `OSError`; `FileNotFoundError` when there is not one.
    """
    with ExitStack() as stack:
        # Opened first: if it is renamed to a numbered segment now, it is still read, and only once.
        newest = stack.enter_context(open_regular(path)) if path.exists() else None
        held = os.fstat(newest.fileno()) if newest else None
        closed = segments(path)
        if newest is None and not closed:
            raise FileNotFoundError(2, os.strerror(2), str(path))
        for each in closed:
            with open_regular(each) as file:
                status = os.fstat(file.fileno())
                if held and os.path.samestat(status, held):
                    break
                yield TrailFile(each, file, status.st_size, stop)
        if newest and held:
            yield TrailFile(path, newest, held.st_size, stop)


class Line(NamedTuple):
    raw: bytes
    """The bytes of the record, with its newline."""
    record: dict[str, Any] | None
    """None when it is no whole record: `verify` tells more."""


def read(path: Path, stop: threading.Event | None = None) -> Iterator[Line]:
    """Every line of the trail whose newest file is `path`, in order. Raises `OSError`, and `ReadCancelled` once `stop`
    is set."""
    for part in opened(path, stop):
        for raw in part.lines():
            yield Line(raw, _parsed(raw))


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        return parse_line(raw.removesuffix(b"\n"))[0] if raw.endswith(b"\n") else None
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Selects the records that match everything that is set."""

    since: datetime.datetime | None = None
    """At that moment or later. Needs a zone, as `until` does."""
    until: datetime.datetime | None = None
    """Before that moment."""
    namespace: str | None = None
    task: str | None = None
    verdict: str | None = None
    """The verdict, compared without regard to case."""
    kind: str | None = None

    def __call__(self, record: dict[str, Any]) -> bool:
        time = str(record.get("time", ""))
        return (
            (self.since is None or time >= timestamp(self.since))
            and (self.until is None or time < timestamp(self.until))
            and self.namespace in (None, record.get("namespace"))
            and self.task in (None, record.get("task"))
            and self.kind in (None, record.get("kind"))
            and (self.verdict is None or self.verdict.casefold() == str(record.get("verdict", "")).casefold())
        )
