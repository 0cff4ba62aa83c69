"""Request bodies: JSON, YAML or protobuf to plain data, and refusals of those that are none of it."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import orjson
import yaml

from remit import safeyaml
from remit.controlplane.failures import Failure, bad_request, quoted, unsupported_media_type
from remit.controlplane.http.negotiation import JSON, PROTOBUF, YAML, YAML_TYPES
from remit.controlplane.schema import duplicate_keys, duplicate_yaml_keys
from remit.controlplane.schema.protobuf import decode_protobuf

_SHOWN = 30
_UNLIKE_GO = re.compile(rb"\d(\.0*[,\s}\]eE]|[eE])|\d{19}")
"""Numbers that Go may read as another type."""
_INTEGERS = 1 << 63
"""Go reads what does not fit 64 bits as a floating point number."""
_EXACT = (1 << 53) - 1
"""A floating point number of at most this size counts as an integer when it is one."""
_GO_TYPE = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'


def decode(body: bytes, content_type: str, kind: str, *, protobuf: bool = True) -> Any:
    """The body of a request that should be of `kind`.

    Raises 415 for a type that is not read here, and 400 for text that is not of its type.
    """
    media = content_type.split(";")[0].strip().lower() or JSON
    if media == JSON:
        return _from_json(body, kind)
    if media in YAML_TYPES:
        try:
            return load_yaml(body)
        except ValueError as error:
            raise unreadable(kind, str(error), body) from None
    if media == PROTOBUF and protobuf:
        try:
            return decode_protobuf(body)
        except ValueError as error:
            raise unreadable(kind, str(error), body) from None
    raise unsupported_media_type((JSON, YAML, PROTOBUF))


def repeated_keys(body: bytes, content_type: str) -> list[str]:
    """The message for each key that a readable body has more than once."""
    media = content_type.split(";")[0].strip().lower() or JSON
    if media in YAML_TYPES:
        return duplicate_yaml_keys(body)
    return [f"duplicate field {quoted(path)}" for path in duplicate_keys(body)] if media == JSON else []


def _from_json(body: bytes, kind: str) -> Any:
    try:
        return load_json(body)
    except orjson.JSONDecodeError as error:
        why = f"couldn't get version/kind; json parse error: {json_mistake(error, body)}"
        if kind == "DeleteOptions":
            raise bad_request(why) from None
        raise unreadable(kind, why, body) from None


def load_json(body: bytes) -> Any:
    """JSON with the numbers as Go reads them. Raises `orjson.JSONDecodeError`."""
    parsed = orjson.loads(body)
    return _as_read_by_go(parsed, _EXACT) if _UNLIKE_GO.search(body) else parsed


def _as_read_by_go(value: Any, exact: int) -> Any:
    """2.0 and 1e3 are 2 and 1000 up to `exact`: an `integer` may be given so. What exceeds 64 bits is none.

    Raises ValueError for what is no number there.
    """
    match value:
        case float() if value.is_integer() and abs(value) <= exact:
            return int(value)
        case int() if not -_INTEGERS <= value < _INTEGERS:
            try:
                return float(value)
            except OverflowError:
                raise ValueError("yaml: a number must be finite") from None
        case dict():
            return {key: _as_read_by_go(item, exact) for key, item in value.items()}
        case list():
            return [_as_read_by_go(item, exact) for item in value]
    return value


def json_mistake(error: orjson.JSONDecodeError, body: bytes) -> str:
    """The message of Go's decoder about the same text."""
    if error.pos >= len(body.decode("utf-8", "replace").rstrip()):
        return "unexpected end of JSON input"
    # A document that is empty has no position.
    character = error.doc[error.pos : error.pos + 1] or body[:1].decode("latin-1")
    return f"invalid character '{character}' looking for beginning of value"


def unreadable(kind: str, why: str, body: bytes) -> Failure:
    return bad_request(f"the object provided is unrecognized (must be of type {kind}): {why} ({_excerpt(body)})")


def _excerpt(body: bytes) -> str:
    if not body:
        return "<empty>"
    text = body.decode("utf-8", "replace") if body[:1] == b"{" else body.hex()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def not_an_object(value: Any, kind: str, body: bytes) -> Failure:
    """The answer to JSON that is an array, a string, a number or null."""
    if value is None:
        return unreadable(kind, "Object 'Kind' is missing in 'null'", body)
    names: list[tuple[type, str]] = [
        (list, "array"),
        (str, "string"),
        (bool, "bool"),
        (int, "number"),
        (float, "number"),
    ]
    name = next(name for type_, name in names if isinstance(value, type_))
    why = f"couldn't get version/kind; json parse error: json: cannot unmarshal {name} into Go value of type {_GO_TYPE}"
    return unreadable(kind, why, body)


def missing_kind(kind: str, body: bytes) -> Failure:
    return unreadable(kind, f"Object 'Kind' is missing in '{body.decode('utf-8', 'replace')}'", body)


def load_yaml(body: bytes) -> Any:
    """YAML, or the JSON that most clients send in its place. Raises ValueError."""
    if body[:1] == b"{":
        with contextlib.suppress(orjson.JSONDecodeError):
            return load_json(body)
    try:
        loaded = safeyaml.load(body)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark.line if error.problem_mark else 0) or 1
        raise ValueError(f"yaml: line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        text = re.sub(r"\s+", " ", str(error))
        raise ValueError(f"yaml: {text}") from None
    return _as_read_by_go(loaded, _INTEGERS - 1)  # Go converts YAML to JSON first
