"""A structural schema, compiled once into a tree of nodes that pruning, defaulting and validation walk.

Where the rules come from: kubernetes.io, "Extend the Kubernetes API with CustomResourceDefinitions", and the structural
schema KEP. What a schema may not say is refused here, as the CRD is created.
"""

from __future__ import annotations

from collections.abc import Callable
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


_Refuse = Callable[[str, str, str], None]


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
    children = [child for child in (*node.properties.values(), node.additional, node.items) if child is not None]
    node.has_rules = bool(node.rules) or any(child.has_rules for child in children)
    node.has_embedded = node.embedded or any(child.has_embedded for child in children)
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
    _check_list(schema, refuse)
    _check_object(schema, refuse, root=root)
    for word in ("allOf", "anyOf", "oneOf"):
        for number, part in enumerate(schema.get(word, ())):
            _check_logic(part, f"{path}.{word}[{number}]", causes)
    if isinstance(schema.get("not"), dict):
        _check_logic(schema["not"], f"{path}.not", causes)


def _check_list(schema: dict[str, Any], refuse: _Refuse) -> None:
    items: Any = schema.get("items")
    list_type, map_keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if isinstance(items, list):
        refuse("FieldValueForbidden", "Forbidden: items must be a schema object and not an array", "items")
    elif items is None and (schema.get("type") == "array" or list_type):
        refuse("FieldValueRequired", "Required value: must be specified", "items")
    if list_type is None:
        if map_keys:
            message = "Forbidden: may only be set if x-kubernetes-list-type is map"
            refuse("FieldValueForbidden", message, "x-kubernetes-list-map-keys")
        return
    if list_type not in ("atomic", "set", "map"):
        message = f'Unsupported value: "{list_type}": supported values: "atomic", "set", "map"'
        refuse("FieldValueNotSupported", message, "x-kubernetes-list-type")
    if schema.get("type") != "array":
        message = f"Invalid value: {_shown(schema.get('type'))}: must be array if x-kubernetes-list-type is specified"
        refuse("FieldValueInvalid", message, "type")
    if not isinstance(items, dict):
        items = {}
    if list_type == "set" and items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        message = 'Invalid value: "granular": must be atomic as item of a list with x-kubernetes-list-type=set'
        refuse("FieldValueInvalid", message, "items.x-kubernetes-map-type")
    if list_type == "map" and not map_keys:
        message = "Required value: must not be empty if x-kubernetes-list-type is map"
        refuse("FieldValueRequired", message, "x-kubernetes-list-map-keys")
    if list_type == "map" and items:
        _check_map_keys(items, map_keys, refuse)


def _check_map_keys(items: dict[str, Any], map_keys: list[str], refuse: _Refuse) -> None:
    where, fields = "x-kubernetes-list-map-keys", items.get("properties") or {}
    if items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        refuse("FieldValueInvalid", f"Invalid value: {_shown(items.get('type'))}: {why}", "items.type")
    elif any(key not in fields for key in map_keys):
        message = f"Invalid value: {_shown(map_keys)}: entries must all be names of item properties"
        refuse("FieldValueInvalid", message, where)
    for key in map_keys:
        if key in fields and "default" not in fields[key] and key not in (items.get("required") or ()):
            message = (
                f"Required value: this property is in {where}, so it must have a default or be a required property"
            )
            refuse("FieldValueRequired", message, f"items.properties[{key}].default")


def _check_object(schema: dict[str, Any], refuse: _Refuse, *, root: bool) -> None:
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None and map_type not in ("atomic", "granular"):
        message = f'Unsupported value: "{map_type}": supported values: "atomic", "granular"'
        refuse("FieldValueNotSupported", message, "x-kubernetes-map-type")
    preserve = schema.get("x-kubernetes-preserve-unknown-fields")
    if preserve is False:
        message = "Invalid value: false: must be true or undefined"
        refuse("FieldValueInvalid", message, "x-kubernetes-preserve-unknown-fields")
    embedded = schema.get("x-kubernetes-embedded-resource")
    if embedded and not schema.get("properties") and not preserve:
        needed = "x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        refuse("FieldValueRequired", f"Required value: must not be empty if {needed}", "properties")
    if embedded and (type_ := schema.get("type")) and type_ != "object":
        why = "must be object if x-kubernetes-embedded-resource is true"
        refuse("FieldValueInvalid", f"Invalid value: {_shown(type_)}: {why}", "type")
    if root or embedded:
        _check_type_meta(schema.get("properties") or {}, refuse)


def _check_type_meta(properties: dict[str, Any], refuse: _Refuse) -> None:
    """What a schema may say of the fields that every object has."""
    for name, expected in (("apiVersion", "string"), ("kind", "string"), ("metadata", "object")):
        type_ = properties.get(name, {}).get("type", expected)
        if type_ != expected:
            message = f"Invalid value: {_shown(type_)}: must be {expected}"
            refuse("FieldValueInvalid", message, f"properties[{name}].type")
    if (properties.get("metadata", {}).get("properties") or {}).keys() - {"name", "generateName"}:
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        refuse("FieldValueForbidden", f"Forbidden: {why}", "properties[metadata]")


def _shown(value: Any) -> str:
    return orjson.dumps(value or "").decode()


def _check_logic(schema: dict[str, Any], path: str, causes: list[Cause]) -> None:
    """Inside allOf, anyOf, oneOf and not, a schema may only narrow what is said outside."""
    causes.extend(
        Cause("FieldValueForbidden", "Forbidden: must be empty to be structural", f"{path}.{word}")
        for word in _FORBIDDEN_IN_LOGIC
        if word in schema and not _is_int_or_string_idiom(path, word)
    )
    _pattern(schema.get("pattern"), f"{path}.pattern", causes)
    for name, part in schema.get("properties", {}).items():
        _check_logic(part, f"{path}.properties[{name}]", causes)
    for word in ("items", "not"):
        if isinstance(schema.get(word), dict):
            _check_logic(schema[word], f"{path}.{word}", causes)
        elif schema.get(word) is not None:
            why = "Forbidden: items must be a schema object and not an array"
            causes.append(Cause("FieldValueForbidden", why, f"{path}.{word}"))
    for word in ("allOf", "anyOf", "oneOf"):
        for number, part in enumerate(schema.get(word, ())):
            _check_logic(part, f"{path}.{word}[{number}]", causes)


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
