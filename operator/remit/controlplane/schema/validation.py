"""Validation, in a real API server's words. What has not changed since the old object is not held against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import re2

from remit.controlplane.schema import cel
from remit.controlplane.schema.causes import Cause, joined
from remit.controlplane.schema.celcost import Budget, size_of
from remit.controlplane.schema.formats import conforms
from remit.controlplane.schema.jsontypes import json_type, same
from remit.controlplane.schema.structural import Node

MISSING: Final = object()
_BLOCKING: Final = frozenset(
    {"FieldValueRequired", "FieldValueNotSupported", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
_NOT_CHECKED: Final = Cause(
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing"
    " errors to complete validation",
    "<nil>",
)


def validate(node: Node, value: Any, old: Any, budget: Budget) -> list[Cause]:
    """Everything that is wrong with `value`. CEL rules are asked only when its shape is sound.

    Raises `NotOnLoop` when they cost more than a budget for the event loop has.
    """
    causes: list[Cause] = []
    _validate(node, value, old, "", causes)
    if node.has_rules:
        if any(cause.reason in _BLOCKING for cause in causes):
            causes.append(_NOT_CHECKED)
        else:
            _rules(node, value, old, "", causes, budget)
    return causes


def correlated(node: Node, value: list[Any], old: Any) -> Iterator[tuple[Any, Any]]:
    """Each item with its older self, where the list's type says which that is."""
    if node.list_type != "map" or not isinstance(old, list):
        for item in value:
            yield item, MISSING
        return
    earlier = {_map_key(node, item): item for item in old if isinstance(item, dict)}
    for item in value:
        yield item, earlier.get(_map_key(node, item), MISSING) if isinstance(item, dict) else MISSING


def _unchanged(value: Any, old: Any) -> bool:
    """Python's `==` is quick to say no; where it says yes, `true` may still have taken the place of `1`."""
    return old is not MISSING and value == old and same(value, old)


def _validate(node: Node, value: Any, old: Any, path: str, out: list[Cause]) -> None:
    if _unchanged(value, old):
        return
    if value is None and node.nullable:
        return
    if not _type_fits(node, value):
        wanted = "integer,string" if node.int_or_string else node.type
        got = json_type(value)
        out.append(
            Cause(
                "FieldValueTypeInvalid",
                f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"',
                path,
            )
        )
        return
    raw = node.raw
    if raw.get("enum") and not _is_one_of(value, raw["enum"]):
        supported = ", ".join(_quoted(choice) for choice in raw["enum"])
        message = f"Unsupported value: {_quoted(value)}: supported values: {supported}"
        out.append(Cause("FieldValueNotSupported", message, path))
    match value:
        case bool():
            pass
        case str():
            _string(node, value, path, out)
        case int() | float():
            _number(raw, value, path, out)
        case list():
            _array(node, value, old, path, out)
        case dict():
            _object(node, value, old, path, out)
    _logic(raw, value, path, out)


def _is_one_of(value: Any, choices: list[Any]) -> bool:
    """Python's own search is quick to say no; where it says yes, `true` may still have been taken for `1`."""
    return value in choices and any(same(value, choice) for choice in choices)


def _type_fits(node: Node, value: Any) -> bool:
    if node.int_or_string:
        return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    match node.type:
        case None:
            return True
        case "integer":
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT
            )
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case name:
            return json_type(value) == name


def _string(node: Node, value: str, path: str, out: list[Cause]) -> None:
    """Only the first mistake in length or pattern is told."""
    raw = node.raw
    if (most := raw.get("maxLength")) is not None and len(value) > most:
        out.append(Cause("FieldValueTooLong", f"Too long: may not be more than {most} bytes", path))
    elif (least := raw.get("minLength")) is not None and len(value) < least:
        out.append(_invalid(value, f"{path} in body should be at least {least} chars long", path))
    elif node.pattern is not None and not node.pattern.search(value):
        out.append(_invalid(value, f"{path} in body should match '{raw['pattern']}'", path))
    if (format_ := raw.get("format")) and not conforms(value, format_):
        message = f"Invalid value: {_quoted(value)}: {path} in body must be of type {format_}: {_quoted(value)}"
        out.append(Cause("FieldValueTypeInvalid", message, path))


