"""Objects that this version cannot read, such as one that an earlier version stored and today's rules refuse.

Nothing is done about them, and their status says so. All else that it said is kept, for a version that reads it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import structlog

from remit.api.base import Condition
from remit.errors import ApiError
from remit.kube.client import Object
from remit.kube.events import Recorder
from remit.kube.status import StatusWriter

log = structlog.get_logger(__name__)

_INVALID = 422


async def tell(
    writer: StatusWriter,
    events: Recorder,
    obj: Object,
    phase: str,
    reason: str,
    message: str,
    truths: Mapping[str, str],
    now: datetime.datetime,
) -> None:
    """Says once that nothing is done about `obj`, which ends the wait of kubectl, Helm and GitOps tools: `phase`, and
    the conditions `truths` with the reason and the message. Raises `Outdated` and `ApiError`."""
    before: dict[str, Any] = obj.get("status") or {}
    generation = obj["metadata"]["generation"]
    conditions = [_condition(before, type_, truth, reason, message, generation, now) for type_, truth in truths.items()]
    status = before | {
        "observedGeneration": generation,
        "phase": phase,
        "message": message,
        "conditions": conditions,
    }
    if status == before:
        return
    events.record(obj, "Warning", reason, message)
    try:
        await writer.write(obj, status)
    except ApiError as error:
        if error.status != _INVALID:
            raise
        log.warning("the API server refuses the status of an object that is invalid by now", error=str(error))


def _condition(
    before: dict[str, Any], type_: str, truth: str, reason: str, message: str, generation: int, now: datetime.datetime
) -> dict[str, Any]:
    same = [each for each in before.get("conditions") or () if (each.get("type"), each.get("status")) == (type_, truth)]
    condition = Condition.model_validate(
        {
            "type": type_,
            "status": truth,
            "reason": reason,
            "message": message,
            "lastTransitionTime": (same and same[0].get("lastTransitionTime")) or now.replace(microsecond=0),
            "observedGeneration": generation,
        }
    )
    document: dict[str, Any] = condition.model_dump(mode="json", by_alias=True)
    return document
