"""Determines which task may start next: all tasks wait in one queue, and every change admits the tasks that may start
now.

Namespaces take turns, so a namespace with a thousand waiting tasks delays the first task of another by at most one
start. Within a namespace the oldest task goes first. A task that its own policy blocks is skipped and delays no other.

An admitted task holds a place under each of its claims, its share of the memory, and a token of each rate. `started`
spends the token; a task that leaves before that returns it.

Memory is reserved for the first task that its policies would admit and for which there is too little memory, until it
is admitted or a policy blocks it, whatever namespace has its turn. Other tasks that need memory wait behind it;
otherwise small tasks could keep a large one waiting without end.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from remit.policy.rate import Bucket, RateClaim, RateSpec, full_at, give_back, replay, take

Claims = tuple[RateClaim, ...]


class WaitReason(StrEnum):
    """The reason why a task waits."""

    OPERATOR = "OperatorCapacity"
    MEMORY = "OperatorMemory"
    CONCURRENCY = "PolicyConcurrency"
    RATE = "PolicyRate"
    WORKSPACE = "Workspace"


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why no more tasks are admitted. `seconds`: until time alone changes that; None: until a task ends. A limit of
    memory is in bytes. A workspace is given by its name, with the task that writes to it."""

    reason: WaitReason
    limit: int
    policy: str = ""
    seconds: float | None = None
    workspace: str = ""
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a waiting task in its namespace, counted from 1, and what it waits for."""

    position: int
    waiting: int
    blocked: Blocked


_FEW_BUCKETS = 100
_Lane = tuple[Claims, int]
"""What a task claims, and how much memory it needs."""
_Ticket = tuple[float, int, str]
"""Since when it waits, a number that tells equals apart, and the task's key."""


@dataclass(slots=True)
class _Line:
    """The waiting tasks of one namespace, in order and by their claims. The same condition blocks equal claims, so only
    the first task of each needs to be checked."""

    order: list[_Ticket] = field(default_factory=list)
    lanes: dict[_Lane, list[_Ticket]] = field(default_factory=dict)


@dataclass(slots=True)
class _Inside:
    namespace: str
    lane: _Lane
    started: bool = False