_BITS = {"int32": 31, "int64": 63}
_EXACT: Final = (1 << 53) - 1


def _number(raw: dict[str, Any], value: float, path: str, out: list[Cause]) -> None:
    bits = _BITS.get(raw.get("format", ""))
    if bits and not -(2**bits) <= value < 2**bits:
        out.append(_invalid(value, f"should be an integer of format {raw['format']}", path))
    if (least := raw.get("minimum")) is not None:
        if raw.get("exclusiveMinimum") and value <= least:
            out.append(_invalid(value, f"{path} in body should be greater than {least}", path))
        elif value < least:
            out.append(_invalid(value, f"{path} in body should be greater than or equal to {least}", path))
    if (most := raw.get("maximum")) is not None:
        if raw.get("exclusiveMaximum") and value >= most:
            out.append(_invalid(value, f"{path} in body should be less than {most}", path))
        elif value > most:
            out.append(_invalid(value, f"{path} in body should be less than or equal to {most}", path))
    if (step := raw.get("multipleOf")) and not _is_multiple(value, step):
        out.append(_invalid(value, f"{path} in body should be a multiple of {step}", path))


def _is_multiple(value: float, step: float) -> bool:
    quotient = value / step
    return math.isfinite(quotient) and abs(quotient - round(quotient)) <= 1e-9


def _array(node: Node, value: list[Any], old: Any, path: str, out: list[Cause]) -> None:
    raw = node.raw
    if (most := raw.get("maxItems")) is not None and len(value) > most:
        out.append(_too_many(len(value), most, path))
    if (least := raw.get("minItems")) is not None and len(value) < least:
        out.append(_invalid(len(value), f"{path} in body should have at least {least} items", path))
    if node.items is not None:
        for index, (item, earlier) in enumerate(correlated(node, value, old)):
            _validate(node.items, item, earlier, f"{path}[{index}]", out)
    if node.list_type in {"set", "map"}:
        _duplicates(node, value, path, out)


def _duplicates(node: Node, value: list[Any], path: str, out: list[Cause]) -> None:
    seen: set[bytes] = set()
    told: set[bytes] = set()
    for index, item in enumerate(value):
        if node.list_type == "map" and not isinstance(item, dict):
            continue
        key = orjson.dumps(item, option=orjson.OPT_SORT_KEYS) if node.list_type == "set" else _map_key(node, item)
        if key in seen and key not in told:
            told.add(key)
            shown = _quoted(item) if node.list_type == "set" else key.decode()
            out.append(Cause("FieldValueDuplicate", f"Duplicate value: {shown}", f"{path}[{index}]"))
        seen.add(key)


def _map_key(node: Node, item: dict[str, Any]) -> bytes:
    keys = {name: item[name] for name in node.map_keys if name in item}
    return orjson.dumps(keys, option=orjson.OPT_SORT_KEYS)


def _object(node: Node, value: dict[str, Any], old: Any, path: str, out: list[Cause]) -> None:
    raw = node.raw
    if (most := raw.get("maxProperties")) is not None and len(value) > most:
        out.append(_too_many(len(value), most, path))
    if (least := raw.get("minProperties")) is not None and len(value) < least:
        out.append(_invalid(len(value), f"{path} in body should have at least {least} properties", path))
    missing = [name for name in node.required if name not in value]
    out.extend(Cause("FieldValueRequired", "Required value", joined(path, name)) for name in missing)
    if raw.get("x-kubernetes-embedded-resource"):
        absent = [name for name in ("apiVersion", "kind") if not value.get(name)]
        out.extend(Cause("FieldValueRequired", "Required value", joined(path, name)) for name in absent)
    if raw.get("additionalProperties") is False:
        unknown = [key for key in value if key not in node.properties]
        out.extend(_invalid(key, f"{joined(path, key)} in body is a forbidden property", path) for key in unknown)
    earlier = old if isinstance(old, dict) else {}
    for key, part in value.items():
        child = node.child(key)
        if child is not None:
            _validate(child, part, earlier.get(key, MISSING), joined(path, key), out)


