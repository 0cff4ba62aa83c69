"""The resources that the server serves: one `ServedResource` per group, version and plural, and the live registry of
them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from remit.controlplane.failures import Failure, invalid, not_found, qualified
from remit.controlplane.schema import Columns, Schema
from remit.controlplane.storage import Object

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class ScalePaths:
    """Dotted JSON paths of a CRD's scale subresource."""

    spec_replicas: str
    status_replicas: str
    label_selector: str = ""


@dataclass(frozen=True)
class Conversion:
    """How a resource shows objects that are stored as another kind, and takes them back."""

    to_view: Callable[[Object], Object]
    to_storage: Callable[[Object], Object]


def _unchanged(obj: Object, old: Object | None) -> None:
    """Nothing to prepare."""


def _no_causes(obj: Object, old: Object | None) -> list[Any]:
    return []


@dataclass(frozen=True)
class ServedResource:
    """One served resource version. `stored_as` names the collection in the store that all versions share."""

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    list_kind: str
    schema: Schema
    columns: Columns
    stored_as: str
    storage_version: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    custom: bool = False
    stored_schema: Schema | None = None
    """The schema of the storage version, if it differs from this one."""
    status: bool = False
    scale: ScalePaths | None = None
    has_generation: bool = False
    unconditional_update: bool = True
    create_on_update: bool = False
    selectable_fields: tuple[str, ...] = ()
    openapi: dict[str, Any] = field(default_factory=dict, compare=False)
    deprecated: str = ""
    """The warning that users of a deprecated version are given."""
    conversion: Conversion | None = None
    prepare: Callable[[Object, Object | None], None] = _unchanged
    """Given the new and the old state, brings the new one into its stored form: a Secret's stringData becomes data."""
    settle: Callable[[Object, Object | None], None] = _unchanged
    """Sets what the server alone decides, and no field manager owns: a Namespace's phase."""
    check: Callable[[Object, Object | None], list[Any]] = _no_causes
    """Causes that no schema can say, such as the immutability of a CRD's scope."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def subresources(self) -> tuple[str, ...]:
        return (("status",) if self.status else ()) + (("scale",) if self.scale else ())

    @property
    def prefix(self) -> bytes:
        """How every stored object of this resource begins."""
        api_version = f"{self.group}/{self.storage_version}" if self.group else self.storage_version
        return f'{{"apiVersion":"{api_version}","kind":"{self.kind}",'.encode()

    # ---- refusals, named for the resource --------------------------------------------------------------------------

    def not_found(self, name: str) -> Failure:
        return not_found(self.group, self.plural, name)

    def invalid(self, name: str, causes: list[Any]) -> Failure:
        return invalid(self.group, self.kind, name, causes)

    def __str__(self) -> str:
        return qualified(self.group, self.plural)


class Registry:
    """Resources by group, version and plural. `generation` changes with every change of what is served."""

    def __init__(self) -> None:
        self._resources: dict[tuple[str, str, str], ServedResource] = {}
        self.generation = 0

    def find(self, group: str, version: str, plural: str) -> ServedResource | None:
        return self._resources.get((group, version, plural))

    def replace(self, group: str, plural: str, resources: Iterable[ServedResource]) -> None:
        """Serve exactly these versions of `plural.group` from now on; none stops serving it."""
        kept = {key: r for key, r in self._resources.items() if (r.group, r.plural) != (group, plural)}
        self._resources = kept | {(r.group, r.version, r.plural): r for r in resources}
        self.generation += 1

    def by_kind(self, group: str, kind: str) -> ServedResource | None:
        """The version objects are stored as, for those who know a kind only (ownerReferences)."""
        for resource in self._resources.values():
            if (resource.group, resource.kind, resource.version) == (group, kind, resource.storage_version):
                return resource
        return None

    def storing(self, stored_as: str) -> ServedResource | None:
        """The resource whose version is the one kept in the store."""
        for resource in self._resources.values():
            stored = resource.version == resource.storage_version and resource.conversion is None
            if stored and resource.stored_as == stored_as:
                return resource
        return None

    def versions(self, group: str) -> list[str]:
        """Served versions, the preferred one first."""
        found = {r.version for r in self._resources.values() if r.group == group}
        return sorted(found, key=version_order)

    def groups(self) -> list[str]:
        """Named groups (the core group is ''), in the order they appear to users."""
        return list(dict.fromkeys(r.group for r in self._resources.values() if r.group))

    def served(self, group: str, version: str) -> list[ServedResource]:
        return sorted(
            (r for r in self._resources.values() if (r.group, r.version) == (group, version)), key=lambda r: r.plural
        )

    def __iter__(self) -> Iterator[ServedResource]:
        return iter(self._resources.values())


def version_order(version: str) -> tuple[int, int, int, str]:
    """Sort key of Kubernetes' version priority: v2, v1, v2beta1, v1beta1, v1alpha1, then the rest by name."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if not match:
        return (3, 0, 0, version)
    major, stage, minor = match.groups()
    rank = {None: 0, "beta": 1, "alpha": 2}[stage]
    return (rank, -int(major), -int(minor or 0), version)
