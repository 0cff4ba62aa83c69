"""A structural schema, compiled once into a tree of nodes that pruning, defaulting and validation walk.

Whether a schema is structural is seen to when its CRD is written (`crdschema.py`). Here it is taken as it is, so that
what was stored by a version that checked less is served still.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
import re2

from remit.controlplane.schema.causes import Cause, Invalid
from remit.controlplane.schema.cel import Rule, compile_rules


@dataclass(slots=True, eq=False)
class Node:
    """One schema. What is true of its whole subtree (`has_…`) is worked out once."""

    raw: dict[str, Any]
    type: str | None = None
    nullable: bool = False
    int_or_string: bool = False
    preserve: bool = False
    resource: bool = False
    """It describes a whole object: `apiVersion`, `kind` and `metadata` are known without being listed."""
    properties: dict[str, Node] = field(default_factory=dict)
    additional: Node | None = None
    items: Node | None = None
    required: tuple[str, ...] = ()
    defaults: tuple[tuple[str, bytes], ...] = ()
    """Properties with a default, as JSON: decoding it again is the cheapest way to copy it."""
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    pattern: Any = None
    rules: tuple[Rule, ...] = ()
    embedded: bool = False
    """It describes an object within the object."""
    has_rules: bool = False
    has_embedded: bool = False

    def child(self, key: str) -> Node | None:
        """The schema of a field of an object, or None where none says anything about it."""
        return self.properties.get(key, self.additional)


def compile_node(schema: dict[str, Any], path: str, *, resource: bool = False) -> Node:
    """The tree for `schema`. Raises `Invalid` with every mistake in it; `path` is where it stands in the CRD."""
    causes: list[Cause] = []
    node = compile_usable(schema, path, causes, resource=resource)
    if causes:
        raise Invalid(causes)
    return node


def compile_usable(schema: dict[str, Any], path: str, causes: list[Cause], *, resource: bool = False) -> Node:
    """The tree without the patterns and rules that do not compile, which are added to `causes`."""
    return _node(schema, path, causes, resource=resource)


def _node(schema: dict[str, Any], path: str, causes: list[Cause], *, resource: bool = False) -> Node:
    node = Node(
        raw=schema,
        type=schema.get("type"),
        nullable=schema.get("nullable", False),
        int_or_string=schema.get("x-kubernetes-int-or-string", False),
        preserve=schema.get("x-kubernetes-preserve-unknown-fields", False),
        resource=resource or schema.get("x-kubernetes-embedded-resource", False),
        embedded=schema.get("x-kubernetes-embedded-resource", False),
        required=tuple(schema.get("required", ())),
        list_type=schema.get("x-kubernetes-list-type", "atomic"),
        map_keys=tuple(schema.get("x-kubernetes-list-map-keys", ())),
    )
    for name, part in schema.get("properties", {}).items():
        node.properties[name] = _node(part, f"{path}.properties[{name}]", causes)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        node.additional = _node(additional, f"{path}.additionalProperties", causes)
    elif additional is not None:
        node.additional = Node(raw={})  # any key is allowed and values are not described, as in kube-apiserver
    if isinstance(schema.get("items"), dict):
        node.items = _node(schema["items"], f"{path}.items", causes)
    node.defaults = tuple(
        (name, orjson.dumps(part["default"]))
        for name, part in schema.get("properties", {}).items()
        if "default" in part
    )
    node.pattern = compile_pattern(schema.get("pattern"), f"{path}.pattern", causes)
    node.rules = compile_rules(schema, f"{path}.x-kubernetes-validations", causes)
    children = [child for child in (*node.properties.values(), node.additional, node.items) if child is not None]
    node.has_rules = bool(node.rules) or any(child.has_rules for child in children)
    node.has_embedded = node.embedded or any(child.has_embedded for child in children)
    return node


def compile_pattern(source: str | None, path: str, causes: list[Cause]) -> Any:
    """A pattern of RE2, or None. One that cannot be read is a cause."""
    if not source:
        return None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(source, options)
    except re2.error as error:
        causes.append(
            Cause(
                "FieldValueInvalid",
                f'Invalid value: "{source}": must be a valid regular expression, but isn\'t: {error}',
                path,
            )
        )
        return None