def _logic(raw: dict[str, Any], value: Any, path: str, out: list[Cause]) -> None:
    """allOf, anyOf, oneOf and not: only values are narrowed by them, so plain validation does."""
    if raw.get("allOf"):
        results = [_against(part, value, path) for part in raw["allOf"]]
        out += [cause for result in results for cause in result]
        if any(results):
            none = ". None validated" if all(results) else ""
            out.append(_nowhere(f'"{path}" must validate all the schemas (allOf){none}'))
    if raw.get("anyOf") and not raw.get("x-kubernetes-int-or-string"):
        results = [_against(part, value, path) for part in raw["anyOf"]]
        if all(results):
            out.append(_nowhere(f'"{path}" must validate at least one schema (anyOf)'))
            out += results[0]
    if raw.get("oneOf"):
        results = [_against(part, value, path) for part in raw["oneOf"]]
        fitting = sum(not result for result in results)
        if fitting != 1:
            found = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
            out.append(_nowhere(f'"{path}" must validate one and only one schema (oneOf). {found}'))
            out += results[0] if not fitting else []
    if "not" in raw and not _against(raw["not"], value, path):
        out.append(_nowhere(f'"{path}" must not validate the schema (not)'))


def _against(schema: dict[str, Any], value: Any, path: str) -> list[Cause]:
    causes: list[Cause] = []
    _validate(_loose(schema), value, MISSING, path, causes)
    return causes


def _loose(schema: dict[str, Any]) -> Node:
    """A node for a schema that need not be structural. Built on the spot: these are small and rare."""
    node = Node(raw=schema, type=schema.get("type"), required=tuple(schema.get("required", ())))
    node.properties = {name: _loose(part) for name, part in schema.get("properties", {}).items()}
    node.items = _loose(schema["items"]) if isinstance(schema.get("items"), dict) else None
    if schema.get("pattern"):
        node.pattern = re2.compile(schema["pattern"])
    return node


def _rules(node: Node, value: Any, old: Any, path: str, out: list[Cause], budget: Budget) -> None:
    """CEL, innermost last, skipping every subtree that has no rule or has not changed."""
    if not node.has_rules or value is None or _unchanged(value, old) or budget.exhausted:
        return
    if node.rules:
        to_cel = _converter(node)
        known_old = old is not MISSING
        earlier = old if known_old else None
        size = size_of(value) + size_of(earlier)
        for rule in node.rules:
            cause = rule.evaluate(value, earlier, path, to_cel, known_old=known_old, size=size, budget=budget)
            if cause is not None:
                out.append(cause)
            if budget.exhausted:
                why = "validation failed due to running out of cost budget, no further validation rules will be run"
                out.append(Cause("FieldValueInvalid", f'Invalid value: "{json_type(value)}": {why}', path))
                return
    if isinstance(value, dict):
        earlier = old if isinstance(old, dict) else {}
        for key, part in value.items():
            child = node.child(key)
            if child is not None and child.has_rules:
                _rules(child, part, earlier.get(key, MISSING), joined(path, key), out, budget)
    elif isinstance(value, list) and node.items is not None and node.items.has_rules:
        for index, (item, earlier_item) in enumerate(correlated(node, value, old)):
            _rules(node.items, item, earlier_item, f"{path}[{index}]", out, budget)


def _converter(node: Node) -> Callable[[Any, frozenset[str] | None], Any]:
    return lambda value, fields: cel.to_cel(node, value, fields)


def _invalid(value: Any, message: str, path: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {_quoted(value)}: {message}", path)


def _too_many(count: int, most: int, path: str) -> Cause:
    items = "item" if most == 1 else "items"
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {most} {items}", path)


def _nowhere(message: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "": {message}', "<nil>")


def _quoted(value: Any) -> str:
    return orjson.dumps(value).decode()
