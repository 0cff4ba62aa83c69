"""Measures how fast the audit trail is written, record by record and in batches that share a sync, and verified."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.figures import Figures
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.verifying import verify

RECORDS = 100_000
SINGLE = 500
BATCH = 256
MAX_BYTES = 8 * 1024**2
"""Small enough that the trail has several files."""
EVENT = AuditEvent(
    kind="decision",
    namespace="data",
    task="nightly-dump",
    uid="7f2d8a52-0000-4000-8000-000000000000",
    who="manager:kubectl",
    argv=["pg_dump", "--format=custom", "app"],
    executable="pg_dump",
    resolved="/usr/bin/pg_dump",
    policy="data-team",
    rule="commands.allow[2]",
    verdict="Allowed",
    backend="process",
)


async def measure() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        with AuditLog(path, max_bytes=MAX_BYTES) as log:
            start = time.perf_counter()
            for _ in range(SINGLE):
                await log.append_async(EVENT)
            single = time.perf_counter() - start
            start = time.perf_counter()
            for _ in range((RECORDS - SINGLE) // BATCH + 1):
                await asyncio.gather(*(log.append_async(EVENT) for _ in range(BATCH)))
            batched = time.perf_counter() - start
        start = time.perf_counter()
        report = await asyncio.to_thread(verify, path)
        verified = time.perf_counter() - start
    if not report.ok:
        raise RuntimeError(f"the trail is not whole: {report.problems[0].message}")
    many = ((RECORDS - SINGLE) // BATCH + 1) * BATCH
    rows = [
        row("append, one at a time", SINGLE, single),
        row(f"append, {BATCH} at once", many, batched),
        row(f"verify, {report.files} files", report.records, verified),
    ]
    return Figures("Audit trail", ("", "records", "seconds", "records/s"), rows, "every append is synced to disk")


def row(name: str, count: int, seconds: float) -> tuple[str, ...]:
    return name, f"{count:,}", f"{seconds:.2f}", f"{count / seconds:,.0f}"
