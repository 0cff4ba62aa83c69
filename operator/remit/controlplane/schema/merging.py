"""Merge one value into another the way the schema says: field by field, item by item, or as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remit.controlplane.schema.fieldset import Child, SchemaDict, children


def merge(live: Any, wanted: Any, schema: SchemaDict | None) -> Any:
    """`live` with `wanted` on top. Nothing is removed, and nothing is changed in place."""
    below, above = children(live, schema), children(wanted, schema)
    if wanted is None and below:
        return live
    if below is None or above is None or type(live) is not type(wanted):
        return wanted
    order = [*below, *(element for element in above if element not in below)]
    if isinstance(live, list):
        return [_part(below, above, element) for element in _order(list(below), list(above))]
    return {element[2:]: _part(below, above, element) for element in order}


def _part(below: Mapping[str, Child], above: Mapping[str, Child], element: str) -> Any:
    if element not in above:
        return below[element].value
    wanted = above[element]
    return merge(below[element].value, wanted.value, wanted.schema) if element in below else wanted.value


def _order(live: list[str], wanted: list[str]) -> list[str]:
    """Items in the order wanted, with those that only `live` has kept behind the ones that they stood behind."""
    ordered: list[str] = []
    shared = [element for element in wanted if element in set(live)]
    rest = list(wanted)
    for element in live:
        if element not in wanted:
            ordered.append(element)
            continue
        if shared and element == shared[0]:
            while rest and rest[0] != element:
                ordered.append(rest.pop(0))
            ordered.append(rest.pop(0))
            shared.pop(0)
    return [*ordered, *rest]
