"""Bounds the cost of a CEL rule, from its text and from the size of the values that it is given.

The expression library can neither be interrupted nor does it count. So a bound that is cheap to work out decides where
a rule is evaluated: here, when it is certainly quick, or else in a process that is killed when it takes too long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

MOST_STEPS: Final = 1_000_000
"""Steps of a rule that is evaluated in this process: a tenth of a second at most, and far less for real rules."""
CPU_SECONDS_OF_A_CALL: Final = 2.0
"""CPU time of all rules of one object together."""
CPU_SECONDS_ON_LOOP: Final = 0.05
"""CPU time of all rules of one object that are evaluated on the event loop."""
_BYTES_OF_A_STEP: Final = 100
_STEPS_OF_A_PATTERN: Final = 20_000
"""Steps for compiling a regular expression of 100 bytes."""
_STEPS_OF_A_PART: Final = 10
"""Steps for making a value of a part of a text."""
_MANY: Final = 1 << 62

_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_MACROS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
_COPYING: Final = frozenset({"replace", "join", "format"})
_SPLITTING: Final = frozenset({"split", "findAll", "getQuery"})
_PATTERNS: Final = frozenset({"matches", "find", "findAll"})


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of an expression's text that matter for its cost."""

    nodes: int
    depth: int
    """How deep macros that go over collections are nested."""
    joins: int
    copies: int
    patterns: int
    splits: bool
    literals: bool
    """Whether there may be lists or maps in the text itself."""

    @classmethod
    def of(cls, source: str) -> Shape:
        """`source` is without comments and string literals."""
        tokens = _TOKEN.findall(source)
        deepest = 0
        nested: list[bool] = []
        for before, token in zip(["", *tokens], tokens, strict=False):
            if token == "(":  # noqa: S105 - no secret
                nested.append(before in _MACROS)
                deepest = max(deepest, sum(nested))
            elif token == ")" and nested:  # noqa: S105
                nested.pop()
        return cls(
            nodes=len(tokens),
            depth=deepest,
            joins=tokens.count("+"),
            copies=sum(token in _COPYING for token in tokens),
            patterns=sum(token in _PATTERNS for token in tokens),
            splits=any(token in _SPLITTING for token in tokens),
            literals=not {"[", "{"}.isdisjoint(tokens),
        )

    def steps(self, size: int, widest: int) -> int:
        """An upper bound for values of `size` bytes, whose largest collection has `widest` items."""
        growth = 1 << min(self.joins, 60) if self.depth else self.joins + 1
        grown = _capped(size * growth) * _capped(max(size, 1) ** self.copies)
        items = max(grown if self.splits or self.copies else widest * growth, self.nodes if self.literals else 1)
        rounds = _capped(items) ** self.depth
        steps = (self.nodes + self.patterns * _STEPS_OF_A_PATTERN) * (1 + grown // _BYTES_OF_A_STEP)
        return _capped(rounds * steps * (_STEPS_OF_A_PART if self.splits else 1))


class NotOnLoop(Exception):
    """The rules of an object take longer than the event loop may stand still: validate it in a thread."""


class Budget:
    """The time that the rules of one object may still take. `on_loop`: they are evaluated on the event loop."""

    def __init__(self, *, on_loop: bool = False) -> None:
        self._left = CPU_SECONDS_OF_A_CALL
        self.on_loop = on_loop

    @property
    def exhausted(self) -> bool:
        return self._left <= 0

    def spend(self, cpu_seconds: float) -> None:
        """Raises `NotOnLoop`."""
        self._left -= cpu_seconds
        if self.on_loop and self._left < CPU_SECONDS_OF_A_CALL - CPU_SECONDS_ON_LOOP:
            raise NotOnLoop


def is_cheap_by_size(shape: Shape, size: int) -> bool:
    """Whether a rule certainly ends soon on any values of `size` bytes as JSON."""
    return shape.steps(size, size // 2) <= MOST_STEPS


def is_cheap(shape: Shape, *values: Any) -> bool:
    """Whether a rule certainly ends soon on `values`, which are all that it reads."""
    size = sum(map(size_of, values))
    if is_cheap_by_size(shape, size):
        return True
    return shape.depth > 0 and shape.steps(size, max(map(_widest, values))) <= MOST_STEPS


def size_of(value: Any) -> int:
    """Bytes of JSON."""
    try:
        return len(orjson.dumps(value))
    except TypeError:  # nested too deeply, or not JSON
        return _MANY


def _widest(value: Any) -> int:
    """The number of items in the largest collection."""
    widest = 0
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict | list):
            widest = max(widest, len(part))
            left += part.values() if isinstance(part, dict) else part
    return widest


def _capped(number: int) -> int:
    return min(number, _MANY)
