"""Checks an audit trail against its own chain, over all of its files."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from remit.errors import InvalidInput
from remit.telemetry.chain import GENESIS, Anchor, parse_line
from remit.telemetry.segments import segments
from remit.telemetry.trail import opened

MAX_PROBLEMS: Final = 100
Kind = Literal["unreadable", "edited", "gap", "reordered", "broken", "torn", "cut", "misplaced", "missing"]


@dataclass(frozen=True)
class AuditProblem:
    kind: Kind
    line: int
    """Counted from 1."""
    message: str
    path: Path


@dataclass(frozen=True)
class Report:
    """The result of a verification. `head` is the last record: compare it with a copy kept elsewhere, or hand it to the
    next file."""

    records: int
    head: Anchor
    problems: tuple[AuditProblem, ...]
    files: int = 1

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    path: Path, *, after: Anchor = GENESIS, head: Anchor | None = None, stop: threading.Event | None = None
) -> Report:
    """Follow the chain through the closed files of the trail and then `path`, its newest; or through `path` alone, when
    it is a copy with all of them in one. At most the first hundred problems are told. The files may be written to
    meanwhile.

    `after` is the last record of what was moved away from the front. What Remit removed there itself, a record of kind
    `retention` tells. `head`, when known, is a record that must be there
    (or be `after`): without it a cut tail cannot be seen. Raises `InvalidInput` when a file cannot be read, and
    `ReadCancelled` once `stop` is set.
    """
    walk = _Walk(last=after, head=head, head_seen=head is None or head == after)
    try:
        walk.joined = not segments(path)
        for part in opened(path, stop):
            walk.file(part.path, part.lines())
    except OSError as error:
        raise InvalidInput(f"{error.filename or path} cannot be read: {error.strerror}") from error
    walk.check_beginning()
    if walk.path != path:
        walk.begin(path)
        walk.found("missing", "the newest file of the trail is not there")
    if head and not walk.head_seen:
        walk.found("cut", f"record {head.seq} with the expected hash is not in the trail")
    return Report(walk.records, walk.last, tuple(walk.problems), walk.files)


@dataclass
class _Walk:
    last: Anchor
    head: Anchor | None
    head_seen: bool
    path: Path = Path()
    line: int = 0
    joined: bool = False
    """There is one file, which may have been made of several: a `segment` may stand within it."""
    before: str = ""
    assumed: Anchor | None = None
    """The record before the first one, where that is not the first of all: is it one of `removed`?"""
    beginning: AuditProblem | None = None
    """What is wrong where it is not."""
    removed: set[str] = field(default_factory=set)
    """The last records of files that a record says were removed."""
    records: int = 0
    files: int = 0
    problems: list[AuditProblem] = field(default_factory=list)

    def found(self, kind: Kind, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(AuditProblem(kind, self.line, message, self.path))

    def begin(self, path: Path) -> None:
        self.before, self.path, self.line = self.path.name, path, 0

    def check_beginning(self) -> None:
        """A trail that does not begin with record 1 has a record of the removal of what was before."""
        if self.assumed is not None and str(self.assumed) not in self.removed and self.beginning:
            self.problems.insert(0, self.beginning)

    def file(self, path: Path, lines: Iterable[bytes]) -> None:
        self.begin(path)
        self.files += 1
        for line in lines:
            self.line += 1
            self._line(line)
        if not self.line and self.before:
            self.found("missing", "the file is empty, and it follows another one")

    def _line(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            self.found("torn", "the last line has no end: a crash, or a cut")
        try:
            record, sound = parse_line(line.rstrip(b"\n"))
        except ValueError:
            self.found("unreadable", "not an audit record")
            return
        self.records += 1
        if self.records == 1 and self.last == GENESIS and record["seq"] > 1:
            self.last = self.assumed = Anchor(record["seq"] - 1, str(record.get("prev")))
            self.beginning = AuditProblem("gap", self.line, f"records 1 to {record['seq'] - 1} are missing", self.path)
        if sound and record.get("kind") == "retention":
            self.removed |= {str(each).rpartition(" ")[2] for each in record.get("removed", [])}
        seq, prev, last = record["seq"], str(record.get("prev")), self.last
        if not sound:
            self.found("edited", f"record {seq} is not as it was written: its hash does not fit")
        if seq > last.seq + 1:
            self.found("gap", f"records {last.seq + 1} to {seq - 1} are missing")
        elif seq <= last.seq:
            self.found("reordered", f"record {seq} stands after record {last.seq}")
        elif prev != last.hash:
            self.found("broken", f"record {seq} does not continue record {last.seq}: one of them was replaced")
        self._place(record)
        self.last = Anchor(seq, str(record.get("hash")))
        self.head_seen = self.head_seen or self.last == self.head

    def _place(self, record: dict[str, Any]) -> None:
        """A file begins with the record that names the one before it, and only there may such a record stand."""
        follows = str(record.get("follows", "")) if record.get("kind") == "segment" else ""
        first = self.line == 1
        if first and self.before and follows != self.before:
            told = f"says it follows {follows}" if follows else "does not say what it follows"
            self.found("misplaced", f"the file stands after {self.before}, and {told}: moved, renamed or foreign")
        elif follows and not first and not self.joined:
            self.found("misplaced", f"record {record['seq']} begins a file, and stands within one")
