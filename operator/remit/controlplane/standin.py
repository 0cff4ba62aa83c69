"""Permissive stand-ins for `remit.controlplane.schema` until it is here: nothing is pruned, defaulted or refused."""

from __future__ import annotations

from typing import Any

from remit.controlplane.schema import (
    Cause,
    Columns,
    Invalid,
    Schema,
    core_schema,
    default_crd,
    duplicate_keys,
    openapi_v3,
    parse_field_selector,
    parse_label_selector,
    validate_crd,
)
from remit.controlplane.schema.apply import server_side_apply
from remit.controlplane.schema.managedfields import track_update

__all__ = [
    "Cause",
    "Columns",
    "Invalid",
    "Schema",
    "core_schema",
    "default_crd",
    "duplicate_keys",
    "openapi_v3",
    "parse_field_selector",
    "parse_label_selector",
    "server_side_apply",
    "track_update",
    "validate_crd",
]


def apply_merge_patch(obj: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge_patch(result.get(key), value)
    return result


apply_strategic = apply_merge_patch


def apply_json_patch(obj: Any, ops: Any) -> Any:
    import jsonpatch

    return jsonpatch.apply_patch(obj, ops)


def validate_metadata(obj: Any, **_: Any) -> list[Any]:
    return []


def decode_protobuf(raw: bytes) -> dict[str, Any]:
    raise ValueError("protobuf is not read yet")


def openapi_v2_protobuf() -> bytes:
    return b""
