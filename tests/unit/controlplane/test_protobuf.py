"""Tests protobuf bodies that kubectl 1.37 wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema.protobuf import decode_protobuf, openapi_v2_protobuf

ENVELOPE = "6b387300"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "0a0f0a02763112094e616d65737061636512190a110a016e12001a0022002a0032003800420012001a020a001a002200",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": {}, "status": {}},
        ),
        (
            "0a0f0a0276311209436f6e6669674d617012250a110a016312001a0022002a0032003800420012060a01611201311a080a01621203"
            "fffe001a002200",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "c"},
                "data": {"a": "1"},
                "binaryData": {"b": "//4A"},
            },
        ),
        (
            "0a0c0a0276311206536563726574121d0a110a017312001a0022002a0032003800420012060a01701201711a001a002200",
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"p": "cQ=="}},
        ),
        (
            "0a320a17617574686f72697a6174696f6e2e6b38732e696f2f7631121753656c665375626a656374416363657373526576696577"
            "123c0a100a0012001a0022002a00320038004200121e0a1c0a0764656661756c7412036765741a0022002a04706f647332003a00"
            "1a08080012001a0020001a002200",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "metadata": {},
                "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}},
            },
        ),
        (
            "0a310a17617574686f72697a6174696f6e2e6b38732e696f2f7631121653656c665375626a65637452756c65735265766965771223"
            "0a100a0012001a0022002a0032003800420012090a0764656661756c741a04180022001a002200",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectRulesReview",
                "metadata": {},
                "spec": {"namespace": "default"},
            },
        ),
    ],
)
def test_what_kubectl_sends(body: str, expected: dict[str, Any]) -> None:
    assert decode_protobuf(bytes.fromhex(ENVELOPE + body)) == expected


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    type_meta = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\x00" + field(1, type_meta) + field(2, raw)


def test_times_references_and_fields() -> None:
    time = field(1, 1767225601) + field(2, 123456789)
    owner = field(1, b"K") + field(3, b"n") + field(4, b"u") + field(5, b"v1") + field(6, 0) + field(7, 1)
    managed = field(1, b"m") + field(4, time) + field(7, field(1, b'{"f:a":{}}'))
    metadata = (
        field(1, b"l")
        + field(8, time)
        + field(10, 0)
        + field(11, field(1, b"a") + field(2, b""))
        + field(13, owner)
        + field(14, b"x/y")
        + field(17, managed)
        + field(99, b"not known here")
    )
    spec = field(1, b"me") + field(2, 15) + field(4, time) + field(5, -1)
    lease = decode_protobuf(body("coordination.k8s.io/v1", "Lease", field(1, metadata) + field(2, spec)))
    assert lease["metadata"] == {
        "name": "l",
        "creationTimestamp": "2026-01-01T00:00:01Z",
        "deletionGracePeriodSeconds": 0,
        "labels": {"a": ""},
        "ownerReferences": [
            {"kind": "K", "name": "n", "uid": "u", "apiVersion": "v1", "controller": False, "blockOwnerDeletion": True}
        ],
        "finalizers": ["x/y"],
        "managedFields": [{"manager": "m", "time": "2026-01-01T00:00:01Z", "fieldsV1": {"f:a": {}}}],
    }
    assert lease["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "renewTime": "2026-01-01T00:00:01.123456Z",
        "leaseTransitions": -1,
    }


def test_delete_options_of_any_group() -> None:
    raw = field(1, 0) + field(2, field(1, b"uid")) + field(4, b"Foreground") + field(5, b"All")
    assert decode_protobuf(body("remit.dev/v1alpha1", "DeleteOptions", raw)) == {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "uid"},
        "propagationPolicy": "Foreground",
        "dryRun": ["All"],
    }


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"{}", "does not appear to be a protobuf message"),
        (body("v1", "Pod", b""), 'no kind "Pod" of version "v1" is read from protobuf; send JSON'),
        (body("v1", "Secret", b"\x0a\x05a"), "unexpected end"),
        (body("v1", "Secret", b"\x0a"), "unexpected end"),
        (body("v1", "Secret", b"\x0b"), "wire type 3"),
        (body("v1", "Secret", b"\xff" * 11), "too long"),
        (body("v1", "Secret", field(1, 5)), "text is expected"),
        (body("v1", "Secret", field(5, b"x")), "a number is expected"),
        (body("v1", "Secret", field(1, field(8, field(1, 1 << 62)))), "out of range"),
        (body("v1", "Secret", field(3, b"\xff")), "invalid start byte"),
    ],
)
def test_what_cannot_be_read(raw: bytes, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        decode_protobuf(raw)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        found = decode_protobuf(body("v1", "Event", raw))
    except ValueError:
        return
    json.dumps(found)


def test_the_empty_openapi_document() -> None:
    info = field(1, b"Kubernetes") + field(2, b"v1")
    assert openapi_v2_protobuf() == field(1, b"2.0") + field(2, info) + field(8, b"")
