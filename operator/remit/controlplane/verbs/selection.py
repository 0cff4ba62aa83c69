"""Which objects a list or watch is about: namespace, label selector, field selector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from remit.controlplane import standin as schema
from remit.controlplane.failures import bad_request
from remit.controlplane.storage import Object, Record
from remit.controlplane.verbs.cluster import Target

_METADATA_FIELDS = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True)
class Selection:
    """A predicate on records. Cheap parts first; the object is parsed only for fields inside it."""

    namespace: str = ""
    name: str = ""
    labels: Callable[[dict[str, str]], bool] | None = None
    fields: Callable[[Object], bool] | None = None

    def __call__(self, record: Record) -> bool:
        if self.namespace and record.namespace != self.namespace:
            return False
        if self.name and record.name != self.name:
            return False
        if self.labels is not None and not self.labels(record.labels):
            return False
        return self.fields is None or self.fields(record.load())

    @property
    def everything(self) -> bool:
        """Whether only the namespace can exclude a record."""
        return not self.name and self.labels is None and self.fields is None


def select(target: Target, labels: str, fields: str) -> Selection:
    """Raises 400 for a selector that cannot be parsed or a field that cannot be selected on."""
    try:
        by_label = schema.parse_label_selector(labels) if labels else None
        by_field = None
        if fields:
            allowed = (*_METADATA_FIELDS, *target.resource.selectable_fields)
            by_field = schema.parse_field_selector(fields, allowed)
    except ValueError as error:
        raise bad_request(str(error)) from None
    return Selection(target.namespace, target.name, by_label, by_field)
