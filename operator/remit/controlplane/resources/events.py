"""events.k8s.io/v1: the same Events as in the core group, under other field names."""

from __future__ import annotations

from typing import Any

from remit.controlplane.resources.resource import Conversion
from remit.controlplane.schema import Cause
from remit.controlplane.storage import Object

_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_ABOUT = "involvedObject.namespace"
_BACK = {new: old for old, new in _RENAMED.items()}


def _rename(obj: Object, names: dict[str, str], api_version: str) -> Object:
    renamed = {names.get(key, key): value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    return {"apiVersion": api_version, "kind": "Event", **renamed}


def _to_view(obj: Object) -> Object:
    return _rename(obj, _RENAMED, "events.k8s.io/v1")


def _to_storage(obj: Object) -> Object:
    return _rename(obj, _BACK, "v1")


def check_event(obj: Object, old: Object | None) -> list[Any]:
    """An Event lives beside what it is about."""
    about = (obj.get("involvedObject") or {}).get("namespace") or ""
    if about == obj["metadata"].get("namespace") or not about:
        return []
    return [Cause("FieldValueInvalid", f'Invalid value: "{about}": does not match event.namespace', _ABOUT)]


EVENTS_VIEW = Conversion(_to_view, _to_storage)
