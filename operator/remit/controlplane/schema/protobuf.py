"""The protobuf that kubectl sends for a few built-in kinds, read into the dicts that JSON would have given.

Field numbers are those of the `generated.proto` files of k8s.io/api and k8s.io/apimachinery; fields not listed here are
skipped. As in the JSON of Go's `omitempty`, what is zero is left out, but for fields that may be absent (`?`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

_MAGIC: Final = b"k8s\x00"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Message = Mapping[int, tuple[str, Any]]
"""Field number to name and type. A type is a word, another message, or one of the three around it."""


class Many(NamedTuple):
    of: Any


class MapOf(NamedTuple):
    """String keys; values are `string` or `bytes`."""

    of: Any


def _message(**fields: tuple[int, Any]) -> Message:
    return {number: (name, kind) for name, (number, kind) in fields.items()}


def _strings(*names: str) -> Message:
    """A message of strings, numbered from 1."""
    return {number: (name, "string") for number, name in enumerate(names, start=1)}


_TYPE: Final = _strings("apiVersion", "kind")
_UNKNOWN: Final = _message(
    typeMeta=(1, _TYPE), raw=(2, "raw"), contentEncoding=(3, "string"), contentType=(4, "string")
)
_OWNER: Final = _message(
    kind=(1, "string"),
    name=(3, "string"),
    uid=(4, "string"),
    apiVersion=(5, "string"),
    controller=(6, "bool?"),
    blockOwnerDeletion=(7, "bool?"),
)
_MANAGED: Final = _message(
    manager=(1, "string"),
    operation=(2, "string"),
    apiVersion=(3, "string"),
    time=(4, "time"),
    fieldsType=(6, "string"),
    fieldsV1=(7, "fields"),
    subresource=(8, "string"),
)
_METADATA: Final = _message(
    name=(1, "string"),
    generateName=(2, "string"),
    namespace=(3, "string"),
    selfLink=(4, "string"),
    uid=(5, "string"),
    resourceVersion=(6, "string"),
    generation=(7, "int"),
    creationTimestamp=(8, "time"),
    deletionTimestamp=(9, "time"),
    deletionGracePeriodSeconds=(10, "int?"),
    labels=(11, MapOf("string")),
    annotations=(12, MapOf("string")),
    ownerReferences=(13, Many(_OWNER)),
    finalizers=(14, Many("string")),
    managedFields=(17, Many(_MANAGED)),
)
_REFERENCE: Final = _strings("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_SOURCE: Final = _strings("component", "host")
_SERIES: Final = _message(count=(1, "int"), lastObservedTime=(2, "microtime"))
_CONDITION: Final = _message(
    type=(1, "string"),
    status=(2, "string"),
    lastTransitionTime=(4, "time"),
    reason=(5, "string"),
    message=(6, "string"),
)
_ACCESS: Final = _message(
    resourceAttributes=(1, _strings("namespace", "verb", "group", "version", "resource", "subresource", "name")),
    nonResourceAttributes=(2, _strings("path", "verb")),
)
_SUBJECT: Final = {**_ACCESS, **_message(user=(3, "string"), groups=(4, Many("string")), uid=(6, "string"))}

_KINDS: Final[Mapping[tuple[str, str], Message]] = {
    ("v1", "Namespace"): _message(
        metadata=(1, _METADATA),
        spec=(2, _message(finalizers=(1, Many("string")))),
        status=(3, _message(phase=(1, "string"), conditions=(2, Many(_CONDITION)))),
    ),
    ("v1", "ConfigMap"): _message(
        metadata=(1, _METADATA),
        data=(2, MapOf("string")),
        binaryData=(3, MapOf("bytes")),
        immutable=(4, "bool?"),
    ),
    ("v1", "Secret"): _message(
        metadata=(1, _METADATA),
        data=(2, MapOf("bytes")),
        type=(3, "string"),
        stringData=(4, MapOf("string")),
        immutable=(5, "bool?"),
    ),
    ("v1", "Event"): _message(
        metadata=(1, _METADATA),
        involvedObject=(2, _REFERENCE),
        reason=(3, "string"),
        message=(4, "string"),
        source=(5, _SOURCE),
        firstTimestamp=(6, "time"),
        lastTimestamp=(7, "time"),
        count=(8, "int"),
        type=(9, "string"),
        eventTime=(10, "microtime"),
        series=(11, _SERIES),
        action=(12, "string"),
        related=(13, _REFERENCE),
        reportingComponent=(14, "string"),
        reportingInstance=(15, "string"),
    ),
    ("events.k8s.io/v1", "Event"): _message(
        metadata=(1, _METADATA),
        eventTime=(2, "microtime"),
        series=(3, _SERIES),
        reportingController=(4, "string"),
        reportingInstance=(5, "string"),
        action=(6, "string"),
        reason=(7, "string"),
        regarding=(8, _REFERENCE),
        related=(9, _REFERENCE),
        note=(10, "string"),
        type=(11, "string"),
        deprecatedSource=(12, _SOURCE),
        deprecatedFirstTimestamp=(13, "time"),
        deprecatedLastTimestamp=(14, "time"),
        deprecatedCount=(15, "int"),
    ),
    ("coordination.k8s.io/v1", "Lease"): _message(
        metadata=(1, _METADATA),
        spec=(
            2,
            _message(
                holderIdentity=(1, "string?"),
                leaseDurationSeconds=(2, "int?"),
                acquireTime=(3, "microtime"),
                renewTime=(4, "microtime"),
                leaseTransitions=(5, "int?"),
                strategy=(6, "string?"),
                preferredHolder=(7, "string?"),
            ),
        ),
    ),
    ("authentication.k8s.io/v1", "SelfSubjectReview"): _message(metadata=(1, _METADATA)),
    ("authentication.k8s.io/v1", "TokenReview"): _message(
        metadata=(1, _METADATA), spec=(2, _message(token=(1, "string"), audiences=(2, Many("string"))))
    ),
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview"): _message(metadata=(1, _METADATA), spec=(2, _SUBJECT)),
    ("authorization.k8s.io/v1", "SubjectAccessReview"): _message(metadata=(1, _METADATA), spec=(2, _SUBJECT)),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): _message(metadata=(1, _METADATA), spec=(2, _ACCESS)),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): _message(
        metadata=(1, _METADATA), spec=(2, _strings("namespace"))
    ),
}
_DELETE_OPTIONS: Final = _message(
    gracePeriodSeconds=(1, "int?"),
    preconditions=(2, _message(uid=(1, "string?"), resourceVersion=(2, "string?"))),
    orphanDependents=(3, "bool?"),
    propagationPolicy=(4, "string?"),
    dryRun=(5, Many("string")),
)


def decode_protobuf(body: bytes) -> dict[str, Any]:
    """The object in a body of type `application/vnd.kubernetes.protobuf`. Raises ValueError when it cannot be read."""
    if not body.startswith(_MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    envelope = _decode(body[len(_MAGIC) :], _UNKNOWN)
    named = envelope.get("typeMeta", {})
    api_version, kind = named.get("apiVersion", ""), named.get("kind", "")
    # Every API group has its own DeleteOptions, and all of them have the same fields.
    message = _DELETE_OPTIONS if kind == "DeleteOptions" else _KINDS.get((api_version, kind))
    if message is None:
        raise ValueError(f'no kind "{kind}" of version "{api_version}" is read from protobuf; send JSON')
    return {"apiVersion": api_version, "kind": kind, **_decode(envelope.get("raw", b""), message)}


def openapi_v2_protobuf() -> bytes:
    """An OpenAPI v2 document without paths or definitions, for clients that know no v3 (kubectl up to 1.27)."""
    info = _text(1, b"Kubernetes") + _text(2, b"v1")
    return _text(1, b"2.0") + _text(2, info) + _text(8, b"")


def _text(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def _decode(data: bytes, message: Message) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for number, wire in _fields(data):
        if number not in message:
            continue
        name, kind = message[number]
        if isinstance(kind, Many):
            result.setdefault(name, []).append(_value(wire, kind.of))
        elif isinstance(kind, MapOf):
            entry = {1: ("key", "string?"), 2: ("value", f"{kind.of}?")}
            pair = _decode(_bytes(wire), entry)
            result.setdefault(name, {})[pair.get("key", "")] = pair.get("value", "")
        else:
            value = _value(wire, kind.removesuffix("?") if isinstance(kind, str) else kind)
            if value or isinstance(kind, Mapping) or kind.endswith("?"):
                result[name] = value
    return result


def _value(wire: int | bytes, kind: Any) -> Any:
    if isinstance(kind, Mapping):
        return _decode(_bytes(wire), kind)
    match kind:
        case "string":
            return _bytes(wire).decode()
        case "bytes":
            return base64.b64encode(_bytes(wire)).decode()
        case "raw":
            return _bytes(wire)
        case "fields":
            return orjson.loads(_decode(_bytes(wire), _message(raw=(1, "raw"))).get("raw", b"{}"))
        case "time" | "microtime":
            return _time(_bytes(wire), "microseconds" if kind == "microtime" else "seconds")
    if not isinstance(wire, int):
        raise ValueError("a number is expected in a protobuf message, and text is there")  # noqa: TRY004
    if kind == "bool":
        return bool(wire)
    return wire - (1 << 64) if wire >> 63 else wire


def _time(data: bytes, precision: str) -> str:
    parts = _decode(data, _message(seconds=(1, "int"), nanos=(2, "int")))
    if not parts:
        return ""
    try:
        moment = _EPOCH + timedelta(seconds=parts.get("seconds", 0), microseconds=parts.get("nanos", 0) // 1000)
    except OverflowError:
        raise ValueError("a time in a protobuf message is out of range") from None
    return moment.isoformat(timespec=precision).removesuffix("+00:00") + "Z"


def _bytes(wire: int | bytes) -> bytes:
    if isinstance(wire, int):
        raise ValueError("text is expected in a protobuf message, and a number is there")  # noqa: TRY004
    return wire


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: a varint as int, everything else as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == 2:
            length, at = _varint(data, at)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} of a protobuf message is not known")
        if at + length > len(data):
            raise ValueError("unexpected end of a protobuf message")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("unexpected end of a protobuf message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise ValueError("a number in a protobuf message is too long")
