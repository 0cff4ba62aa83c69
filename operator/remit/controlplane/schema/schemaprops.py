"""The schemas of CustomResourceDefinitions as Go has them: `JSONSchemaProps` of apiextensions.k8s.io/v1."""

from __future__ import annotations

import hashlib
from typing import Final

import orjson

from remit.controlplane.schema.decoding import (
    ANYTHING,
    BOOLEAN,
    INTEGER,
    Place,
    Raw,
    array,
    decode,
    mapping,
    strings,
    struct,
)

_FIELD: Final = "spec.versions.schema.openAPIV3Schema"
_NUMBER: Final[Raw] = {"type": "number"}
_RULE: Final = struct(
    "v1.ValidationRule",
    **strings("rule", "message", "messageExpression", "reason", "fieldPath"),
    optionalOldSelf=BOOLEAN,
)
_PROPS: Final = struct("v1.JSONSchemaProps")
_PROPS_OR_BOOLEAN: Final[Raw] = {"union": {dict: _PROPS, bool: BOOLEAN}, "go": "v1.JSONSchemaPropsOrBool"}
_PROPS_OR_ARRAY: Final[Raw] = {"union": {dict: _PROPS, list: array(_PROPS)}, "go": "v1.JSONSchemaPropsOrArray"}
_PROPS_OR_STRINGS: Final[Raw] = {
    "union": {dict: _PROPS, list: array({"type": "string"})},
    "go": "v1.JSONSchemaPropsOrStringArray",
}
_PROPS["properties"].update(
    {
        **strings("id", "$schema", "$ref", "description", "type", "format", "title", "pattern"),
        **strings("x-kubernetes-list-type", "x-kubernetes-map-type"),
        **dict.fromkeys(("default", "example"), ANYTHING),
        **dict.fromkeys(("maximum", "minimum", "multipleOf"), _NUMBER),
        **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), INTEGER),
        **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum", "uniqueItems", "nullable"), BOOLEAN),
        "x-kubernetes-preserve-unknown-fields": BOOLEAN,
        "x-kubernetes-embedded-resource": BOOLEAN,
        "x-kubernetes-int-or-string": BOOLEAN,
        "x-kubernetes-list-map-keys": array({"type": "string"}),
        "x-kubernetes-validations": array(_RULE),
        "enum": array(ANYTHING),
        "required": array({"type": "string"}),
        "items": _PROPS_OR_ARRAY,
        "additionalItems": _PROPS_OR_BOOLEAN,
        "additionalProperties": _PROPS_OR_BOOLEAN,
        **dict.fromkeys(("allOf", "anyOf", "oneOf"), array(_PROPS)),
        "not": _PROPS,
        **dict.fromkeys(("properties", "patternProperties", "definitions"), mapping(_PROPS)),
        "dependencies": mapping(_PROPS_OR_STRINGS),
        "externalDocs": struct("v1.ExternalDocumentation", **strings("description", "url")),
    }
)


_MOST_REMEMBERED: Final = 1000
_remembered: Final = dict[bytes, bool]()
"""Schemas as they are once decoded, by their digests, and whether unknown fields were taken out. To decode one again
changes nothing, and takes long: a CRD is decoded when it is written, when it is served, and with each of its updates.
"""


def decode_schemas(crd: Raw, unknown: list[str] | None = None) -> None:
    """Decode the schemas in a CRD whose other fields are of the right types. Raises `Undecodable`."""
    prunes = unknown is not None
    for index, version in enumerate((crd.get("spec") or {}).get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None or _is_remembered(schema, pruned=prunes):
            continue
        place = Place(f"spec.versions[{index}].schema.openAPIV3Schema", _FIELD, "CustomResourceValidation")
        decode(_PROPS, schema, place, unknown)
        _remember(schema, pruned=prunes)


def _is_remembered(schema: Raw, *, pruned: bool) -> bool:
    found = _remembered.get(_digest(schema))
    return found is not None and found >= pruned


def _remember(schema: Raw, *, pruned: bool) -> None:
    if len(_remembered) >= _MOST_REMEMBERED:
        _remembered.clear()
    if digest := _digest(schema):
        _remembered[digest] = pruned or _remembered.get(digest, False)


def _digest(schema: Raw) -> bytes:
    """Empty for what is nested too deep, or has numbers too large, to be remembered."""
    try:
        return hashlib.blake2b(orjson.dumps(schema), digest_size=32).digest()
    except TypeError:
        return b""
