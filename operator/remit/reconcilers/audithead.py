"""Tells the audit trail's head to where whoever may write the trail cannot take it back: the log, metrics, the Lease.

With such a copy, `remit audit verify --head` finds a trail whose end was cut off or that was written anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from remit.telemetry import Anchor, AuditLog, Metrics

log = structlog.get_logger(__name__)

ANNOTATION: Final = "remit.dev/audit-head"
"""Of the Lease: `SEQ:HASH` at its last renewal."""
EVERY_SECONDS: Final = 300.0
"""How often the log has the head, at most, while records are written."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What happens to the trail as it is written."""

    metrics: Metrics

    def written(self, records: int) -> None:
        self.metrics.audit_records.inc(records)

    def closed(self, file: Path, head: Anchor) -> None:
        log.info("an audit file is complete", file=file.name, seq=head.seq, hash=head.hash)


def noted(audit: AuditLog) -> dict[str, str]:
    """For the Lease."""
    return {ANNOTATION: str(audit.head)}


def tell(audit: AuditLog, when: str) -> Anchor:
    """Log the head, and give it."""
    head = audit.head
    log.info("audit head", when=when, seq=head.seq, hash=head.hash)
    return head


async def keep_telling(audit: AuditLog, every: float = EVERY_SECONDS) -> None:
    """Log the head for ever, whenever it moved meanwhile."""
    told = audit.head
    while True:
        await asyncio.sleep(every)
        if audit.head != told:
            told = tell(audit, "running")
