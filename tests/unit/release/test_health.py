"""Tests health checks: thresholds, and an end that never waits for a check that was just answered."""

from __future__ import annotations

import asyncio

import pytest

from remit.api.deployment import HealthCheck
from remit.release.targets.health import Health, Watches, startup_pause

CHECK = HealthCheck.model_validate({"tcp": {"port": 80}, "periodSeconds": 60, "timeoutSeconds": 30})


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_at_whatever_moment_an_answer_arrives(turns: int) -> None:
    """A response and the end may occur in the same turn of the event loop, in which case `asyncio.wait_for` loses the
    cancellation."""
    asked: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

    async def check() -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asked.put_nowait(answer)
        return await answer

    watches = Watches(lambda: None)
    watching = asyncio.create_task(watches.have({"one": (CHECK, check)}))
    (await asked.get()).set_result("not yet" if turns % 2 else "")
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await watches.end()
    watching.cancel()


def test_thresholds_count_answers_in_a_row() -> None:
    health = Health()
    changes = [health.note(why, successes=2, failures=3) for why in ("", "", "no", "no", "", "no", "no", "no", "", "")]
    assert changes == [False, True, False, False, False, False, False, True, False, True]
    assert health.healthy
    assert not health.unhealthy
    assert health.message == ""


@pytest.mark.parametrize("ready", [0.0, 0.01, 0.06, 0.21, 0.36, 0.8, 1.5, 1.99])
def test_one_that_begins_is_found_soon_and_asked_rarely(ready: float) -> None:
    asked = [0.0]
    while asked[-1] < ready:
        asked.append(asked[-1] + startup_pause(asked[-1]))
    assert asked[-1] - ready <= max(0.05, ready / 4)
    assert len(asked) <= 16, "and not 40 times"


async def test_a_look_does_not_wait_for_a_check_that_takes_an_hour() -> None:
    async def check() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    slow = HealthCheck.model_validate({"tcp": {"port": 80}, "periodSeconds": 3600, "timeoutSeconds": 3600})
    watches = Watches(lambda: None)
    async with asyncio.timeout(60):
        await watches.have({"one": (slow, check)})
    assert (watches.health("one").healthy, watches.health("one").unhealthy) == (False, False)
    await watches.end()
