"""Whose turn it is: a task passes every gate at once or waits at the first that is shut.

A gate holds so many tasks at a time; those that wait do so in the order they came, and one leaving lets one in. What
a rate says of time is the policy's own affair (`remit.policy.rate`); here only the waiting is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

OPERATOR = "the operator"


@dataclass(slots=True)
class _Gate:
    inside: set[str] = field(default_factory=set)
    waiting: dict[str, None] = field(default_factory=dict)
    capacity: int = 0


@dataclass
class Gates:
    """Gates by name. `wake` is called with the key of a task that should try again."""

    wake: Callable[[str], None]
    _gates: dict[str, _Gate] = field(default_factory=dict)
    _held: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def enter(self, key: str, capacities: Mapping[str, int]) -> str | None:
        """Pass all gates named in `capacities`, or none: then the answer is the gate where `key` now waits."""
        if key in self._held:
            return None
        shut = None
        for name, capacity in capacities.items():
            gate = self._gates.setdefault(name, _Gate())
            gate.capacity = capacity
            if len(gate.inside) >= capacity:
                shut = shut or name
        if shut is not None:
            self._gates[shut].waiting.setdefault(key)
            self._pass_on(key, except_at=shut)
            return shut
        for name in capacities:
            self._gates[name].inside.add(key)
            self._gates[name].waiting.pop(key, None)
        self._held[key] = tuple(capacities)
        return None

    def leave(self, key: str) -> None:
        """Give up what `key` holds and where it waits, and let the next ones try."""
        names: Iterable[str] = self._held.pop(key, ())
        for name in names:
            self._gates[name].inside.discard(key)
        for gate in self._gates.values():
            gate.waiting.pop(key, None)
        for name in names:
            self._wake_next(name)

    def waiting(self) -> int:
        """How many tasks wait."""
        return sum(len(gate.waiting) for gate in self._gates.values())

    def _pass_on(self, key: str, *, except_at: str) -> None:
        """`key` was called to a gate but waits at another now: the call goes to the next in line."""
        for name, gate in self._gates.items():
            if name != except_at and key in gate.waiting:
                del gate.waiting[key]
                self._wake_next(name)

    def _wake_next(self, name: str) -> None:
        gate = self._gates[name]
        free = gate.capacity - len(gate.inside)
        for key in list(gate.waiting)[: max(0, free)]:
            self.wake(key)
