"""Defaulting: what is not set is filled in; a null that may not be one counts as not set."""

from __future__ import annotations

from typing import Any

import orjson

from remit.controlplane.schema.structural import Node


def default(node: Node, value: Any) -> None:
    """Fill `value` in place. Idempotent."""
    if isinstance(value, dict):
        for name, document in node.defaults:
            if value.get(name) is None and not (name in value and node.properties[name].nullable):
                value[name] = orjson.loads(document)
        for key, part in list(value.items()):
            child = node.child(key)
            if child is None:
                continue
            if part is None:
                if not child.nullable:
                    del value[key]
            elif isinstance(part, dict | list):
                default(child, part)
    elif isinstance(value, list) and node.items is not None:
        for item in value:
            if isinstance(item, dict | list):
                default(node.items, item)
