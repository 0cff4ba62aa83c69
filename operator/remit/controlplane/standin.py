"""Permissive stand-ins for `remit.controlplane.schema` until it is here: nothing is pruned, defaulted or refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any


class Schema:
    @classmethod
    def compile(cls, openapi_v3_schema: dict[str, Any], *, has_status: bool) -> Schema:
        return cls()

    def prune(self, obj: dict[str, Any]) -> list[str]:
        return []

    def default(self, obj: dict[str, Any]) -> None:
        pass

    def validate(self, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[Any]:
        return []


def core_schema(kind: str) -> Schema:
    return Schema()


class Columns:
    def __init__(self, source: Any) -> None:
        self.definitions: list[dict[str, Any]] = [
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
        ]

    def cells(self, obj: dict[str, Any], now: datetime) -> list[Any]:
        return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp")]


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


def track_update(old: Any, new: Any, **_: Any) -> None:
    pass


def validate_metadata(obj: Any, **_: Any) -> list[Any]:
    return []


def validate_crd(crd: Any, old: Any = None) -> list[Any]:
    return []


def default_crd(crd: Any) -> None:
    pass


class Invalid(Exception):
    causes: list[Any]


def duplicate_keys(raw: bytes) -> list[str]:
    return []


def decode_protobuf(raw: bytes) -> dict[str, Any]:
    raise ValueError("protobuf is not read yet")


def openapi_v3(group: str, version: str, resources: Any) -> dict[str, Any]:
    return {
        "openapi": "3.0.0",
        "info": {"title": "Remit", "version": "v1"},
        "paths": {},
        "components": {"schemas": {r.kind: {} for r in resources}},
    }


def server_side_apply(live: Any, config: Any, **_: Any) -> dict[str, Any]:
    return dict(apply_merge_patch(live or {}, config))


def openapi_v2_protobuf() -> bytes:
    return b""


def parse_label_selector(text: str) -> Callable[[dict[str, str]], bool]:
    wanted = dict(part.split("=", 1) for part in text.replace("==", "=").split(",") if "=" in part)
    return lambda labels: all(labels.get(k) == v for k, v in wanted.items())


def parse_field_selector(text: str, allowed: Any) -> Callable[[dict[str, Any]], bool]:
    wanted = dict(part.split("=", 1) for part in text.replace("==", "=").split(",") if "=" in part)

    def get(obj: Any, path: str) -> str:
        for part in path.split("."):
            obj = (obj or {}).get(part)
        return str(obj or "")

    return lambda obj: all(get(obj, k) == v for k, v in wanted.items())
