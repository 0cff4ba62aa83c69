"""Validates `openAPIV3Schema` of a CustomResourceDefinition: that it is structural, and that defaults fit.

The rules are those of kube-apiserver (`k8s.io/apiextensions-apiserver`): `ValidateStructural`, `ValidateDefaults` and
`ValidateCustomResourceDefinitionOpenAPISchema`. Schemas are decoded already: their words are of the right types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from remit.controlplane.schema.causes import Cause, Invalid, forbidden, invalid_value, not_supported, required
from remit.controlplane.schema.celcost import Budget
from remit.controlplane.schema.crdrules import declared_rules, unusable_old_self
from remit.controlplane.schema.decoding import Undecodable
from remit.controlplane.schema.fieldpath import follow
from remit.controlplane.schema.pruning import prune
from remit.controlplane.schema.schema import Schema, decode_embedded
from remit.controlplane.schema.structural import Node, compile_pattern, compile_usable
from remit.controlplane.schema.validation import MISSING, validate

Raw = dict[str, Any]

TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_META: Final = ("apiVersion", "kind", "metadata")
_UNSUPPORTED: Final = (
    "id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions",
)  # fmt: skip
_AT_ROOT_WITH_STATUS: Final = frozenset(
    {
        "description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
        "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "required", "items",
        "properties", "externalDocs", "example", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
    }
)  # fmt: skip
_PLAIN: Final = frozenset(
    {
        "id", "$schema", "description", "type", "format", "title", "pattern", "exclusiveMaximum", "exclusiveMinimum",
        "uniqueItems", "nullable", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string",
    }
)  # fmt: skip
"""Words that Go keeps by value: empty or false is the same as left out."""
_INTEGER_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]
_FORBIDDEN_IN_LOGIC: Final = {
    "type": "empty", "default": "undefined", "title": "empty", "description": "empty", "nullable": "false",
    "x-kubernetes-preserve-unknown-fields": "false", "x-kubernetes-embedded-resource": "false",
    "x-kubernetes-int-or-string": "false", "x-kubernetes-list-map-keys": "empty",
    "x-kubernetes-list-type": "undefined", "x-kubernetes-map-type": "undefined", "x-kubernetes-validations": "empty",
}  # fmt: skip


def says(schema: Raw, word: str) -> bool:
    return word in schema and not (word in _PLAIN and not schema[word])


def schema_causes(schema: Raw, path: str, *, status: bool) -> list[Cause]:
    """Everything that is wrong with the schema at `path`. `status`: the version has a status subresource."""
    causes = [*_root(schema, path, status=status)]
    unknown = unsupported(schema)
    structural = [] if unknown else [*_structural(schema, path, "root"), *_complete(schema, schema, path, path)]
    causes += [*structural, *_openapi(schema, path, _Place(root=True))]
    if unknown and not causes:
        causes.append(invalid_value(path, "", f"OpenAPIV3Schema '{unknown.lstrip('$')}' is not supported"))
    if unknown or structural:
        return causes
    try:
        node = Schema.compile(schema, path=path).node
    except Invalid as error:
        causes += _defaults(compile_usable(schema, path, [], resource=True), path)
        return causes or error.causes
    causes += _defaults(node, path)
    return causes or unusable_old_self(node, path)


def unsupported(schema: Raw) -> str:
    """The first word that a structural schema cannot have at all, wherever it is."""
    for part in _every(schema):
        found = [word for word in _UNSUPPORTED if _has_unsupported(part, word)]
        found += ["items"] if isinstance(part.get("items"), list) and part["items"] else []
        free = "x-kubernetes-preserve-unknown-fields"
        found += [free] if part.get(free) is False else []
        if found:
            return found[0]
    return ""


def _every(schema: Raw) -> Iterator[Raw]:
    left = [schema]
    while left:
        part = left.pop()
        yield part
        left += _children(part)


def _children(schema: Raw) -> list[Raw]:
    found = [schema.get(word) for word in ("items", "additionalProperties", "not")]
    found += [part for word in ("allOf", "anyOf", "oneOf") for part in schema.get(word) or ()]
    return [part for part in [*found, *(schema.get("properties") or {}).values()] if isinstance(part, dict)]


def _has_unsupported(schema: Raw, word: str) -> bool:
    return word in schema and (word == "additionalItems" or bool(schema[word]))


def _root(schema: Raw, path: str, *, status: bool) -> Iterator[Cause]:
    if status:
        said = [word for word in schema if says(schema, word)]
        if schema.get("type", "object") not in ("object", ""):
            why = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
            yield invalid_value(f"{path}.type", schema["type"], why)
        elif not _AT_ROOT_WITH_STATUS.issuperset(said):
            why = "allowed at the root of the schema if the status subresource is enabled"
            wrong = sorted(set(said) - _AT_ROOT_WITH_STATUS)
            yield Cause("FieldValueInvalid", f"Invalid value: {_shown(wrong)}: not {why}", path)
    if schema.get("nullable"):
        yield forbidden(f"{path}.nullable", "nullable cannot be true at the root")


# ---- whether it is structural --------------------------------------------------------------------------------------


def _structural(schema: Raw, path: str, level: str) -> Iterator[Cause]:
    type_, items = schema.get("type") or "", schema.get("items")
    if type_ == "array" and items is None:
        yield required(f"{path}.items", "must be specified")
    if isinstance(items, dict):
        yield from _structural(items, f"{path}.items", "array items")
    properties = schema.get("properties") or {}
    for name, part in properties.items():
        yield from _structural(part, f"{path}.properties[{name}]", "object fields")
    if "additionalProperties" in schema:
        if level == "root":
            yield forbidden(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(schema["additionalProperties"], dict):
            yield from _structural(schema["additionalProperties"], f"{path}.additionalProperties", "object fields")
    yield from _extensions(schema, path)
    yield from _logic(schema, path)
    embedded, free = schema.get("x-kubernetes-embedded-resource"), schema.get("x-kubernetes-preserve-unknown-fields")
    if embedded and type_ != "object":
        yield _wrong_type(f"{path}.type", type_, "must be object if x-kubernetes-embedded-resource is true")
    elif not type_ and not schema.get("x-kubernetes-int-or-string") and not free:
        where = "at the root" if level == "root" else f"for specified {level}"
        yield required(f"{path}.type", f"must not be empty {where}")
    if level == "root" and type_ not in ("", "object"):
        yield invalid_value(f"{path}.type", type_, "must be object at the root")
    if level == "root" or embedded:
        for name, wanted in (("kind", "string"), ("apiVersion", "string"), ("metadata", "object")):
            if name in properties and (given := properties[name].get("type") or "") != wanted:
                yield invalid_value(f"{path}.properties[{name}].type", given, f"must be {wanted}")
    if level == "root" and "metadata" in properties and _says_more_than_names(properties["metadata"]):
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield forbidden(f"{path}.properties[metadata]", why)
    if embedded and not free and not properties:
        why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        yield required(f"{path}.properties", why)


def _extensions(schema: Raw, path: str) -> Iterator[Cause]:
    free, embedded = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
    if schema.get("x-kubernetes-int-or-string"):
        for word in (free, embedded):
            if schema.get(word):
                yield invalid_value(f"{path}.{word}", True, "must be false if x-kubernetes-int-or-string is true")
    if schema.get(embedded) and "additionalProperties" in schema:
        why = "must not be used if x-kubernetes-embedded-resource is set"
        yield forbidden(f"{path}.additionalProperties", why)


def _says_more_than_names(metadata: Raw) -> bool:
    names = metadata.get("properties") or {}
    said = {word for word in metadata if says(metadata, word)} - {"type", "default"}
    said -= {word for word in ("enum", "allOf", "anyOf", "oneOf") if not metadata.get(word)}
    return bool(said - {"properties"}) or not names.keys() <= {"name", "generateName"}


def _logic(schema: Raw, path: str, *, skip_any_of: bool = False) -> Iterator[Cause]:
    """Inside allOf, anyOf, oneOf and not, a schema may only narrow what is said outside."""
    if not (skip_any_of or _is_integer_or_string(schema.get("anyOf"))):
        for index, part in enumerate(schema.get("anyOf") or ()):
            yield from _nested(part, f"{path}.anyOf[{index}]")
    for index, part in enumerate(schema.get("allOf") or ()):
        first = index == 0 and _is_integer_or_string(part.get("anyOf"))
        yield from _nested(part, f"{path}.allOf[{index}]", skip_any_of=first)
    for index, part in enumerate(schema.get("oneOf") or ()):
        yield from _nested(part, f"{path}.oneOf[{index}]")
    if isinstance(schema.get("not"), dict):
        yield from _nested(schema["not"], f"{path}.not")
    causes: list[Cause] = []
    compile_pattern(schema.get("pattern"), f"{path}.pattern", causes)
    yield from causes


def _is_integer_or_string(parts: list[Raw] | None) -> bool:
    said = [{word: value for word, value in part.items() if value not in ("", [], False)} for part in parts or ()]
    return said == _INTEGER_OR_STRING


def _nested(schema: Raw, path: str, *, skip_any_of: bool = False) -> Iterator[Cause]:
    yield from _logic({**schema, "anyOf": []} if skip_any_of else schema, path)
    if isinstance(schema.get("items"), dict):
        yield from _nested(schema["items"], f"{path}.items")
    for name, part in (schema.get("properties") or {}).items():
        yield from _nested(part, f"{path}.properties[{name}]")
    if schema.get("additionalProperties", False) is not False:
        yield forbidden(f"{path}.additionalProperties", "must be undefined to be structural")
    for word, needed in _FORBIDDEN_IN_LOGIC.items():
        nothing: tuple[Any, ...] = (None,) if word == "default" else (None, False, [])
        if says(schema, word) and not any(schema[word] is each or schema[word] == each == [] for each in nothing):
            yield forbidden(f"{path}.{word}", f"must be {needed} to be structural")
    if "metadata" in (schema.get("properties") or {}):
        yield forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _complete(logic: Raw, outside: Raw, path: str, logic_path: str) -> Iterator[Cause]:
    """What is narrowed inside allOf, anyOf, oneOf and not of the root must be there outside of them."""
    parts = [(logic["not"], f"{logic_path}.not")] if isinstance(logic.get("not"), dict) else []
    for word in ("allOf", "anyOf", "oneOf"):
        parts += [(part, f"{logic_path}.{word}[{index}]") for index, part in enumerate(logic.get(word) or ())]
    for part, where in parts:
        yield from _complete_nested(part, outside, path, where)


def _complete_nested(logic: Raw, outside: Any, path: str, logic_path: str) -> Iterator[Cause]:
    if not isinstance(outside, dict):
        yield required(path, f"because it is defined in {logic_path}")
        return
    yield from _complete(logic, outside, path, logic_path)
    if isinstance(logic.get("items"), dict):
        yield from _complete_nested(logic["items"], outside.get("items"), f"{path}.items", f"{logic_path}.items")
    known = outside.get("properties") or {}
    for name, part in (logic.get("properties") or {}).items():
        where = f"properties[{name}]"
        yield from _complete_nested(part, known.get(name), f"{path}.{where}", f"{logic_path}.{where}")


# ---- whether defaults fit ------------------------------------------------------------------------------------------


def _defaults(node: Node, path: str) -> list[Cause]:
    """A default must itself be valid and without unknown fields: it will be stored in objects that leave it out."""
    causes: list[Cause] = []
    if node.raw.get("default") is not None:
        causes += _default_fits(node, f"{path}.default")
    if node.items is not None:
        causes += _defaults(node.items, f"{path}.items")
    for name, child in node.properties.items():
        causes += _defaults(child, f"{path}.properties[{name}]")
    return causes


def _default_fits(node: Node, path: str) -> list[Cause]:
    default = node.raw["default"]
    pruned, value = (orjson.loads(orjson.dumps(default)) for _ in range(2))
    unknown: list[str] = []
    prune(node, pruned, "", unknown)
    causes = [invalid_value(path, default, "must not have unknown fields")] if unknown else []
    try:
        decode_embedded(node, value, "")
    except Undecodable as error:
        return [*causes, invalid_value(path, default, str(error))]
    found = validate(node, value, MISSING, Budget())
    return causes + [cause._replace(field=_within(path, cause.field.removeprefix("<nil>"))) for cause in found]


def _within(path: str, field: str) -> str:
    return f"{path}.{field}" if field else path


# ---- what OpenAPI may say ------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    root: bool = False
    meta: bool = False
    """Within apiVersion, kind or metadata."""
    no_default: str = ""
    """Why a default may not be here."""


def _openapi(schema: Any, path: str, place: _Place) -> list[Cause]:
    if not isinstance(schema, dict):
        return []
    below = place._replace(root=False)
    causes = [*_words(schema, path, place), *_list(schema, path), *declared_rules(schema, path, _follows)]
    if "additionalProperties" in schema:
        given = schema["additionalProperties"]
        if schema.get("properties") and given is not True:
            why = "additionalProperties and properties are mutual exclusive"
            causes.append(forbidden(f"{path}.additionalProperties", why))
        why = "inside additionalProperties applying to object metadata"
        causes += _openapi(
            given, f"{path}.additionalProperties", below._replace(no_default=why) if place.meta else below
        )
    for name, part in (schema.get("properties") or {}).items():
        inside = below
        if name in _META and (place.root or schema.get("x-kubernetes-embedded-resource")):
            inside = below._replace(meta=True)
            if place.root:
                inside = inside._replace(no_default=f"in top-level {name}")
        causes += _openapi(part, f"{path}.properties[{name}]", inside)
    causes += _openapi(schema.get("not"), f"{path}.not", below)
    for word in ("allOf", "oneOf", "anyOf"):
        for index, part in enumerate(schema.get(word) or ()):
            causes += _openapi(part, f"{path}.{word}[{index}]", below)
    for word in ("definitions", "dependencies"):
        for name, part in (schema.get(word) or {}).items():
            causes += _openapi(part, f"{path}.{word}[{name}]", below)
    items = schema.get("items")
    for index, part in enumerate(items if isinstance(items, list) else ()):
        causes += _openapi(part, f"{path}.items[{index}]", below)
    return causes + _openapi(items, f"{path}.items", below)


def _words(schema: Raw, path: str, place: _Place) -> Iterator[Cause]:
    type_ = schema.get("type") or ""
    if type_ and type_ not in TYPES:
        yield not_supported(f"{path}.type", type_, TYPES)
    if type_ == "null":
        yield forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    if schema.get("default") is not None and place.no_default:
        yield forbidden(f"{path}.default", f"must not be set {place.no_default}")
    for word in _UNSUPPORTED:
        if word != "$schema" and (
            _has_unsupported(schema, word) or (word in ("$ref", "dependencies") and word in schema)
        ):
            yield forbidden(f"{path}.{word}", f"{word} is not supported")
    if isinstance(schema.get("items"), list) and schema["items"]:
        yield forbidden(f"{path}.items", "items must be a schema object and not an array")
    if place.meta and schema.get("x-kubernetes-embedded-resource"):
        yield forbidden(f"{path}.x-kubernetes-embedded-resource", "must not be used inside of resource meta")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden(f"{path}.uniqueItems", why)
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield invalid_value(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    if (map_type := schema.get("x-kubernetes-map-type")) is not None:
        if type_ != "object":
            yield _wrong_type(f"{path}.type", type_, "must be object if x-kubernetes-map-type is specified")
        if map_type not in ("atomic", "granular"):
            yield not_supported(f"{path}.x-kubernetes-map-type", map_type, ("atomic", "granular"))


def _list(schema: Raw, path: str) -> Iterator[Cause]:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    where, type_, items = f"{path}.x-kubernetes-list-type", schema.get("type") or "", schema.get("items")
    if keys and list_type != "map":
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        yield required(where, why) if list_type is None else invalid_value(where, list_type, why)
    if list_type is None:
        return
    if type_ != "array":
        yield _wrong_type(f"{path}.type", type_, "must be array if x-kubernetes-list-type is specified")
    elif list_type == "set" and isinstance(items, dict):
        yield from _atomic_items(items, f"{path}.items")
    if list_type not in ("atomic", "set", "map"):
        yield not_supported(where, list_type, ("atomic", "set", "map"))
    if list_type == "map":
        if not keys:
            yield required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
        if items is None:
            yield required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
        elif isinstance(items, list):
            why = "must only have a single schema if x-kubernetes-list-type is map"
            yield Cause("FieldValueInvalid", f"Invalid value: {why}", f"{path}.items")
        else:
            yield from _map_keys(items, keys, path)
    if list_type in ("set", "map") and isinstance(items, dict) and items.get("nullable"):
        yield forbidden(f"{path}.items.nullable", f"cannot be nullable when x-kubernetes-list-type is {list_type}")


def _atomic_items(items: Raw, path: str) -> Iterator[Cause]:
    why = "must be atomic as item of a list with x-kubernetes-list-type=set"
    match items.get("type"):
        case "array" if items.get("x-kubernetes-list-type", "atomic") != "atomic":
            yield invalid_value(f"{path}.x-kubernetes-list-type", items["x-kubernetes-list-type"], why)
        case "object" if items.get("x-kubernetes-map-type") != "atomic":
            yield invalid_value(f"{path}.x-kubernetes-map-type", items.get("x-kubernetes-map-type"), why)


def _map_keys(items: Raw, keys: list[str], path: str) -> Iterator[Cause]:
    where, fields = f"{path}.x-kubernetes-list-map-keys", items.get("properties") or {}
    if items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        yield invalid_value(f"{path}.items.type", items.get("type") or "", why)
    else:
        for index, key in enumerate(keys):
            if key not in fields:
                yield invalid_value(where, keys, "entries must all be names of item properties")
            elif fields[key].get("type") in ("array", "object"):
                why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
                yield invalid_value(f"{path}.items.properties[{key}].type", fields[key]["type"], why)
            if key in keys[:index]:
                yield invalid_value(where, keys, "must not contain duplicate entries")
    for key in keys:
        field = fields.get(key)
        if field is not None and field.get("default") is None and key not in (items.get("required") or ()):
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield required(f"{path}.items.properties[{key}].default", why)
        if field is not None and field.get("nullable"):
            why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            yield forbidden(f"{path}.items.properties[{key}].nullable", why)


def _follows(schema: Raw, path: str) -> bool:
    """Whether a rule's fieldPath leads to a field. In a schema that is not structural that is not asked."""
    if unsupported(schema):
        return True
    try:
        follow(path, schema)
    except ValueError:
        return False
    return True


def _wrong_type(field: str, type_: str, why: str) -> Cause:
    return invalid_value(field, type_, why) if type_ else required(field, why)


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()
