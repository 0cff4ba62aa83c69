"""A work queue as in client-go: each key once, one worker at a time for each key, delays, and backoff for failures.

Each key has one entry at most. It is ready or has a time when it is due; of several adds the earliest time counts. A
key that is added while it is being worked on is worked on once more afterwards, from the back of the queue.

Of two priorities, as in controller-runtime's priority queue, the lower one is for keys of which nothing new is known,
such as those of a resync: changes, deletions and requests of users do not wait behind them. One key in `LOW_SHARE` has
low priority all the same, so that constant changes delay a resync and do not stop it.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum

from remit.telemetry.metrics import Metrics

FIRST_RETRY, LONGEST_RETRY = 0.05, 60.0
"""Seconds between tries of a key whose reconciliation fails."""
LOW_SHARE = 8
"""While keys of both priorities are ready, one in this many that are taken has low priority."""

Reconcile = Callable[[str], Awaitable[float | None]]
"""Brings the object of a key one step closer to what it should be. Returns the seconds until it is due again, or None
for never. An earlier answer for the same key no longer counts."""


class Priority(IntEnum):
    NORMAL = 0
    LOW = 1


class ShutDown(Exception):
    """The queue is shut down and has no ready keys left."""


@dataclass(slots=True)
class _Entry:
    at: float
    """When the key was added, when a worker took it, or when it is due."""
    priority: Priority


@dataclass
class WorkQueue:
    """Not thread-safe: call its methods on the event loop. `name` is the value of the label `name` of its metrics."""

    name: str
    metrics: Metrics = field(repr=False)
    clock: Callable[[], float] = time.monotonic
    _ready: dict[Priority, OrderedDict[str, None]] = field(
        default_factory=lambda: {priority: OrderedDict() for priority in Priority}
    )
    _added: dict[str, _Entry] = field(default_factory=dict)
    """Keys to be worked on now: those that are ready, and those that were added again while they are worked on."""
    _working: dict[str, _Entry] = field(default_factory=dict)
    """Keys that a worker has, with the time when it took them."""
    _delayed: dict[str, _Entry] = field(default_factory=dict)
    _schedule: list[tuple[float, str]] = field(default_factory=list)
    """The keys of `_delayed`, sorted by time."""
    _failures: dict[str, int] = field(default_factory=dict)
    _normal_in_a_row: int = 0
    _shut_down: bool = False
    _available: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0), repr=False)
    """Its value is the number of ready keys, and is positive for good once the queue is shut down."""
    _idle: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        metrics, name = self.metrics, self.name
        metrics.workqueue_depth.labels(name).set_function(lambda: len(self))
        metrics.workqueue_unfinished_work.labels(name).set_function(self._unfinished_work)
        metrics.workqueue_longest_running.labels(name).set_function(self._longest_running)
        self._adds = metrics.workqueue_adds.labels(name)
        self._retries = metrics.workqueue_retries.labels(name)
        self._queue_duration = metrics.workqueue_queue_duration.labels(name)
        self._work_duration = metrics.workqueue_work_duration.labels(name)

    def __len__(self) -> int:
        """The number of keys that are ready and wait for a worker."""
        return sum(map(len, self._ready.values()))

    def add(self, key: str, priority: Priority = Priority.NORMAL) -> None:
        """Make `key` ready. An entry that has a time is brought forward; of two priorities the higher one counts."""
        if self._shut_down:
            return
        if (due := self._remove_delayed(key)) is not None:
            priority = min(priority, due.priority)
        if (added := self._added.get(key)) is None:
            self._added[key] = _Entry(self.clock(), priority)
            self._adds.inc()
            if key not in self._working:
                self._make_ready(key, priority)
        elif priority < added.priority:
            added.priority = priority
            if key not in self._working:
                del self._ready[Priority.LOW][key]
                self._ready[priority][key] = None

    def add_after(self, key: str, seconds: float, priority: Priority = Priority.NORMAL) -> None:
        """Add `key` in `seconds`, or earlier if it is due or added earlier."""
        if seconds <= 0:
            self.add(key, priority)
            return
        if self._shut_down:
            return
        self._retries.inc()
        if (added := self._added.get(key)) is not None:
            self.add(key, min(priority, added.priority))
            return
        at = self.clock() + seconds
        if (due := self._remove_delayed(key)) is not None:
            at, priority = min(at, due.at), min(priority, due.priority)
        self._delayed[key] = _Entry(at, priority)
        insort(self._schedule, (at, key))
        self._set_timer()

    def add_rate_limited(self, key: str) -> None:
        """Add `key`, whose reconciliation has failed, after a time that doubles with each failure in a row. It keeps
        the priority that it was taken with."""
        failures = self._failures.get(key, 0)
        if not self._shut_down:
            self._failures[key] = failures + 1
        work = self._working.get(key)
        seconds = min(FIRST_RETRY * 2 ** min(failures, 16), LONGEST_RETRY)
        self.add_after(key, seconds, work.priority if work is not None else Priority.NORMAL)

    def forget(self, key: str) -> None:
        """The failures of `key` are over. It stays queued if it is."""
        self._failures.pop(key, None)

    async def get(self) -> str:
        """The next key, as soon as there is one. The caller has to call `done` with it. Raises `ShutDown`."""
        await self._available.acquire()
        if not len(self):
            self._available.release()  # wakes the next waiter
            raise ShutDown
        key, _ = self._ready[self._next_priority()].popitem(last=False)
        added, now = self._added.pop(key), self.clock()
        self._queue_duration.observe(now - added.at)
        self._working[key] = _Entry(now, added.priority)
        return key

    def done(self, key: str) -> None:
        """A worker has finished with `key`. If it was added meanwhile, it is ready again."""
        self._work_duration.observe(self.clock() - self._working.pop(key).at)
        if (added := self._added.get(key)) is not None:
            self._make_ready(key, added.priority)
        elif self._is_idle():
            self._idle.set()

    async def drain(self) -> None:
        """Wait until no key is ready or being worked on. Those that are due later are not waited for."""
        while not self._is_idle():
            self._idle.clear()
            await self._idle.wait()

    def shut_down(self) -> None:
        """Take no more keys, and drop those that are due later. `get` still returns those that are ready."""
        if self._shut_down:
            return
        self._shut_down = True
        self._delayed.clear()
        self._schedule.clear()
        self._failures.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._available.release()

    def _is_idle(self) -> bool:
        return not self._added and not self._working

    def _make_ready(self, key: str, priority: Priority) -> None:
        self._ready[priority][key] = None
        self._available.release()

    def _next_priority(self) -> Priority:
        normal, low = (bool(self._ready[priority]) for priority in Priority)
        if normal and not (low and self._normal_in_a_row >= LOW_SHARE - 1):
            self._normal_in_a_row += 1
            return Priority.NORMAL
        self._normal_in_a_row = 0
        return Priority.LOW

    def _remove_delayed(self, key: str) -> _Entry | None:
        if (due := self._delayed.pop(key, None)) is not None:
            del self._schedule[bisect_left(self._schedule, (due.at, key))]
        return due

    def _set_timer(self) -> None:
        """Have `_add_due` called at the time of the first delayed key, at the latest."""
        if not self._schedule:
            return
        at, loop = self._schedule[0][0], asyncio.get_running_loop()
        delay = at - self.clock()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay, self._add_due)

    def _add_due(self) -> None:
        self._timer = None
        number = bisect_right(self._schedule, self.clock(), key=lambda entry: entry[0])
        due = self._schedule[:number]
        del self._schedule[:number]
        for _, key in due:
            self.add(key, self._delayed.pop(key).priority)
        self._set_timer()

    def _unfinished_work(self) -> float:
        now = self.clock()
        return sum(now - work.at for work in self._working.values())

    def _longest_running(self) -> float:
        return self.clock() - min((work.at for work in self._working.values()), default=self.clock())


async def process(
    queue: WorkQueue, reconcile: Reconcile, *, workers: int, on_error: Callable[[str, Exception], None]
) -> None:
    """Call `reconcile` for each key, `workers` at a time, until the queue is shut down and has no ready keys.

    `on_error` is called with each failure; the key is tried again with backoff.
    """
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_work(queue, reconcile, on_error))


async def _work(queue: WorkQueue, reconcile: Reconcile, on_error: Callable[[str, Exception], None]) -> None:
    while True:
        try:
            key = await queue.get()
        except ShutDown:
            return
        try:
            after = await _reconciled(reconcile, key)
        except Exception as error:
            queue.add_rate_limited(key)
            on_error(key, error)
        else:
            queue.forget(key)
            if after is not None:
                queue.add_after(key, after)
        finally:
            queue.done(key)
        # A reconciliation that finds nothing to do never waits, and thousands of them would block the event loop.
        await asyncio.sleep(0)


async def _reconciled(reconcile: Reconcile, key: str) -> float | None:
    try:
        return await reconcile(key)
    except asyncio.CancelledError:
        worker = asyncio.current_task()
        if worker is None or worker.cancelling():
            raise
        # What was cancelled is not the worker but something that the reconciliation awaited, so the worker continues.
        raise RuntimeError("what it waited for was cancelled") from None
