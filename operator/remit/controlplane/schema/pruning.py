"""Pruning: what a schema does not know is taken out."""

from __future__ import annotations

from typing import Any, Final

from remit.controlplane.schema.causes import joined
from remit.controlplane.schema.structural import Node

OBJECT_META: Final = frozenset(
    {
        "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
        "generateName", "generation", "labels", "managedFields", "name", "namespace", "ownerReferences",
        "resourceVersion", "selfLink", "uid",
    }
)  # fmt: skip
_UNKNOWN: Final = Node(raw={})
_RESOURCE: Final = frozenset({"apiVersion", "kind", "metadata"})


def prune(node: Node, value: Any, path: str, unknown: list[str]) -> None:
    """Take unknown fields out of `value` in place, adding their paths to `unknown`."""
    if isinstance(value, dict):
        _prune_object(node, value, path, unknown)
    elif isinstance(value, list) and (node.items is not None or not node.preserve):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                prune(node.items or _UNKNOWN, item, f"{path}[{index}]", unknown)


def _prune_object(node: Node, value: dict[str, Any], path: str, unknown: list[str]) -> None:
    gone = []
    for key, part in value.items():
        if node.resource and key in _RESOURCE:
            if key == "metadata" and isinstance(part, dict):
                _prune_metadata(part, joined(path, key), unknown)
            continue
        child = node.child(key)
        if child is None:
            if not node.preserve:
                gone.append(key)
        elif isinstance(part, dict | list):
            prune(child, part, joined(path, key), unknown)
    for key in gone:
        del value[key]
        unknown.append(joined(path, key))


def _prune_metadata(metadata: dict[str, Any], path: str, unknown: list[str]) -> None:
    for key in [key for key in metadata if key not in OBJECT_META]:
        del metadata[key]
        unknown.append(f"{path}.{key}")
