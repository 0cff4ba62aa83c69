"""A structural schema, compiled once into a tree of nodes that pruning, defaulting and validation walk.

Where the rules come from: kubernetes.io, "Extend the Kubernetes API with CustomResourceDefinitions", and the structural
schema KEP. What a schema may not say is refused here, as the CRD is created.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import re2

from remit.controlplane.schema.causes import Cause, Invalid
from remit.controlplane.schema.cel import Rule, compile_rules

TYPES: Final = frozenset({"object", "array", "string", "integer", "number", "boolean"})
_FORBIDDEN: Final = ("$ref", "definitions", "dependencies", "deprecated", "discriminator", "id", "patternProperties")
_FORBIDDEN_IN_LOGIC: Final = (
    "type", "nullable", "default", "additionalProperties", "description", "title",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-list-type",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Node:
    """One schema. What is true of its whole subtree (`has_rules`) is worked out once."""

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
    has_rules: bool = False

    def child(self, key: str) -> Node | None:
        """The schema of a field of an object, or None where none says anything about it."""
        return self.properties.get(key, self.additional)


def compile_node(schema: dict[str, Any], path: str, *, resource: bool = False) -> Node:
    """The tree for `schema`. Raises `Invalid` with every mistake in it; `path` is where it stands in the CRD."""
    causes: list[Cause] = []
    node = _node(schema, path, causes, resource=resource)
    if causes:
        raise Invalid(causes)
    return node


def _node(schema: dict[str, Any], path: str, causes: list[Cause], *, resource: bool = False) -> Node:
    _check(schema, path, causes, root=resource)
    node = Node(
        raw=schema,
        type=schema.get("type"),
        nullable=schema.get("nullable", False),
        int_or_string=schema.get("x-kubernetes-int-or-string", False),
        preserve=schema.get("x-kubernetes-preserve-unknown-fields", False),
        resource=resource or schema.get("x-kubernetes-embedded-resource", False),
        required=tuple(schema.get("required", ())),
        list_type=schema.get("x-kubernetes-list-type", "atomic"),
        map_keys=tuple(schema.get("x-kubernetes-list-map-keys", ())),
    )
    for name, part in schema.get("properties", {}).items():
        node.properties[name] = _node(part, f"{path}.properties[{name}]", causes)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        node.additional = _node(additional, f"{path}.additionalProperties", causes)
    elif additional is True:
        node.additional = Node(raw={}, preserve=True)
    if isinstance(schema.get("items"), dict):
        node.items = _node(schema["items"], f"{path}.items", causes)
    node.defaults = tuple(
        (name, orjson.dumps(part["default"]))
        for name, part in schema.get("properties", {}).items()
        if "default" in part
    )
    node.pattern = _pattern(schema.get("pattern"), f"{path}.pattern", causes)
    node.rules = compile_rules(schema, f"{path}.x-kubernetes-validations", causes)
    children = [*node.properties.values(), node.additional, node.items]
    node.has_rules = bool(node.rules) or any(child is not None and child.has_rules for child in children)
    return node


def _check(schema: dict[str, Any], path: str, causes: list[Cause], *, root: bool) -> None:
    """What makes a schema structural."""

    def refuse(reason: str, message: str, where: str = "") -> None:
        causes.append(Cause(reason, message, f"{path}.{where}" if where else path))

    type_ = schema.get("type")
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not type_:
        if root or not free:
            what = "specified array items" if path.endswith(".items") else "specified object fields"
            where = "at the root" if root else f"for {what}"
            refuse("FieldValueRequired", f"Required value: must not be empty {where}", "type")
    elif type_ not in TYPES:
        supported = ", ".join(f'"{name}"' for name in sorted(TYPES))
        refuse("FieldValueNotSupported", f'Unsupported value: "{type_}": supported values: {supported}', "type")
    elif root and type_ != "object":
        refuse("FieldValueInvalid", f'Invalid value: "{type_}": must be object at the root', "type")
    for word in _FORBIDDEN:
        if schema.get(word):
            refuse("FieldValueForbidden", f"Forbidden: {word} is not supported", word)
    if schema.get("uniqueItems"):
        message = "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        refuse("FieldValueForbidden", message, "uniqueItems")
    if schema.get("additionalProperties") is False:
        refuse("FieldValueForbidden", "Forbidden: additionalProperties cannot be set to false", "additionalProperties")
    if "additionalProperties" in schema and schema.get("properties"):
        refuse("FieldValueForbidden", "Forbidden: must not be used together with properties", "additionalProperties")
    if schema.get("nullable") and schema.get("x-kubernetes-int-or-string") and type_:
        refuse("FieldValueForbidden", "Forbidden: must be empty if x-kubernetes-int-or-string is true", "type")
    if type_ == "array" and not isinstance(schema.get("items"), dict):
        refuse("FieldValueRequired", "Required value: must be specified", "items")
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "map" and not schema.get("x-kubernetes-list-map-keys"):
        refuse("FieldValueRequired", "Required value: must not be empty if x-kubernetes-list-type is map",
               "x-kubernetes-list-map-keys")  # fmt: skip
    items: Any = schema.get("items")
    granular = list_type == "set" and isinstance(items, dict) and items.get("type") == "object"
    if granular and items.get("x-kubernetes-map-type") != "atomic":
        message = 'Invalid value: "granular": must be atomic as item of a list with x-kubernetes-list-type=set'
        refuse("FieldValueInvalid", message, "items.x-kubernetes-map-type")
    for word in ("allOf", "anyOf", "oneOf"):
        for number, part in enumerate(schema.get(word, ())):
            _check_logic(part, f"{path}.{word}[{number}]", causes)
    if isinstance(schema.get("not"), dict):
        _check_logic(schema["not"], f"{path}.not", causes)


def _check_logic(schema: dict[str, Any], path: str, causes: list[Cause]) -> None:
    """Inside allOf, anyOf, oneOf and not, a schema may only narrow what is said outside."""
    causes.extend(
        Cause("FieldValueForbidden", "Forbidden: must be empty to be structural", f"{path}.{word}")
        for word in _FORBIDDEN_IN_LOGIC
        if word in schema and not _is_int_or_string_idiom(path, word)
    )
    for name, part in schema.get("properties", {}).items():
        _check_logic(part, f"{path}.properties[{name}]", causes)
    if isinstance(schema.get("items"), dict):
        _check_logic(schema["items"], f"{path}.items", causes)


def _is_int_or_string_idiom(path: str, word: str) -> bool:
    return word == "type" and "anyOf[" in path


def _pattern(source: str | None, path: str, causes: list[Cause]) -> Any:
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
