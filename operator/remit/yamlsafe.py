"""YAML from files that somebody names: only plain values, of bounded depth and size.

PyYAML's own loaders recurse without a limit, and keep an alias as a reference, so that a few hundred bytes can stand
for gigabytes to whoever walks through what they gave.
"""

from __future__ import annotations

from typing import Any, Final

import yaml
from yaml.nodes import Node

MOST_DEPTH: Final = 100
MOST_VALUES: Final = 200_000
"""Of one document, each alias counted as all that it stands for."""


def load_all(text: str) -> list[Any]:
    """The documents in YAML text. Raises `yaml.YAMLError`, nothing else."""
    return list(yaml.load_all(text, BoundedLoader))


class BoundedLoader(yaml.SafeLoader):
    """Refuses documents that are too deep or too large once their aliases are resolved."""

    def compose_document(self) -> Node | None:
        """See `yaml.composer.Composer`."""
        self._values = self._depth = self._deepest = 0
        self._known: dict[int, tuple[int, int]] = {}
        document: Node | None = super().compose_document()
        return document

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """See `yaml.composer.Composer`."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._known:
                raise yaml.composer.ComposerError(None, None, "an alias refers to what it is part of", mark)
            values, height = self._known[id(node)]
            self._count(values, self._depth + height, mark)
            return node
        values, deepest = self._values, self._deepest
        self._depth += 1
        self._deepest = self._depth
        self._count(1, self._depth, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._known[id(node)] = self._values - values, self._deepest - self._depth
        self._deepest = max(self._deepest, deepest)
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """See `yaml.constructor.BaseConstructor`, which lets errors through of values that their tags do not fit."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"this is no {kind}", node.start_mark) from None

    def _count(self, values: int, depth: int, mark: yaml.Mark) -> None:
        self._values += values
        self._deepest = max(self._deepest, depth)
        if depth > MOST_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MOST_DEPTH} levels", mark)
        if self._values > MOST_VALUES:
            message = f"more than {MOST_VALUES} values, each alias counted as all that it stands for"
            raise yaml.composer.ComposerError(None, None, message, mark)
