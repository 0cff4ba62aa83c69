"""Measures the cost of choosing the next task with many waiting."""

from __future__ import annotations

import time

from bench.figures import Figures, percentile
from remit.execution.queue import Queue
from remit.policy.rate import RateClaim, RateSpec

PLACES = 32


async def measure() -> Figures:
    rows = []
    for waiting, namespaces in ((100, 10), (10_000, 1), (10_000, 100)):
        enter, leave = timed(waiting, namespaces)
        figures = [f"{percentile(times, share) * 1e6:,.1f}" for times in (enter, leave) for share in (50, 95)]
        rows.append((f"{waiting:,} waiting in {namespaces}", *figures))
    head = ("", "enter p50 µs", "enter p95 µs", "leave and let in p50 µs", "leave and let in p95 µs")
    return Figures("Queue: one task in, one task out", head, rows)


def timed(waiting: int, namespaces: int) -> tuple[list[float], list[float]]:
    """Returns the seconds of each `enter` with all capacity in use, and of each `leave` until no task waits."""
    called: list[str] = []
    queue = Queue(PLACES, wake=lambda key, seconds: called.append(key))
    enter, leave, running = [], [], []
    for number in range(waiting + PLACES):
        namespace = f"team-{number % namespaces}"
        claims = (RateClaim(f"{namespace}/policy", RateSpec(1_000_000, 1_000_000, PLACES)),)
        start = time.perf_counter()
        place = queue.enter(f"{namespace}/{number}", namespace, claims, since=float(number), now=0.0)
        enter.append(time.perf_counter() - start)
        if place is None:
            running.append(f"{namespace}/{number}")
    while running:
        start = time.perf_counter()
        queue.leave(running.pop(0), 0.0)
        leave.append(time.perf_counter() - start)
        running += called
        called.clear()
    if len(queue):
        raise RuntimeError(f"{len(queue)} tasks were never let in")
    return enter[PLACES:], leave[:waiting]
