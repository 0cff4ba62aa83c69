"""Keys that a document writes twice: the last one wins, so the first was lost without a word."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import yaml

from remit import safeyaml


class _Map(dict[str, Any]):
    """A parsed object that remembers which of its keys were written again."""

    again: tuple[str, ...] = ()


def duplicate_keys(raw: bytes) -> list[str]:
    """Paths such as `spec.a[0].b` of the keys written more than once. `raw` is known to parse as JSON."""
    found: list[str] = []
    repeats = False

    def build(pairs: list[tuple[str, Any]]) -> _Map:
        nonlocal repeats
        parsed = _Map(pairs)
        if len(parsed) != len(pairs):
            repeats = True
            parsed.again = tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return parsed

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Map):
            found.extend(f"{path}.{key}" if path else key for key in value.again)
            for key, child in value.items():
                walk(child, f"{path}.{key}" if path else key)
        elif isinstance(value, list):
            for index, child in enumerate(value):
                walk(child, f"{path}[{index}]")

    parsed = json.loads(raw, object_pairs_hook=build)
    if repeats:
        walk(parsed, "")
    return found


def duplicate_yaml_keys(raw: bytes) -> list[str]:
    """The message of Kubernetes' YAML reader about each key that is written again. `raw` is known to parse as YAML."""
    found: list[str] = []

    def walk(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    found.append(f'line {key.start_mark.line + 1}: key "{key.value}" already set in map')
                seen.add(str(key.value))
                walk(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item)

    root = safeyaml.compose(raw)
    if root is not None:
        walk(root)
    return found
