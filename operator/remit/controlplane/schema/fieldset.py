"""Sets of fields of an object, and what the schema says about which fields can be owned one by one.

A field is a path of elements as `managedFields` writes them: `f:NAME` a field, `k:{"name":"x"}` an item of a list-map,
`v:"x"` an item of a set. Rules: sigs.k8s.io/structured-merge-diff. Where the schema is silent, maps are owned key by
key and lists as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from remit.controlplane.schema.jsontypes import same

Path = tuple[str, ...]
FieldSet = frozenset[Path]
SchemaDict = Mapping[str, Any]

ABSENT: Final = object()
"""Not there at all, which differs from null."""

_STRING: Final[SchemaDict] = {"type": "string"}
_INTEGER: Final[SchemaDict] = {"type": "integer"}
_STRINGS: Final[SchemaDict] = {"type": "object", "additionalProperties": _STRING}
_METADATA: Final[SchemaDict] = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("name", "generateName", "namespace", "uid", "resourceVersion", "selfLink"), _STRING),
        **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), _STRING),
        **dict.fromkeys(("generation", "deletionGracePeriodSeconds"), _INTEGER),
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "finalizers": {"type": "array", "items": _STRING, "x-kubernetes-list-type": "set"},
        "ownerReferences": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "items": {"type": "object", "x-kubernetes-map-type": "atomic"},
        },
    },
}


class Child(NamedTuple):
    """A part of a value that can be owned by itself. `declared`: the schema lists the field by name."""

    value: Any
    schema: SchemaDict | None
    declared: bool = False


class Comparison(NamedTuple):
    added: FieldSet
    removed: FieldSet
    modified: FieldSet


def object_schema(raw: SchemaDict | None) -> SchemaDict:
    """The schema of a whole object: what `raw` says, and what is known of every object's metadata."""
    raw = raw or {}
    known = {"apiVersion": _STRING, "kind": _STRING, "metadata": _METADATA}
    return {**raw, "properties": {**raw.get("properties", {}), **known}}


def children(value: Any, schema: SchemaDict | None) -> dict[str, Child] | None:
    """The parts of `value` by path element, or None when it is owned as one."""
    rules: SchemaDict = schema or {}
    if isinstance(value, dict):
        if rules.get("x-kubernetes-map-type") == "atomic":
            return None
        return {f"f:{key}": Child(part, *_field(rules, key)) for key, part in value.items()}
    if isinstance(value, list):
        return _items(value, rules)
    return None


def element_schema(schema: SchemaDict | None, element: str) -> tuple[SchemaDict | None, bool]:
    """The schema behind a path element, and whether it is a field listed by name."""
    rules: SchemaDict = schema or {}
    return _field(rules, element[2:]) if element.startswith("f:") else (rules.get("items"), False)


def _field(rules: SchemaDict, key: str) -> tuple[SchemaDict | None, bool]:
    declared = rules.get("properties", {}).get(key)
    if declared is not None:
        return declared, True
    additional = rules.get("additionalProperties")
    return (additional if isinstance(additional, dict) else None), False


def _items(value: list[Any], rules: SchemaDict) -> dict[str, Child] | None:
    if rules.get("x-kubernetes-list-type", "atomic") == "atomic":
        return None
    elements = [item_element(item, rules) for item in value]
    if None in elements:
        return None
    # If an item occurs twice, the first one is used; the schema does not allow duplicates anyway.
    found: dict[str, Child] = {}
    for element, item in zip(elements, value, strict=True):
        found.setdefault(str(element), Child(item, rules.get("items")))
    return found


