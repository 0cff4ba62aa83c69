"""Strategic merge patch: a merge patch that knows which lists are sets or keyed, and can be told otherwise.

Directives inside the patch: `$patch: replace|delete` on a map or an item, `$retainKeys` on a map, and next to a
list `$deleteFromPrimitiveList/NAME` and `$setElementOrder/NAME`. Rules: apimachinery's strategicpatch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from remit.errors import ApiError

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"

MergeLists = Mapping[str, str]
"""Dotted path of each list that is merged to the key of its items, empty for a list of strings."""

_METADATA: Final[MergeLists] = {"metadata.finalizers": "", "metadata.ownerReferences": "uid"}
_OF_KIND: Final[Mapping[str, MergeLists]] = {"Namespace": {"status.conditions": "type"}}


def merge_lists_of(kind: str) -> MergeLists:
    return {**_METADATA, **_OF_KIND.get(kind, {})}


def strategic_merge(obj: Any, patch: dict[str, Any], lists: MergeLists, path: str = "") -> dict[str, Any]:
    """`obj` after `patch`; neither is changed. Raises `ApiError` for directives that cannot be followed."""
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {key: _plain(value) for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    if directive is not None:
        raise _malformed(f"unknown patch type: {directive} in map: {patch}")
    result = dict(obj) if isinstance(obj, dict) else {}
    if _RETAIN in patch:
        retained = _strings(patch[_RETAIN], _RETAIN)
        if any(key not in retained for key in patch if not key.startswith("$")):
            raise _malformed("invalid patch format of retainKeys")
        result = {key: value for key, value in result.items() if key in retained}
    names = {key.partition("/")[2] for key in patch if key.startswith((_DELETE, _ORDER))}
    for key, value in patch.items():
        if key in (_PATCH, _RETAIN) or key.startswith((_DELETE, _ORDER)):
            continue
        where = f"{path}.{key}" if path else key
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic_merge(result.get(key), value, lists, where)
        elif isinstance(value, list) and where in lists:
            names.add(key)
        else:
            result[key] = value
    for name in sorted(names):
        where = f"{path}.{name}" if path else name
        if where not in lists:
            raise _malformed(f"list {where} has no merge key, so {_DELETE}… and {_ORDER}… have no meaning for it")
        live = result.get(name)
        merged = _merge_list(live if isinstance(live, list) else [], name, patch, lists[where])
        if merged or name in result or name in patch:
            result[name] = merged
    return result


def _merge_list(live: list[Any], name: str, patch: dict[str, Any], key: str) -> list[Any]:
    items, order = patch.get(name) or [], patch.get(_ORDER + name)
    if not key:
        gone = _strings(patch.get(_DELETE + name) or [], _DELETE + name)
        kept = {item: item for item in [*live, *items] if item not in gone}
        return _ordered(kept, items if order is None else order, live)
    for item in [*items, *(order or ())]:
        if not isinstance(item, dict):
            raise _malformed(f"expected an object with the merge key {key}, found {item!r}")
    if any(item.get(_PATCH) == "replace" for item in items):
        # One such item replaces the whole list by the other items.
        return [_plain(item) for item in items if item.get(_PATCH) != "replace"]
    merged = _merge_items(live, items, key)
    named = [item.get(key) for item in (items if order is None else order)]
    return _ordered(merged, named, [item.get(key) for item in live])


def _merge_items(live: list[Any], items: list[Any], key: str) -> dict[Any, Any]:
    merged = {item.get(key): item for item in live}
    for item in items:
        if key not in item:
            raise _malformed(f"map: {item} does not contain declared merge key: {key}")
        if item.get(_PATCH) == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = strategic_merge(merged.get(item[key]), item, {})
    return merged


def _ordered(items: dict[Any, Any], named: list[Any], live: list[Any]) -> list[Any]:
    """The named items in their order; between them, those only the server has, before what they stood before."""
    first = [name for name in dict.fromkeys(named) if name in items]
    rest = [name for name in items if name not in first]
    position = {name: index for index, name in enumerate(live)}
    result: list[Any] = []
    for name in rest:
        while first and position.get(first[0], -1) < position[name]:
            result.append(items[first.pop(0)])
        result.append(items[name])
    return [*result, *(items[name] for name in first)]


def _plain(value: Any) -> Any:
    """A value without directives, for where there is nothing to merge it with."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if not key.startswith("$") and part is not None}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _malformed(f"{where} must be a list of strings")
    return value


def _malformed(message: str) -> ApiError:
    return ApiError(message, status=400, reason="BadRequest")
