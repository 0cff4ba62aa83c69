"""Determines which finished tasks are deleted by default: those that no client would create again. Pure.

A task with a generated name was created once, by `remit run`, `kubectl create` or a program. A task that was applied,
or that a GitOps tool or Helm tracks, would be created again by the next sync, and so run again. A task with an owner,
such as a run of a schedule or the hook of a release, is deleted with its owner, or by its history limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_MANAGED_BY: Final = frozenset({"app.kubernetes.io/managed-by", "app.kubernetes.io/instance"})
"""Helm's label, and the one by which Argo CD tracks unless told otherwise."""
_TOOLS: Final = ("argocd.argoproj.io", "helm.sh", "fluxcd.io", "config.k8s.io")
"""Ends of the prefixes of the labels and annotations of tools that sync."""


def is_disposable(obj: Mapping[str, Any]) -> bool:
    """Whether the task may be deleted some time after its end though its spec does not say so."""
    metadata = obj["metadata"]
    if not metadata.get("generateName") or metadata.get("ownerReferences"):
        return False
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    if _LAST_APPLIED in annotations or _MANAGED_BY & labels.keys():
        return False
    if any(_is_of_a_tool(key) for key in (*annotations, *labels)):
        return False
    entries = metadata.get("managedFields") or ()
    return not any(entry.get("operation") == "Apply" and not entry.get("subresource") for entry in entries)


def _is_of_a_tool(key: str) -> bool:
    prefix, slash, _ = key.partition("/")
    return bool(slash) and any(prefix == tool or prefix.endswith(f".{tool}") for tool in _TOOLS)
