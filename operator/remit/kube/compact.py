"""Makes the objects of a cache small. Of a finished task, 10,000 of which may be kept, 28 KiB become 7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from remit.kube.client import Object

_LONGEST_SHARED: Final = 24
"""The characters of a value that is shared: times, reasons and settings are, and uids and output are not."""
_MOST_SHARED: Final = 10_000


class Compactor:
    """Gives what a cache keeps of an object, in place of the object as it was parsed. `is_final` tells which objects
    are not expected to change: equal strings of those are made one, which costs more than it saves for the others."""

    def __init__(self, is_final: Callable[[Object], bool] = lambda obj: False) -> None:
        self._is_final = is_final
        self._strings: dict[str, str] = {}

    def __call__(self, obj: Object) -> Object:
        kept = without_field_sets(obj)
        if not self._is_final(kept):
            return kept
        if len(self._strings) > _MOST_SHARED:
            self._strings.clear()  # objects keep what they share
        try:
            shared: Object = _with_shared(kept, self._strings)
        except RecursionError:  # of an object that is nested too deeply
            return kept
        return shared


def without_field_sets(obj: Object) -> Object:
    """`obj` with managedFields that name no fields but those at the top, and annotations. Nothing else of them is ever
    read, and they are half of an object."""
    entries = obj["metadata"].get("managedFields")
    if not entries:
        return obj
    outlined = [{**entry, "fieldsV1": _outline(entry.get("fieldsV1"))} for entry in entries]
    return {**obj, "metadata": {**obj["metadata"], "managedFields": outlined}}


def _outline(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        return {}
    metadata = fields.get("f:metadata")
    annotations = metadata.get("f:annotations") if isinstance(metadata, dict) else None
    outline: dict[str, Any] = {name: {} for name in fields}
    if isinstance(annotations, dict):
        outline["f:metadata"] = {"f:annotations": {name: {} for name in annotations}}
    return outline


def _with_shared(value: Any, strings: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {strings.setdefault(name, name): _with_shared(each, strings) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_shared(each, strings) for each in value]
    if isinstance(value, str) and len(value) <= _LONGEST_SHARED:
        return strings.setdefault(value, value)
    return value
