"""The removal of closed files of an audit trail, from the front, which is itself on record before it happens.

A record of kind `retention` names each file and its last record, as `NAME SEQ:HASH`. The trail that is left begins
after one of these, so that `verify` takes its beginning for whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from remit.telemetry.audit import last_record
from remit.telemetry.chain import Anchor, AuditEvent
from remit.telemetry.segments import segments

MOST_AT_ONCE: Final = 100
"""Files that one record names."""


def removable(path: Path) -> list[Path]:
    """The closed files of the trail whose newest file is `path`, oldest first, up to the first that is no file or does
    not end in a sound record. Raises OSError."""
    found = []
    for each in segments(path):
        if each.is_symlink() or not each.is_file() or last_record(each) is None:
            break
        found.append(each)
    return found


def remove(path: Path, files: Sequence[Path], why: str, append: Callable[[AuditEvent], Anchor]) -> list[Path]:
    """Record the removal of `files`, the oldest ones of the trail in their order, and remove them. Gives those that are
    gone. A crash leaves what was recorded and not removed for the next time.

    Raises `AuditUnavailable`, before anything is removed, and OSError.
    """
    oldest = removable(path)[: min(len(files), MOST_AT_ONCE)]
    if not oldest or oldest != list(files[: len(oldest)]):
        return []
    heads = [(each, last_record(each)) for each in oldest]
    append(AuditEvent(kind="retention", removed=[f"{each.name} {head}" for each, head in heads], message=why))
    gone = []
    for each, _ in heads:  # oldest first, so that the trail has no gap if this is interrupted
        each.unlink(missing_ok=True)
        gone.append(each)
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return gone
