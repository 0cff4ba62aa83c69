"""Tests the ends of operations that the operator performs itself: in time, cancelled, failed, denied."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from remit.backends.failure import OperationFailed
from remit.backends.outcome import Outcome
from remit.errors import BackendError, PolicyDenied
from remit.execution.operations import execute
from remit.operations.base import OVERDUE, OperationRequest
from remit.policy.grant import Grant
from remit.policy.request import PolicyRequest


class Scripted:
    def __init__(self, act: Callable[[], Awaitable[str]], in_doubt: str = "") -> None:
        self.act = act
        self.in_doubt = in_doubt

    breaker = None

    async def execute(self, work: OperationRequest, output: object) -> str:
        work.effect.begin(self.in_doubt)
        return await self.act()

    async def close(self) -> None:
        pass


class Silence:
    def write(self, stream: str, chunk: bytes) -> None:
        raise AssertionError("nothing is written here")


def work(seconds: float = 10.0) -> OperationRequest:
    grant = Grant(PolicyRequest(namespace="ns"), (), ())
    return OperationRequest("u-1", "ns", "t", grant, timeout_seconds=seconds)


async def end(
    act: Callable[[], Awaitable[str]], *, seconds: float = 10.0, cancelled: bool = False, in_doubt: str = ""
) -> Outcome:
    cancel = asyncio.Event()
    if cancelled:
        cancel.set()
    return at(await execute(Scripted(act, in_doubt), work(seconds), Silence(), cancel))


def at(outcome: Outcome, moment: datetime.datetime = datetime.datetime.min) -> Outcome:
    """Returns the outcome with another time, to be compared."""
    return replace(outcome, finished_at=moment)


async def for_ever() -> str:
    await asyncio.Event().wait()
    return "never"


async def test_what_was_done_is_said() -> None:
    async def act() -> str:
        return "3 rows"

    assert await end(act) == at(Outcome("Completed", "3 rows"))


async def test_time_runs_out() -> None:
    assert await end(for_ever, seconds=0.01) == at(Outcome("Timeout", "timed out after 0.01 s"))


async def test_the_user_cancels() -> None:
    assert (await end(for_ever, cancelled=True)).reason == "Cancelled"


async def test_it_returns_only_when_nothing_goes_on() -> None:
    cleaned = []

    async def act() -> str:
        try:
            return await for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    await end(act, seconds=0.01)
    assert cleaned == [True]


async def test_what_was_done_before_it_heard_is_done() -> None:
    async def act() -> str:
        try:
            return await for_ever()
        except asyncio.CancelledError:
            return "committed"

    assert await end(act, seconds=0.01) == at(Outcome("Completed", "committed"))


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_may_have_taken_place_is_not_repeated(cancelled: bool) -> None:
    async def act() -> str:
        try:
            return await for_ever()
        except asyncio.CancelledError as error:
            assert (OVERDUE in error.args) is not cancelled
            raise

    ended = await end(act, seconds=0.01, cancelled=cancelled, in_doubt="it may have arrived")
    if cancelled:
        assert ended == at(
            Outcome("Cancelled", "cancelled while it was performed; it may have arrived", retryable=False)
        )
    else:
        assert ended == at(Outcome("Timeout", "timed out after 0.01 s; it may have arrived", retryable=False))


async def test_what_it_was_waiting_for_is_told() -> None:
    async def act() -> str:
        try:
            return await for_ever()
        except asyncio.CancelledError:
            raise OperationFailed("Busy", "all connections were in use") from None

    ended = await end(act, seconds=0.01)
    assert ended == at(Outcome("Timeout", "timed out after 0.01 s; all connections were in use"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OperationFailed("StatusMismatch", "503", retryable=True),
            Outcome("StatusMismatch", "503", category="Operation", retryable=True),
        ),
        (
            PolicyDenied("redirected elsewhere"),
            Outcome("Denied", "redirected elsewhere", category="Denied", retryable=False),
        ),
        (
            BackendError("engine away"),
            Outcome("BackendError", "engine away", category="Infrastructure", retryable=True),
        ),
    ],
)
async def test_a_failure_says_what_kind_it_is(error: Exception, expected: Outcome) -> None:
    async def act() -> str:
        raise error

    assert await end(act) == at(expected)
    after_the_effect = await end(act, in_doubt="it may have arrived")
    assert not after_the_effect.retryable
    assert after_the_effect.message == expected.message + ("; it may have arrived" if expected.retryable else "")


async def test_a_known_outcome_may_be_repeated() -> None:
    settled = work()

    class Settling(Scripted):
        async def execute(self, work: OperationRequest, output: object) -> str:
            work.effect.begin("it may have arrived")
            work.effect.settle()
            raise OperationFailed("RolledBack", "could not serialize access")

    ended = await execute(Settling(for_ever), settled, Silence(), asyncio.Event())
    assert (ended.message, ended.retryable) == ("could not serialize access", True)


async def test_a_mistake_of_ours_is_not_hidden() -> None:
    async def act() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await end(act)
