"""Tests the work queue against a model, with real workers and a clock that only the test advances."""

from __future__ import annotations

import asyncio
import contextlib
import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remit.kube.workqueue import FIRST_RETRY, LONGEST_RETRY, Priority, WorkQueue, process
from remit.telemetry.metrics import Metrics
from support import repetitions
from virtualtime import virtual_time

WORKERS = 2
KEYS = st.sampled_from(["key-a", "key-b", "key-c", "key-d"])
SECONDS = st.sampled_from([0.0, 0.01, 0.05, 1.0, 60.0, 3600.0])
PRIORITIES = st.sampled_from(Priority)


class WorkQueueMachine(RuleBasedStateMachine):
    """`due` is the model: when each key must be processed next. A key that is being processed may be due again."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.loop = self.stack.enter_context(virtual_time())
        self.queue = WorkQueue("test", Metrics(), self.loop.time)
        self.due: dict[str, float] = {}
        self.failures: dict[str, int] = {}
        self.running: dict[str, asyncio.Future[float | None]] = {}
        self.worker_free_since = 0.0
        self.ended: dict[str, float] = {}
        self.errors: list[BaseException] = []
        work = process(self.queue, self._reconcile, workers=WORKERS, on_error=self._failed)
        self.workers = self.loop.create_task(work)
        self.loop.settle()

    async def _reconcile(self, key: str) -> float | None:
        now = self.loop.time()
        if key in self.running:
            self.errors.append(AssertionError(f"two workers have {key}"))
        due = self.due.pop(key, math.inf)
        possible = max(due, self.worker_free_since, self.ended.get(key, 0.0))
        if not math.isclose(now, possible, abs_tol=1e-6):
            self.errors.append(AssertionError(f"{key} was due at {due} and began at {now}"))
        self.running[key] = self.loop.create_future()
        return await self.running[key]

    def _failed(self, key: str, error: Exception) -> None:
        if not isinstance(error, OSError):
            self.errors.append(error)

    def _is_due(self, key: str, seconds: float) -> None:
        self.due[key] = min(self.due.get(key, math.inf), self.loop.time() + seconds)

    def _finish(self, key: str) -> asyncio.Future[float | None]:
        self.ended[key] = self.loop.time()
        if len(self.running) == WORKERS:
            self.worker_free_since = self.loop.time()
        return self.running.pop(key)

    @rule(key=KEYS, priority=PRIORITIES)
    def add(self, key: str, priority: Priority) -> None:
        self._is_due(key, 0)
        self.queue.add(key, priority)

    @rule(key=KEYS, seconds=SECONDS, priority=PRIORITIES)
    def add_after(self, key: str, seconds: float, priority: Priority) -> None:
        self._is_due(key, seconds)
        # Timers are set in the event loop, as in the operator.
        self.loop.run_until_complete(_called(self.queue.add_after, key, seconds, priority))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=st.none() | SECONDS)
    def succeed(self, data: st.DataObject, seconds: float | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.failures.pop(key, None)
        if seconds is not None:
            self._is_due(key, seconds)
        self._finish(key).set_result(seconds)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        failures = self.failures[key] = self.failures.get(key, 0) + 1
        self._is_due(key, min(FIRST_RETRY * 2 ** (failures - 1), LONGEST_RETRY))
        self._finish(key).set_exception(OSError("not yet"))

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        end = self.loop.time() + seconds
        while (first := min([due for due in self.due.values() if due > self.loop.time()], default=end)) < end:
            self.loop.advance(first - self.loop.time() + 1e-7)
            self.check()
        self.loop.advance(max(end - self.loop.time(), 0) + 1e-7)

    @invariant()
    def check(self) -> None:
        self.loop.settle()
        if self.errors:
            raise self.errors[0]
        now = self.loop.time()
        overdue = [key for key, due in self.due.items() if due <= now - 1e-6 and key not in self.running]
        assert not overdue or len(self.running) == WORKERS, f"{overdue} wait while a worker is free"
        assert {key for _, key in self.queue._schedule} == {key for key, due in self.due.items() if due > now}
        assert len(self.queue._schedule) == len(self.queue._delayed)

    def teardown(self) -> None:
        """At the end all work is done, and nothing of any key is left."""
        with self.stack:
            for _ in range(100):
                if not self.running and not self.due:
                    break
                for key in list(self.running):
                    self._finish(key).set_result(None)
                self.check()
                if self.due and not self.running:
                    self.loop.advance(max(min(self.due.values()) - self.loop.time(), 0) + 1e-7)
                    self.check()
            assert not self.due, f"{sorted(self.due)} are never worked on"
            assert "key-" not in repr(self.queue)
            self.queue.shut_down()
            self.loop.run_until_complete(self.workers)


async def _called(function, *arguments) -> None:
    function(*arguments)


WorkQueueMachine.TestCase.settings = settings(
    max_examples=repetitions(30, soak=2000), stateful_step_count=40, deadline=None
)
test_work_queue_follows_its_model = WorkQueueMachine.TestCase
