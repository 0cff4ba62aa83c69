"""Keys that a JSON document writes twice: the last one wins, so the first was lost without a word."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


class _Map(dict[str, Any]):
    """A parsed object that remembers which of its keys were written again."""

    again: tuple[str, ...]


def duplicate_keys(raw: bytes) -> list[str]:
    """Paths such as `spec.a[0].b` of the keys written more than once. `raw` is known to parse as JSON."""
    found: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> _Map:
        parsed = _Map(pairs)
        counts = Counter(key for key, _ in pairs) if len(parsed) != len(pairs) else {}
        parsed.again = tuple(key for key, count in counts.items() if count > 1)
        return parsed

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Map):
            found.extend(f"{path}.{key}" if path else key for key in value.again)
            for key, child in value.items():
                walk(child, f"{path}.{key}" if path else key)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                walk(child, f"{path}[{index}]")

    walk(json.loads(raw, object_pairs_hook=build), "")
    return found
