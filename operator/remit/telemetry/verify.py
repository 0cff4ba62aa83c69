"""Checks an audit trail against its own chain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from remit.errors import InvalidInput
from remit.telemetry.chain import GENESIS, Anchor, parse_line

MAX_PROBLEMS: Final = 100
Kind = Literal["unreadable", "edited", "gap", "reordered", "broken", "torn", "cut"]


@dataclass(frozen=True)
class Problem:
    kind: Kind
    line: int
    """Counted from 1."""
    message: str


@dataclass(frozen=True)
class Report:
    """What was found. `head` is the last record: compare it with a copy kept elsewhere, or hand it to the next file."""

    records: int
    head: Anchor
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(path: Path, *, after: Anchor = GENESIS, head: Anchor | None = None) -> Report:
    """Follow the chain through the file. At most the first hundred problems are told.

    `after` is the head of the file that this one continues. `head`, when known, is a record that must be in this file
    (or be `after`): without it a cut tail cannot be seen. Raises `InvalidInput` when the file cannot be read.
    """
    problems: list[Problem] = []
    last, records, head_seen = after, 0, head is None or head == after

    def found(kind: Kind, message: str) -> None:
        if len(problems) < MAX_PROBLEMS:
            problems.append(Problem(kind, line_number, message))

    line_number = 0
    try:
        with path.open("rb") as lines:
            for line in lines:
                line_number += 1
                if not line.endswith(b"\n"):
                    found("torn", "the last line has no end: a crash, or a cut")
                try:
                    record, sound = parse_line(line.rstrip(b"\n"))
                except ValueError:
                    found("unreadable", "not an audit record")
                    continue
                records += 1
                seq, prev = record["seq"], str(record.get("prev"))
                if not sound:
                    found("edited", f"record {seq} is not as it was written: its hash does not fit")
                if seq > last.seq + 1:
                    found("gap", f"records {last.seq + 1} to {seq - 1} are missing")
                elif seq <= last.seq:
                    found("reordered", f"record {seq} stands after record {last.seq}")
                elif prev != last.hash:
                    found("broken", f"record {seq} does not continue record {last.seq}: one of them was replaced")
                last = Anchor(seq, str(record.get("hash")))
                head_seen = head_seen or last == head
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    if head and not head_seen:
        found("cut", f"record {head.seq} with the expected hash is not in the file")
    return Report(records, last, tuple(problems))
