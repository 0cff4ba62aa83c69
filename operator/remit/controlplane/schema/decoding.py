"""Decoding: whether a value is of the Go type that Kubernetes would read it into.

kube-apiserver decodes metadata and built-in kinds into Go structs before it looks at what they say, so a value of a
wrong type is refused first, and everything after this may count on types. Types are told by schemas, which may be
recursive.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from remit.controlplane.schema.causes import joined
from remit.controlplane.schema.formats import conforms

Raw = dict[str, Any]

_GO_NAMES: Final = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}
_ZERO: Final = {"object": dict, "array": list, "string": str, "integer": int, "number": float, "boolean": bool}
_PYTHON: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,),
}  # fmt: skip
_RANGES: Final = {"int32": 1 << 31, "int64": 1 << 63}

STRING: Final[Raw] = {"type": "string"}
INTEGER: Final[Raw] = {"type": "integer", "format": "int64"}
BOOLEAN: Final[Raw] = {"type": "boolean"}
TIME: Final[Raw] = {"type": "string", "format": "date-time"}
ANYTHING: Final[Raw] = {}


class Undecodable(Exception):
    """A value is not of its Go type (HTTP 400)."""


def struct(name: str, /, **fields: Raw) -> Raw:
    """`name` is that of the Go type, for messages."""
    return {"type": "object", "go": name, "properties": fields}


def array(items: Raw) -> Raw:
    return {"type": "array", "items": items}


def mapping(values: Raw) -> Raw:
    return {"type": "object", "additionalProperties": values}


def strings(*names: str) -> dict[str, Raw]:
    return dict.fromkeys(names, STRING)


_UID: Final = STRING | {"go": "types.UID"}
OBJECT_META: Final = struct(
    "v1.ObjectMeta",
    **strings("name", "generateName", "namespace", "selfLink", "resourceVersion"),
    uid=_UID,
    generation=INTEGER,
    creationTimestamp=TIME,
    deletionTimestamp=TIME,
    deletionGracePeriodSeconds=INTEGER,
    labels=mapping(STRING),
    annotations=mapping(STRING),
    ownerReferences=array(
        struct(
            "v1.OwnerReference",
            **strings("apiVersion", "kind", "name"),
            uid=_UID,
            controller=BOOLEAN,
            blockOwnerDeletion=BOOLEAN,
        )
    ),
    finalizers=array(STRING),
    managedFields=array(
        struct(
            "v1.ManagedFieldsEntry",
            **strings("manager", "operation", "apiVersion", "fieldsType", "subresource"),
            time=TIME,
            fieldsV1=ANYTHING,
        )
    ),
)
DELETE_OPTIONS: Final = struct(
    "v1.DeleteOptions",
    gracePeriodSeconds=INTEGER,
    preconditions=struct("v1.Preconditions", uid=_UID, resourceVersion=STRING),
    orphanDependents=BOOLEAN,
    propagationPolicy=STRING | {"go": "v1.DeletionPropagation"},
    dryRun=array(STRING),
)
_REPLICAS: Final[Raw] = {"type": "integer", "format": "int32"}
SCALE: Final = struct(
    "v1.Scale",
    metadata=OBJECT_META,
    spec=struct("v1.ScaleSpec", replicas=_REPLICAS),
    status=struct("v1.ScaleStatus", replicas=_REPLICAS, selector=STRING),
)


class Place(NamedTuple):
    """The position of a value: its path in the object, and what Go's decoder calls it."""

    path: str = ""
    field: str = ""
    """The path without indices and keys of maps."""
    struct: str = ""

    def of_field(self, key: str, struct: str) -> Place:
        return Place(joined(self.path, key), joined(self.field, key), struct)


def decode(schema: Raw, value: Any, place: Place = Place(), unknown: list[str] | None = None) -> None:  # noqa: B008
    """Check `value`, which is not null, and make nulls in it what Go makes of them: absent, or the zero of an item.

    Fields that `schema` does not list are taken out and added to `unknown`, where that is given. Raises `Undecodable`.
    """
    union = schema.get("union")
    if union is not None:
        if type(value) not in union:
            raise _wrong(value, place, schema)
        schema = union[type(value)]
    type_ = schema.get("type")
    if type_ is None:
        return
    if not isinstance(value, _PYTHON[type_]) or (isinstance(value, bool) and type_ != "boolean"):
        raise _wrong(value, place, schema)
    format_ = schema.get("format", "")
    match value:
        case dict() if "properties" in schema:
            _decode_fields(schema, value, place, unknown)
        case dict():
            _decode_values(schema.get("additionalProperties"), value, place, unknown)
        case list():
            _decode_items(schema["items"], value, place, unknown)
        case int() | float() if not -_RANGES.get(format_, math.inf) <= value < _RANGES.get(format_, math.inf):
            raise _wrong(value, place, schema)
        case str() if not conforms(value, format_) and (value or format_ != "byte"):
            if format_ == "byte":
                raise Undecodable("illegal base64 data at input byte 0")
            raise Undecodable(f"{place.path}: {value[:100]!r} is not of the format {format_}")


def _decode_fields(schema: Raw, value: dict[str, Any], place: Place, unknown: list[str] | None) -> None:
    struct = schema.get("go", "").removeprefix("v1.")
    for key in [*value]:
        field = schema["properties"].get(key)
        if field is None:
            if unknown is not None:
                unknown.append(joined(place.path, key))
                del value[key]
        elif value[key] is not None:
            decode(field, value[key], place.of_field(key, struct), unknown)
        elif not field.get("nullable"):
            del value[key]


def _decode_values(values: Raw | None, value: dict[str, Any], place: Place, unknown: list[str] | None) -> None:
    if not isinstance(values, dict):
        return
    plain_strings = values.get("type") == "string" and not values.get("format") and "union" not in values
    for key, part in value.items():
        if part is None:
            value[key] = _zero(values)
        elif not (plain_strings and isinstance(part, str)):
            decode(values, part, place._replace(path=joined(place.path, key)), unknown)


def _decode_items(items: Raw, value: list[Any], place: Place, unknown: list[str] | None) -> None:
    for index, item in enumerate(value):
        if item is None:
            value[index] = _zero(items)
        else:
            decode(items, item, place._replace(path=f"{place.path}[{index}]"), unknown)


def _zero(schema: Raw) -> Any:
    return None if "type" not in schema or schema.get("nullable") else _ZERO[schema["type"]]()


def _wrong(value: Any, place: Place, schema: Raw) -> Undecodable:
    into = f"struct field {place.struct}.{place.field}" if place.field else "value"
    return Undecodable(f"json: cannot unmarshal {_GO_NAMES[type(value)]} into Go {into} of type {_go_type(schema)}")


def _go_type(schema: Raw) -> str:
    match schema.get("type"):
        case "array":
            return f"[]{_go_type(schema['items'])}"
        case "object" if "additionalProperties" in schema:
            return f"map[string]{_go_type(schema['additionalProperties'])}"
        case "integer" | "string" if schema.get("format") in _RANGES:
            return str(schema["format"])
        case type_:
            return str(schema.get("go") or {"boolean": "bool", "number": "float64"}.get(type_ or "", type_))
