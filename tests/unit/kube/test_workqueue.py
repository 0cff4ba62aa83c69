from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from remit.kube.workqueue import WorkQueue


@contextlib.asynccontextmanager
async def working(queue: WorkQueue) -> AsyncIterator[WorkQueue]:
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_worker_outlives_what_is_cancelled_under_it() -> None:
    done = asyncio.Event()
    tries = 0

    async def reconcile(key: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            waited_for = asyncio.get_running_loop().create_future()
            waited_for.cancel()
            await waited_for
        done.set()

    async with working(WorkQueue(reconcile, workers=1)) as queue, asyncio.timeout(30):
        queue.add("a")
        await done.wait()
    assert tries == 2


async def test_a_key_is_worked_on_once_however_often_it_is_added() -> None:
    seen: Counter[str] = Counter()

    async def reconcile(key: str) -> None:
        seen[key] += 1

    queue = WorkQueue(reconcile, workers=2)
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    async with working(queue):
        await queue.drain()
    assert seen == {"a": 1, "b": 1}


async def test_a_key_is_never_in_two_hands_and_is_looked_at_again_when_it_changes_meanwhile() -> None:
    inside, most, calls = 0, 0, 0
    started, release = asyncio.Event(), asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal inside, most, calls
        inside += 1
        calls += 1
        most = max(most, inside)
        started.set()
        await release.wait()
        inside -= 1

    async with working(WorkQueue(reconcile, workers=4)) as queue:
        queue.add("a")
        await started.wait()
        queue.add("a")
        queue.add("a")
        release.set()
        await queue.drain()
    assert (most, calls) == (1, 2)


async def test_what_fails_is_tried_again_and_others_go_on() -> None:
    failures: list[Exception] = []
    done = asyncio.Event()
    tries = 0

    async def reconcile(key: str) -> None:
        nonlocal tries
        if key == "good":
            return
        tries += 1
        if tries < 3:
            raise OSError("not yet")
        done.set()

    queue = WorkQueue(reconcile, workers=1, on_error=lambda key, error: failures.append(error))
    async with working(queue):
        queue.add("bad")
        queue.add("good")
        await asyncio.wait_for(done.wait(), 10)
    assert len(failures) == 2


async def test_a_key_comes_back_when_it_asked_to_and_sooner_if_it_changes() -> None:
    loop = asyncio.get_running_loop()
    seen: list[float] = []
    twice = asyncio.Event()

    async def reconcile(key: str) -> float | None:
        seen.append(loop.time())
        if len(seen) == 2:
            twice.set()
        return 0.05 if len(seen) == 1 else 3600

    async with working(WorkQueue(reconcile)) as queue:
        queue.add("a")
        await asyncio.wait_for(twice.wait(), 10)
        assert seen[1] - seen[0] >= 0.05
        queue.add("a")
        await queue.drain()
    assert len(seen) == 3


@pytest.mark.parametrize("order", [(0.01, 3600), (3600, 0.01)])
async def test_of_two_times_the_sooner_counts(order: tuple[float, float]) -> None:
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        done.set()

    async with working(WorkQueue(reconcile)) as queue:
        for seconds in order:
            queue.add_after("a", seconds)
        await asyncio.wait_for(done.wait(), 10)
