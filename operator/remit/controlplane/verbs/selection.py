"""Which objects a list or watch is about: namespace, label selector, field selector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from remit.controlplane.failures import bad_request
from remit.controlplane.resources import ServedResource
from remit.controlplane.schema import parse_field_selector, parse_label_selector
from remit.controlplane.schema.selectors import Selector
from remit.controlplane.storage import Object, Record
from remit.controlplane.verbs.cluster import RequestInfo, load

_METADATA_FIELDS = frozenset({"metadata.name", "metadata.namespace"})


@dataclass(frozen=True)
class Selection:
    """A predicate on records. Cheap parts first; the object is parsed only for fields inside it."""

    resource: ServedResource
    namespace: str = ""
    name: str = ""
    labels: Selector | None = None
    fields: Selector | None = None

    def __call__(self, record: Record) -> bool:
        if self.namespace and record.namespace != self.namespace:
            return False
        if self.name and record.name != self.name:
            return False
        if self.labels is not None and not self.labels.matches(record.labels):
            return False
        return self.fields is None or self.fields.matches(self._values(record, self.fields))

    def _values(self, record: Record, fields: Selector) -> dict[str, str]:
        values = {"metadata.name": record.name, "metadata.namespace": record.namespace}
        if not fields.keys <= _METADATA_FIELDS:
            obj = load(self.resource, record)
            values |= {key: _field(obj, key) for key in fields.keys - _METADATA_FIELDS}
        return values

    @property
    def everything(self) -> bool:
        """Whether only the namespace can exclude a record."""
        return not self.name and self.labels is None and self.fields is None


def select(target: RequestInfo, labels: str, fields: str) -> Selection:
    """Raises 400 for a selector that cannot be parsed or a field that cannot be selected on."""
    try:
        by_label = parse_label_selector(labels) if labels else None
        by_field = None
        if fields:
            by_field = parse_field_selector(fields, _METADATA_FIELDS | set(target.resource.selectable_fields))
    except ValueError as error:
        raise bad_request(str(error)) from None
    return Selection(target.resource, target.namespace, target.name, by_label, by_field)


def _field(obj: Object, path: str) -> str:
    """A field as selectors compare it; empty when the object has none."""
    if path == "source":  # an Event's `source` is an object
        return (obj.get("source") or {}).get("component") or obj.get("reportingComponent") or ""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
