"""Writing status: one merge patch for each real change, never over somebody else's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from remit.errors import ApiError
from remit.kube.client import Kube, Object
from remit.kube.reflector import Reflector
from remit.telemetry.metrics import Metrics


class Outdated(Exception):
    """The object changed behind our back, or is gone. The reflector holds what there is of it now: look again."""


def as_wire(status: BaseModel) -> dict[str, Any]:
    """A status as it is written: camelCase, without what is not known or empty."""
    document: dict[str, Any] = _compact(status.model_dump(mode="json", by_alias=True))
    return document


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that turns `old` into `new`, by top-level field."""
    changed = {name: _replacing(old.get(name), value) for name, value in new.items() if old.get(name) != value}
    return changed | {name: None for name in old if name not in new}


def _compact(value: Any) -> Any:
    if isinstance(value, dict):
        compact = {name: _compact(part) for name, part in value.items()}
        return {name: part for name, part in compact.items() if part not in (None, "", [], {})}
    return [_compact(item) for item in value] if isinstance(value, list) else value


def _replacing(old: Any, new: Any) -> Any:
    # A merge patch merges objects at any depth, so fields to remove must be named.
    if isinstance(old, dict) and isinstance(new, dict):
        gone = {name: None for name in old if name not in new}
        return {name: _replacing(old.get(name), value) for name, value in new.items()} | gone
    return new


class StatusWriter:
    """Writes status of one kind and keeps its reflector in step, so that the next step sees what this one wrote."""

    def __init__(self, kube: Kube, reflector: Reflector, metrics: Metrics, kind: str) -> None:
        self._kube, self._reflector, self._metrics = kube, reflector, metrics
        self._kind = kind
        self._written: Object | None = None
        """What was written last, as the server answered it."""

    def by_others(self, before: Object, after: Object) -> bool:
        """A predicate of updates: whether it is more than a status that this has just written. Whoever wrote that has
        decided already when to look at the object again."""
        return after is not self._written

    async def write(self, obj: Object, status: BaseModel | dict[str, Any]) -> Object:
        """Write `status`, a model or as it is on the wire, unless it is what `obj` says already.

        Raises `Outdated` when `obj` is not the newest, or is gone by now: whatever was to follow from the status would
        be the work of nobody.
        """
        metadata = obj["metadata"]
        patch = difference(obj.get("status") or {}, as_wire(status) if isinstance(status, BaseModel) else status)
        if not patch:
            return obj
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": patch}
        try:
            written = await self._kube.patch(
                self._reflector.resource, metadata["namespace"], metadata["name"], body, subresource="status"
            )
        except ApiError as error:
            if error.status not in {404, 409}:
                raise
            await self._look_again(obj)
            raise Outdated from error
        self._written = written
        self._metrics.api_writes.labels("patch", self._kind).inc()
        self._reflector.observe(written)
        if metadata["uid"] not in self._reflector.objects:  # the watch reported the deletion before the answer arrived
            raise Outdated
        return written

    async def _look_again(self, obj: Object) -> None:
        metadata = obj["metadata"]
        try:
            fresh = await self._kube.get(self._reflector.resource, metadata["namespace"], metadata["name"])
        except ApiError as error:
            if error.status != 404:
                raise
            self._reflector.observe_absence(obj)
        else:
            self._reflector.observe(fresh)
