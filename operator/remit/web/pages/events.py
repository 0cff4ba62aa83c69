"""Events as people read them."""

from __future__ import annotations

from typing import Any

from remit.kube.client import Object
from remit.web.rows import moment


def event_row(event: Object) -> dict[str, Any]:
    told = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return {
        "kind": "bad" if event.get("type") == "Warning" else "off",
        "reason": str(event.get("reason", "")),
        "message": str(event.get("message", "")),
        "count": int(event.get("count") or 1),
        "at": moment(told),
    }
