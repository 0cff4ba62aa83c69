from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from remit.kube.workqueue import LOW_SHARE, Priority, Reconcile, ShutDown, WorkQueue, process
from remit.telemetry.metrics import Metrics


class Clock:
    """A clock that only the test advances."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def new_queue(clock: Callable[[], float] | None = None) -> WorkQueue:
    return WorkQueue("test", Metrics(), clock or asyncio.get_running_loop().time)


@contextlib.asynccontextmanager
async def working(
    reconcile: Reconcile, workers: int = 1, on_error: Callable[[str, Exception], None] = lambda key, error: None
) -> AsyncIterator[WorkQueue]:
    queue = new_queue()
    task = asyncio.create_task(process(queue, reconcile, workers=workers, on_error=on_error))
    try:
        async with asyncio.timeout(30):
            yield queue
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def taken(queue: WorkQueue) -> list[str]:
    """Returns all ready keys in the order in which one worker gets them."""
    keys = []
    while len(queue):
        keys.append(await queue.get())
        queue.done(keys[-1])
    return keys


def samples(queue: WorkQueue) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(queue.metrics.render()[0].decode())
        for sample in family.samples
        if sample.labels.get("name") == "test" and "le" not in sample.labels
    }


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

    async with working(reconcile) as queue:
        queue.add("a")
        await done.wait()
    assert tries == 2


async def test_a_key_is_worked_on_once_however_often_it_is_added() -> None:
    seen: Counter[str] = Counter()

    async def reconcile(key: str) -> None:
        seen[key] += 1

    async with working(reconcile, workers=2) as queue:
        for _ in range(5):
            queue.add("a")
        queue.add("b")
        await queue.drain()
    assert seen == {"a": 1, "b": 1}


async def test_a_key_that_changes_while_it_is_worked_on_is_worked_on_again_and_never_twice_at_once() -> None:
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

    async with working(reconcile, workers=4) as queue:
        queue.add("a")
        await started.wait()
        queue.add("a")
        queue.add("a")
        release.set()
        await queue.drain()
    assert (most, calls) == (1, 2)


async def test_what_fails_is_tried_again_and_others_go_on() -> None:
    failures: list[tuple[str, Exception]] = []
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

    async with working(reconcile, on_error=lambda *failure: failures.append(failure)) as queue:
        queue.add("bad")
        queue.add("good")
        await done.wait()
    assert [key for key, _ in failures] == ["bad", "bad"]


async def test_the_event_loop_turns_between_two_keys_although_their_reconciliation_never_waits() -> None:
    turns, seen = 0, []

    async def reconcile(key: str) -> None:
        seen.append(turns)

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    async with working(reconcile) as queue:
        for number in range(5):
            queue.add(str(number))
        turn()
        await queue.drain()
    assert seen == sorted(set(seen)), "several keys in one turn of the loop"


async def test_a_delayed_key_that_is_added_again_has_one_entry_and_the_earliest_time() -> None:
    queue = new_queue(clock := Clock())
    for seconds in (7200, 3600, 7200, 1800, 3600):
        queue.add_after("a", seconds)
    assert queue._schedule == [(clock.now + 1800, "a")]
    queue.add("a")
    assert queue._schedule == []
    assert await taken(queue) == ["a"]


async def test_a_delay_of_nothing_is_no_delay() -> None:
    queue = new_queue()
    queue.add_after("a", 0)
    queue.add_after("b", -1)
    assert await taken(queue) == ["a", "b"]


async def test_the_delay_doubles_with_each_failure_until_the_failures_are_forgotten() -> None:
    queue = new_queue(clock := Clock())
    delays = []
    for _ in range(12):
        queue.add_rate_limited("a")
        delays.append(round(queue._schedule[0][0] - clock.now, 6))
        queue.add("a")
        await taken(queue)
    assert delays == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0]
    queue.forget("a")
    queue.add_rate_limited("a")
    assert queue._schedule[0][0] == clock.now + 0.05


async def test_a_key_that_is_always_added_again_goes_to_the_back() -> None:
    order: list[str] = []

    async def reconcile(key: str) -> float | None:
        order.append(key)
        return 0 if key == "busy" and len(order) < 6 else None

    async with working(reconcile) as queue:
        for key in ("busy", "a", "b"):
            queue.add(key)
        await queue.drain()
    assert order[:4] == ["busy", "a", "b", "busy"]


async def test_changes_do_not_wait_behind_a_resync_and_do_not_stop_it() -> None:
    queue = new_queue()
    for number in range(3):
        queue.add(f"resync-{number}", Priority.LOW)
    for number in range(LOW_SHARE * 2):
        queue.add(f"change-{number}")
    order = await taken(queue)
    assert all(key.startswith("change") for key in order[: LOW_SHARE - 1])
    assert [order.index(f"resync-{number}") for number in range(3)] == [
        LOW_SHARE - 1,
        LOW_SHARE * 2 - 1,
        len(order) - 1,
    ]


@pytest.mark.parametrize("late", ["ready", "delayed"])
async def test_a_change_raises_the_priority_of_a_key_and_a_resync_does_not_lower_it(late: str) -> None:
    queue = new_queue(clock := Clock())
    add = queue.add if late == "ready" else lambda key, priority: queue.add_after(key, 10, priority)
    for key in ("a", "b", "c"):
        add(key, Priority.LOW)
    queue.add("c")
    queue.add("c", Priority.LOW)
    for key in ("a", "b"):
        queue.add(key, Priority.LOW)
    clock.now += 10
    assert await taken(queue) == ["c", "a", "b"]


async def test_a_key_that_changes_while_a_resync_has_it_comes_before_the_rest_of_the_resync() -> None:
    queue = new_queue()
    for key in ("a", "b"):
        queue.add(key, Priority.LOW)
    key = await queue.get()
    queue.add(key, Priority.LOW)
    queue.add(key)
    queue.done(key)
    assert await taken(queue) == ["a", "b"]


async def test_a_failure_in_a_resync_is_tried_again_with_low_priority() -> None:
    queue = new_queue(clock := Clock())
    queue.add("failed", Priority.LOW)
    key = await queue.get()
    queue.add_rate_limited(key)
    queue.done(key)
    clock.now += 1
    queue._add_due()
    queue.add("change")
    assert await taken(queue) == ["change", "failed"]


async def test_after_the_shutdown_the_ready_keys_are_still_given_out_and_no_others() -> None:
    queue = new_queue()
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add_after("later", 3600)
    queue.add_rate_limited("failed")
    queue.shut_down()
    queue.shut_down()
    for add in (queue.add, queue.add_rate_limited, lambda key: queue.add_after(key, 1)):
        add("new")
    queue.done("a")
    assert await taken(queue) == ["b", "a"]
    for _ in range(2):
        with pytest.raises(ShutDown):
            await queue.get()
    assert "new" not in repr(queue) and "later" not in repr(queue) and "failed" not in repr(queue)


async def test_all_workers_end_with_the_shutdown() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def reconcile(key: str) -> None:
        started.set()
        await release.wait()

    queue = new_queue()
    running = asyncio.create_task(process(queue, reconcile, workers=4, on_error=lambda key, error: None))
    queue.add("a")
    await started.wait()
    queue.shut_down()
    await asyncio.sleep(0)
    assert not running.done(), "it did not wait for the key that is being worked on"
    release.set()
    await asyncio.wait_for(running, 30)


async def test_who_waits_for_a_key_and_goes_away_leaves_it_to_the_next() -> None:
    queue = new_queue()
    impatient, patient = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")
    impatient.cancel()
    async with asyncio.timeout(30):
        assert await patient == "a"
    assert impatient.cancelled()


async def test_metrics_say_what_client_go_says() -> None:
    queue = new_queue(clock := Clock())
    queue.add("a")
    queue.add("a")
    queue.add("b")
    queue.add_after("c", 5)
    clock.now += 3
    first = await queue.get()
    queue.add(first)
    assert samples(queue)["workqueue_depth"] == 1
    clock.now += 2
    await queue.get()
    clock.now += 1
    now = samples(queue)
    assert now["workqueue_adds_total"] == 3
    assert now["workqueue_retries_total"] == 1
    assert now["workqueue_depth"] == 0
    assert now["workqueue_queue_duration_seconds_count"] == 2
    assert now["workqueue_queue_duration_seconds_sum"] == 3 + 5
    assert now["workqueue_unfinished_work_seconds"] == 3 + 1
    assert now["workqueue_longest_running_processor_seconds"] == 3
    queue.done("a")
    queue.done("b")
    now = samples(queue)
    assert now["workqueue_depth"] == 1
    assert now["workqueue_work_duration_seconds_sum"] == 3 + 1
    assert now["workqueue_unfinished_work_seconds"] == now["workqueue_longest_running_processor_seconds"] == 0