@dataclass
class Queue:
    """Decides who runs. Keeps no clock: every call that depends on time is given it, in seconds.

    `wake(key, seconds)` is called when `key` was let in or, with seconds, when it may be by then: `enter` it again.
    """

    capacity: int
    wake: Callable[[str, float], None]
    memory: int | None = None
    """Bytes for all that are inside together; None: without a bound."""
    _inside: dict[str, _Inside] = field(default_factory=dict)
    _waiting: dict[str, tuple[str, _Lane, _Ticket]] = field(default_factory=dict)
    _lines: dict[str, _Line] = field(default_factory=dict)
    """Lines by namespace. The namespace whose turn is next comes first."""
    _running: Counter[str] = field(default_factory=Counter)
    """How many are inside under each policy."""
    _promised: int = 0
    """Bytes of memory that those inside may use."""
    _kept_for: tuple[str, _Lane] | None = None
    """The namespace, and what waits in it, that memory is kept free for."""
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    """Buckets by policy and namespace. Full ones are removed after some time."""
    _full_at: dict[tuple[str, str], float] = field(default_factory=dict)
    _sweep_beyond: int = _FEW_BUCKETS
    """How many buckets there may be before those that are full are forgotten."""
    _tickets: int = 0

    def enter(
        self, key: str, namespace: str, claims: Claims, *, since: float, now: float, memory: int = 0
    ) -> Place | None:
        """None: `key` may start. Otherwise its place; it keeps that, and may ask as often as it likes.

        `since` is when it began to wait, which orders it within its namespace. Claims and `memory`, in bytes, may
        change between calls. Memory beyond the bound counts as all of it.
        """
        lane = claims, 0 if self.memory is None else min(memory, self.memory)
        if (held := self._inside.get(key)) is not None:
            if held.started or held.lane == lane:
                return None
            self._let_out(key)
        known = self._waiting.get(key)
        if known is not None and known[:2] != (namespace, lane):
            self._forget(key)
        if key not in self._waiting:
            self._append(key, namespace, lane, since)
        first = self._lines[namespace].lanes[lane][0][2] == key
        if first or held is not None or known is not None:
            self._let_in(now, asking=key)
        return self.place(key, now)

    def started(self, key: str) -> None:
        """The point of no return: its tokens are spent."""
        if (held := self._inside.get(key)) is not None:
            held.started = True

    def leave(self, key: str, now: float) -> None:
        """Give up what `key` holds or waits for, and let in who can use it."""
        if key in self._inside:
            self._let_out(key)
        elif key in self._waiting:
            self._forget(key)
        else:
            return
        self._let_in(now)

    def rename(self, key: str, to: str) -> None:
        """Hand over what `key` holds to `to`: the name `key` is for another task."""
        if (held := self._inside.pop(key, None)) is not None:
            self._inside[to] = held

    def restore(
        self, running: Mapping[str, tuple[str, Claims]], starts: Iterable[tuple[str, Claims, float]], now: float
    ) -> None:
        """Take over what is on record: who runs, and when each earlier start was. Tokens follow from the starts."""
        for key, (namespace, claims) in running.items():
            if key not in self._inside:
                self._hold(key, namespace, (claims, 0), started=True)
        by_bucket: dict[tuple[str, str], tuple[RateClaim, list[float]]] = {}
        for namespace, claims, at in starts:
            for claim in claims:
                by_bucket.setdefault((claim.policy, namespace), (claim, []))[1].append(at)
        for bucket, (claim, times) in by_bucket.items():
            self._keep(bucket, replay(times, claim.spec, now), claim.spec)

    def place(self, key: str, now: float) -> Place | None:
        """The place at which `key` waits; None if it does not."""
        if key not in self._waiting:
            return None
        namespace, lane, ticket = self._waiting[key]
        order = self._lines[namespace].order
        # If no limit blocks the task, memory is reserved for another task, or tokens became available at the moment of
        # this call.
        behind = (WaitReason.MEMORY, self.memory or 0) if lane[1] else (WaitReason.OPERATOR, self.capacity)
        blocked = self._blocked(namespace, lane, now) or Blocked(*behind, seconds=0.0)
        return Place(bisect_left(order, ticket) + 1, len(order), blocked)

    def waiting(self, reason: WaitReason, now: float) -> int:
        """How many tasks wait for `reason`."""
        return sum(
            len(tickets)
            for namespace, line in self._lines.items()
            for lane, tickets in line.lanes.items()
            if (blocked := self._blocked(namespace, lane, now)) is not None and blocked.reason is reason
        )

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    def _let_in(self, now: float, asking: str = "") -> None:
        while (chosen := self._next(now)) is not None:
            namespace, lane, key = chosen
            if self._kept_for == (namespace, lane):
                self._kept_for = None
            self._forget(key)
            if (line := self._lines.pop(namespace, None)) is not None:
                # Moves the namespace to the end of the order, so that other namespaces get their turn.
                self._lines[namespace] = line
            for claim in lane[0]:
                bucket = claim.policy, namespace
                self._keep(bucket, take(self._buckets.get(bucket), claim.spec, now)[0], claim.spec)
            self._forget_full(now)
            self._hold(key, namespace, lane)
            if key != asking:
                self.wake(key, 0.0)

    def _next(self, now: float) -> tuple[str, _Lane, str] | None:
        if len(self._inside) >= self.capacity:
            return None
        if self._kept_for is not None and not self._lacks_memory_alone(*self._kept_for, now):
            self._kept_for = None
        for namespace, line in self._lines.items():
            for lane, tickets in sorted(line.lanes.items(), key=lambda each: each[1][0]):
                if lane[1] and self._kept_for not in (None, (namespace, lane)):
                    continue
                blocked = self._blocked(namespace, lane, now)
                if blocked is None:
                    return namespace, lane, tickets[0][2]
                if blocked.reason is WaitReason.MEMORY:
                    self._kept_for = namespace, lane
                if blocked.seconds is not None:
                    self.wake(tickets[0][2], blocked.seconds)
        return None

    def _lacks_memory_alone(self, namespace: str, lane: _Lane, now: float) -> bool:
        """Whether any of `lane` wait, and nothing but memory holds them up."""
        line = self._lines.get(namespace)
        if line is None or lane not in line.lanes:
            return False
        blocked = self._blocked(namespace, lane, now)
        return blocked is None or blocked.reason is WaitReason.MEMORY

    def _blocked(self, namespace: str, lane: _Lane, now: float) -> Blocked | None:
        claims, memory = lane
        for claim in claims:
            most = claim.spec.max_concurrent
            if most is not None and self._running[claim.policy] >= most:
                if claim.workspace:
                    holder = next((key for key, held in self._inside.items() if claim in held.lane[0]), "")
                    return Blocked(WaitReason.WORKSPACE, most, workspace=claim.workspace, holder=holder)
                return Blocked(WaitReason.CONCURRENCY, most, claim.policy)
        rates = [(take(self._buckets.get((claim.policy, namespace)), claim.spec, now)[1], claim) for claim in claims]
        seconds, slowest = max(rates, key=lambda rate: rate[0], default=(0.0, None))
        if slowest is not None and seconds > 0:
            return Blocked(WaitReason.RATE, slowest.spec.per_minute or 0, slowest.policy, seconds)
        if len(self._inside) >= self.capacity:
            return Blocked(WaitReason.OPERATOR, self.capacity)
        if self.memory is not None and memory and self._promised + memory > self.memory:
            return Blocked(WaitReason.MEMORY, self.memory)
        return None

    def _hold(self, key: str, namespace: str, lane: _Lane, *, started: bool = False) -> None:
        claims, memory = lane
        self._inside[key] = _Inside(namespace, lane, started)
        self._running.update(claim.policy for claim in claims)
        self._promised += memory

    def _let_out(self, key: str) -> None:
        held = self._inside.pop(key)
        claims, memory = held.lane
        for claim in claims:
            self._running[claim.policy] -= 1
            if not self._running[claim.policy]:
                del self._running[claim.policy]
        self._promised -= memory
        if not held.started:
            for claim in claims:
                bucket = claim.policy, held.namespace
                if (left := self._buckets.get(bucket)) is not None:
                    self._keep(bucket, give_back(left, claim.spec), claim.spec)

    def _keep(self, key: tuple[str, str], bucket: Bucket, spec: RateSpec) -> None:
        self._buckets[key], self._full_at[key] = bucket, full_at(bucket, spec)

    def _forget_full(self, now: float) -> None:
        """Now and then, so that policies and namespaces that are gone leave nothing."""
        if len(self._buckets) <= self._sweep_beyond:
            return
        for key in [key for key, when in self._full_at.items() if when <= now]:
            del self._buckets[key], self._full_at[key]
        self._sweep_beyond = max(_FEW_BUCKETS, 2 * len(self._buckets))

    def _append(self, key: str, namespace: str, lane: _Lane, since: float) -> None:
        self._tickets += 1
        ticket = since, self._tickets, key
        line = self._lines.setdefault(namespace, _Line())
        insort(line.order, ticket)
        insort(line.lanes.setdefault(lane, []), ticket)
        self._waiting[key] = namespace, lane, ticket

    def _forget(self, key: str) -> None:
        namespace, lane, ticket = self._waiting.pop(key)
        line = self._lines[namespace]
        for tickets in (line.order, line.lanes[lane]):
            del tickets[bisect_left(tickets, ticket)]
        if not line.lanes[lane]:
            del line.lanes[lane]
        if not line.order:
            del self._lines[namespace]
