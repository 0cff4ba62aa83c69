"""Decides what is kept and for how long: the rules, and what exceeds them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

DAY: Final = 86400.0
_GIB: Final = 1024**3
What = Literal["output", "process", "artifacts", "audit"]
Reason = Literal["age", "size", "released"]
"""`released`: its task was deleted, and it was kept as long as it was to be."""


@dataclass(frozen=True, slots=True)
class Rule:
    """At most so long and so much together. None: without limit."""

    max_age_seconds: float | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules of one state directory. Each is a flag of `remit operator` and `remit up`."""

    output: Rule = Rule(30 * DAY, 10 * _GIB)
    """The output of attempts and of supervised processes, once they have ended."""
    artifacts: Rule = Rule(90 * DAY, 10 * _GIB)
    audit: Rule = Rule(None, 10 * _GIB)
    """Closed files of the audit trail."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may be removed as one."""

    what: What
    name: str
    """Below the state directory."""
    size: int
    """Bytes."""
    time: float
    """When it was last changed, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Removal:
    item: Item
    reason: Reason


def surplus(items: Iterable[Item], rule: Rule, now: float, in_use_bytes: int = 0) -> Iterator[Removal]:
    """Select what is too old, and the oldest of the rest until no more than the rule allows are left, oldest first.

    `in_use_bytes` counts what cannot be removed now.
    """
    ordered = sorted(items, key=lambda item: (item.time, item.name))
    left = in_use_bytes + sum(item.size for item in ordered)
    for item in ordered:
        if rule.max_age_seconds is not None and now - item.time > rule.max_age_seconds:
            yield Removal(item, "age")
        elif rule.max_bytes is not None and left > rule.max_bytes:
            yield Removal(item, "size")
        else:
            continue
        left -= item.size
