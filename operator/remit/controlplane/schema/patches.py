"""JSON merge patch, JSON patch and strategic merge patch. Objects given are never changed; results share parts of them.

A patch that cannot be read is an `ApiError` with status 400, one that does not fit the object has status 422.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import jsonpatch
import orjson
from jsonpointer import JsonPointer, JsonPointerException

from remit.controlplane.schema.strategic import merge_lists_of, strategic_merge
from remit.errors import ApiError

_MOST_COPIED: Final = 3 * 1024 * 1024
"""Bytes of JSON that the copies of one patch may add, as in kube-apiserver."""
_MOST_MOVED: Final = 50_000_000
"""List items that insertions and removals of one patch may pass over: less than a second of work."""
_DECODING: Final = "error decoding patch: "
_GO_TYPES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def apply_merge_patch(obj: Any, patch: Any) -> Any:
    """RFC 7386, with the one difference of Kubernetes: the patch of an object must be an object."""
    return _merged(obj, _object(patch, _DECODING))


def _merged(obj: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def apply_json_patch(obj: Any, ops: Any) -> Any:
    """RFC 6902. As in Kubernetes `replace` may name a field that is not there, and `test` for null then holds.

    What the operations cost is bounded: the number of bytes copied, as in kube-apiserver, and of list items moved.
    """
    if not isinstance(ops, list):
        raise _undecodable(ops, "[]handlers.jsonPatchOp")
    for op in ops:
        if not isinstance(op, dict):
            raise _undecodable(op, "handlers.jsonPatchOp")
        for field in ("op", "path", "from"):
            if not isinstance(op.get(field, ""), str):
                raise _undecodable(op[field], "string", f"{_DECODING}{field}: ")
    cost = _Cost()
    try:
        result = orjson.loads(orjson.dumps(obj))
        for op in ops:
            cost.add(result, op)
            result = _Patch([op]).apply(result, in_place=True)
    except (jsonpatch.JsonPatchException, JsonPointerException, LookupError, TypeError, ValueError):
        raise rejected() from None
    return result


def rejected() -> ApiError:
    """The error of kube-apiserver for every JSON patch that does not fit."""
    return ApiError("the server rejected our request due to an error in our request", status=422, reason="Invalid")


class _Cost:
    """The cost of the operations of one patch so far."""

    def __init__(self) -> None:
        self._copied = 0
        self._moved = 0

    def add(self, obj: Any, op: dict[str, Any]) -> None:
        """Raises ValueError when `op`, applied to `obj`, would cost more than is left."""
        if op.get("op") == "copy":
            self._copied += len(orjson.dumps(JsonPointer(op.get("from", "")).resolve(obj)))
        for pointer in (op.get("path", ""), op.get("from", "")):
            parent = JsonPointer(pointer.rpartition("/")[0]).resolve(obj, None)
            self._moved += len(parent) if isinstance(parent, list) else 0
        if self._copied > _MOST_COPIED or self._moved > _MOST_MOVED:
            raise ValueError("the patch costs too much")


class _Replace(jsonpatch.ReplaceOperation):
    def apply(self, obj: Any) -> Any:
        parent, key = self.pointer.to_last(obj)
        if isinstance(parent, dict) and key is not None:
            parent[key] = self.operation.get("value")
            return obj
        return super().apply(obj)


class _Test(jsonpatch.TestOperation):
    def apply(self, obj: Any) -> Any:
        parent, key = self.pointer.to_last(obj)
        if isinstance(parent, dict) and key not in parent and self.operation.get("value") is None:
            return obj
        return super().apply(obj)


class _Patch(jsonpatch.JsonPatch):
    operations = MappingProxyType({**jsonpatch.JsonPatch.operations, "replace": _Replace, "test": _Test})


def apply_strategic(obj: Any, patch: Any, kind: str) -> Any:
    """The merge of `kubectl patch` for a built-in `kind`: lists with a merge key are merged item by item."""
    return strategic_merge(obj, _object(patch, ""), merge_lists_of(kind))


def _object(patch: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(patch, dict):
        raise _undecodable(patch, "map[string]interface {}", prefix)
    return patch


def _undecodable(value: Any, into: str, prefix: str = _DECODING) -> ApiError:
    found = _GO_TYPES.get(type(value), "null")
    return ApiError(
        f"{prefix}json: cannot unmarshal {found} into Go value of type {into}", status=400, reason="BadRequest"
    )
