"""REST paths of the kinds of an API server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """Group, version and plural name of a kind, which determine its REST path. `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [prefix, *(["namespaces", namespace] if namespace and self.namespaced else []), self.plural]
        return "/".join([*parts, *([name] if name else []), *([subresource] if subresource else [])])
