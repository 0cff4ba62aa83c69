"""Paths to one field of a schema, such as `.spec.replicas` or `.spec['a.b']`: of CEL rules and of selectable fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TOKEN = re.compile(r"[.\[\]]|'(?:[^\\']|\\.)*'?|[^.\[\]'][^.\[\]]*", re.DOTALL)


def follow(path: str, schema: Mapping[str, Any], *, arrays: bool = True) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """The keys of the path, and the schema of what it leads to. Raises ValueError with what is wrong with it."""
    tokens = iter(_TOKEN.findall(path))
    keys = []
    for token in tokens:
        match token:
            case "[" if not arrays:
                raise ValueError("array notation is not allowed")
            case "[":
                quoted = _next(tokens)
                if len(quoted) < 2 or quoted[0] != "'" or quoted[-1] != "'":
                    raise ValueError(f"expected single quoted string but got {quoted}")
                key = re.sub(r"\\(.)", r"\1", quoted[1:-1])
                schema = _field(schema, key)
                if (closing := _next(tokens)) != "]":
                    raise ValueError(f"expected ] but got {closing}")
            case ".":
                key = _next(tokens)
                schema = _field(schema, key)
            case _:
                raise ValueError(f"expected [ or . but got: {token}")
        keys.append(key)
    return tuple(keys), schema


def _next(tokens: Any) -> str:
    try:
        token: str = next(tokens)
    except StopIteration:
        raise ValueError("unexpected end of JSON path") from None
    return token


def _field(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if properties := schema.get("properties"):
        if key in properties:
            found: Mapping[str, Any] = properties[key]
            return found
    elif isinstance(values := schema.get("additionalProperties"), dict):
        return values
    raise ValueError("does not refer to a valid field")
