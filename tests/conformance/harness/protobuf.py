"""Encodes the protobuf bodies that kubectl sends: Kubernetes' envelope and length-delimited fields."""

from __future__ import annotations

MAGIC = b"k8s\x00"


def field(number: int, value: bytes | str | bool | list[bytes]) -> bytes:
    """Encodes one field of a message; a list is a repeated field."""
    if isinstance(value, list):
        return b"".join(field(number, item) for item in value)
    if isinstance(value, bool):
        return _varint(number << 3) + _varint(int(value))
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def envelope(api_version: str, kind: str, message: bytes) -> bytes:
    """Returns a `runtime.Unknown` after the magic number, which is the format of
    `application/vnd.kubernetes.protobuf`."""
    return MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, message)


def metadata(name: str, namespace: str = "", labels: dict[str, str] | None = None) -> bytes:
    """Encodes an ObjectMeta."""
    pairs = [field(1, key) + field(2, value) for key, value in (labels or {}).items()]
    return field(1, name) + (field(3, namespace) if namespace else b"") + field(11, pairs)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
