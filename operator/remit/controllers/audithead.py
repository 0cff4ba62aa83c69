"""Publishes the audit trail's head where a user who may write the trail cannot change it: in the log, metrics and the
Lease.

With such a copy, `remit audit verify --head` finds a trail whose end was cut off or that was written anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from remit.errors import ApiError
from remit.kube.client import LEASES, Kube
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import Anchor
from remit.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

ANNOTATION: Final = "remit.dev/audit-head"
"""Annotation of the Lease with `SEQ:HASH` of the audit trail at the last renewal."""
NOTE_SECONDS: Final = 5.0
"""Minimum time between two updates of the Lease, in seconds, if no leader renews it."""
EVERY_SECONDS: Final = 300.0
"""How often the log has the head, at most, while records are written."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """Publishes the head of the audit trail as it is written."""

    metrics: Metrics

    def written(self, records: int) -> None:
        self.metrics.audit_records.inc(records)

    def closed(self, file: Path, head: Anchor) -> None:
        log.info("an audit file is complete", file=file.name, seq=head.seq, hash=head.hash)


def noted(audit: AuditLog) -> dict[str, str]:
    """Annotations for the Lease with the head of the audit trail."""
    return {ANNOTATION: str(audit.head)}


async def keep_noting(
    kube: Kube, namespace: str, lease_name: str, audit: AuditLog, every: float = NOTE_SECONDS
) -> None:
    """Records the head on the Lease whenever it has moved, without end. For an operator that holds no lease."""
    last: Anchor | None = None
    failed = False
    while True:
        head = audit.head
        if head != last:
            problem = await note(kube, namespace, lease_name, audit)
            if problem is None:
                last = head
            elif not failed:  # log the first failure of several in a row only
                log.warning("the audit head could not be noted on the lease", lease=lease_name, error=str(problem))
            failed = problem is not None
        await asyncio.sleep(every)


async def note(kube: Kube, namespace: str, lease_name: str, audit: AuditLog) -> ApiError | None:
    """Records the head on the Lease. Creates a Lease without a holder if there is none. Returns the error if it
    fails."""
    try:
        try:
            lease = await kube.get(LEASES, namespace, lease_name)
        except ApiError as error:
            if error.status != 404:
                return error
            metadata = {"name": lease_name, "namespace": namespace, "annotations": noted(audit)}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
            await kube.create(LEASES, namespace, body)
        else:
            annotations = (lease["metadata"].get("annotations") or {}) | noted(audit)
            changed = lease | {"metadata": lease["metadata"] | {"annotations": annotations}}
            await kube.replace(LEASES, namespace, lease_name, changed)
    except ApiError as error:
        return error
    return None


def tell(audit: AuditLog, when: str) -> Anchor:
    """Log the head, and give it."""
    head = audit.head
    log.info("audit head", when=when, seq=head.seq, hash=head.hash)
    return head


async def keep_telling(audit: AuditLog, every: float = EVERY_SECONDS) -> None:
    """Logs the head whenever it has moved, without end."""
    told = audit.head
    while True:
        await asyncio.sleep(every)
        if audit.head != told:
            told = tell(audit, "running")
