"""Events as people read them."""

from __future__ import annotations

from typing import Any

from remit.kube.client import Object
from remit.web.rows import moment
from remit.web.viewer import last_seen


def event_row(event: Object) -> dict[str, Any]:
    return {
        "kind": "bad" if event.get("type") == "Warning" else "off",
        "reason": str(event.get("reason", "")),
        "message": str(event.get("message", "")),
        "count": int(event.get("count") or 1),
        "at": moment(last_seen(event)),
    }