def item_element(item: Any, rules: SchemaDict) -> str | None:
    """How an item of a set or list-map is named, or None when it lacks all of its keys."""
    if rules.get("x-kubernetes-list-type") == "set":
        return f"v:{_json(item)}"
    if not isinstance(item, dict):
        return None
    fields = rules.get("items", {}).get("properties", {})
    keys = {}
    for key in rules.get("x-kubernetes-list-map-keys", ()):
        value = item.get(key, fields.get(key, {}).get("default", ABSENT))
        if value is not ABSENT:
            keys[key] = value
    return f"k:{_json(keys)}" if keys else None


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def fields_of(value: Any, schema: SchemaDict | None) -> FieldSet:
    """Every field that someone who applies `value` says something about."""
    found: set[Path] = set()

    def walk(value: Any, schema: SchemaDict | None, path: Path) -> None:
        parts = children(value, schema)
        if parts is None:
            found.add(path)
            return
        for element, part in parts.items():
            where = (*path, element)
            walk(part.value, part.schema, where)
            if part.value == {} or not part.declared:
                found.add(where)

    walk(value, schema, ())
    return frozenset(found)


def compare(old: Any, new: Any, schema: SchemaDict | None) -> Comparison:
    """The fields that were added, removed and changed between two values."""
    added: set[Path] = set()
    removed: set[Path] = set()
    modified: set[Path] = set()

    def walk(old: Child, new: Child, path: Path) -> None:
        if old.value is new.value:
            return
        before = children(old.value, old.schema)
        after = children(new.value, new.schema)
        leaf = not before and not after
        if not leaf:
            before, after = before or {}, after or {}
            for element in before.keys() | after.keys():
                walk(before.get(element, _NOTHING), after.get(element, _NOTHING), (*path, element))
        if old.value is ABSENT:
            added.add(path)
        elif new.value is ABSENT:
            removed.add(path)
        elif (leaf or _unlike(old.value, new.value)) and not same(old.value, new.value):
            modified.add(path)

    walk(Child(old, schema), Child(new, schema), ())
    return Comparison(frozenset(added), frozenset(removed), frozenset(modified))


def _unlike(old: Any, new: Any) -> bool:
    """Whether a value changed its kind: null is of any kind."""
    return old is not None and new is not None and type(old) is not type(new)


_NOTHING: Final = Child(ABSENT, None)


def without(value: Any, schema: SchemaDict | None, gone: FieldSet) -> Any:
    """`value` less the fields in `gone`; what is left is not changed in place, but may be shared."""
    prefixes = {path[:length] for path in gone for length in range(len(path))}

    def walk(value: Any, schema: SchemaDict | None, path: Path) -> Any:
        parts = children(value, schema)
        if parts is None or path not in prefixes:
            return value
        kept = {
            element: walk(part.value, part.schema, (*path, element))
            for element, part in parts.items()
            if (*path, element) not in gone
        }
        return {element[2:]: part for element, part in kept.items()} if isinstance(value, dict) else list(kept.values())

    return walk(value, schema, ())


def with_parents(fields: Iterable[Path], schema: SchemaDict | None) -> FieldSet:
    """`fields` and every field listed by name in the schema that holds one of them."""
    found = set(fields)
    for path in tuple(found):
        part = schema
        for length, element in enumerate(path[:-1], start=1):
            part, declared = element_schema(part, element)
            if declared:
                found.add(path[:length])
    return frozenset(found)


def encode(fields: FieldSet) -> dict[str, Any]:
    """The set as `fieldsV1`. A field that is a member and has members contains `.`."""
    tree: dict[str, Any] = {}
    for path in sorted(fields):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
    for path in fields:
        node = tree
        for element in path:
            node = node[element]
        if node:
            node["."] = {}
    return tree


def decode(tree: Mapping[str, Any]) -> FieldSet:
    found: set[Path] = set()

    def walk(node: Mapping[str, Any], path: Path) -> None:
        for element, below in node.items():
            if element == ".":
                found.add(path)
            elif not below:
                found.add((*path, element))
            else:
                walk(below, (*path, element))

    walk(tree, ())
    return frozenset(found)


def show(path: Path) -> str:
    """The path as error messages write it: `.spec.list[name="x"].value`."""
    return "".join(_show(element) for element in path)


def _show(element: str) -> str:
    kind, rest = element[:2], element[2:]
    if kind == "f:":
        return f".{rest}"
    if kind == "k:":
        return f"[{','.join(f'{key}={_json(value)}' for key, value in orjson.loads(rest).items())}]"
    return f"[={rest}]" if kind == "v:" else f"[{rest}]"
