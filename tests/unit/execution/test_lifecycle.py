"""Tests the state machine of a task with tables."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.executiontask import ExecutionTask
from remit.api.phases import Phase
from remit.backends.outcome import Outcome
from remit.execution.lifecycle import (
    MAX_INTERRUPTIONS,
    Acknowledge,
    AwaitEarlierLeader,
    Begin,
    Collect,
    Expire,
    Finish,
    Idle,
    RetryAt,
    Stop,
    after_attempt,
    longest_retry_delay,
    next_step,
)
from remit.execution.progress import acknowledged

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)


def at(seconds: float) -> str:
    return (NOW + datetime.timedelta(seconds=seconds)).isoformat()


def task(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **metadata: Any) -> ExecutionTask:
    return ExecutionTask.parse(
        {
            "metadata": {"name": "t", "uid": "u", "creationTimestamp": at(-10), **metadata},
            "spec": {"command": {"argv": ["true"]}, **(spec or {})},
            "status": status or {},
        }
    )


def attempt(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"number": number, "id": f"u-{number}", "startedAt": at(-5), **fields}


def step(t: ExecutionTask, running: bool = False) -> object:
    return next_step(t, running=running, now=NOW)


def test_a_new_task_begins() -> None:
    assert step(task()) == Begin(1)


def test_a_running_task_is_left_alone() -> None:
    assert step(task(status={"phase": "Running", "attempts": [attempt()]}), running=True) == Idle()


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.final])
def test_an_ended_task_stays_as_it_is(phase: Phase) -> None:
    assert step(task({"cancel": True}, {"phase": phase})) == Idle()


def test_an_attempt_that_nobody_runs_is_collected() -> None:
    found = step(task(status={"phase": "Running", "attemptCount": 1, "attempts": [attempt()]}))
    assert isinstance(found, Collect)
    assert found.attempt.id == "u-1"


def test_an_attempt_that_an_earlier_leader_may_have_running_is_waited_for() -> None:
    lost = task(status={"phase": "Running", "attemptCount": 1, "attempts": [attempt(leaseTransitions=3)]})
    for adoptable in (False, True):
        waits = next_step(lost, running=False, now=NOW, adoptable=adoptable, seconds_until_over=4.5)
        assert waits == AwaitEarlierLeader(4.5)
    assert next_step(lost, running=True, now=NOW, seconds_until_over=4.5) == Idle()
    assert next_step(task(), running=False, now=NOW, seconds_until_over=4.5) == Begin(1)


def test_an_end_is_acknowledged_for_an_edited_spec() -> None:
    """Otherwise `kubectl wait --for=condition=Finished` would never end, and kstatus would always report InProgress."""
    conditions = [{"type": "Finished", "status": "True", "reason": "Completed", "observedGeneration": 1}]
    ended = task({"cancel": True}, {"phase": "Succeeded", "observedGeneration": 1, "conditions": conditions})
    ended = ended.model_copy(update={"metadata": ended.metadata.model_copy(update={"generation": 2})})
    assert step(ended) == Acknowledge()
    told = ended.model_copy(update={"status": acknowledged(ended)})
    assert {"observedGeneration": 2} | conditions[0] | {"observedGeneration": 2} == {
        name: value
        for name, value in told.model_dump(mode="json", by_alias=True)["status"]["conditions"][0].items()
        if value
    }
    assert step(told) == Idle()


def test_cancel_stops_a_run_and_ends_one_that_waits() -> None:
    assert step(task({"cancel": True}), running=True) == Stop()
    waiting = step(task({"cancel": True}, {"phase": "Backoff", "nextRetryTime": at(60)}))
    assert isinstance(waiting, Finish)
    assert waiting.phase is Phase.CANCELLED


def test_a_cancelled_attempt_that_was_lost_is_collected_before_the_end_is_written() -> None:
    assert isinstance(step(task({"cancel": True}, {"attempts": [attempt()]})), Collect)


def test_a_deleted_task_starts_nothing() -> None:
    gone = task(deletionTimestamp=at(-1))
    assert step(gone) == Idle()
    assert step(gone, running=True) == Stop()


def test_backoff_is_waited_for_but_never_beyond_the_deadline() -> None:
    status = {"phase": "Backoff", "attemptCount": 1, "nextRetryTime": at(60)}
    assert step(task(status=status)) == Idle(until=NOW + datetime.timedelta(seconds=60))
    assert step(task({"deadlineSeconds": 30}, status)) == Idle(until=NOW + datetime.timedelta(seconds=20))
    assert step(task(status={**status, "nextRetryTime": at(-1)})) == Begin(2)


def test_a_retry_is_not_held_up_by_a_clock_that_was_ahead() -> None:
    """The previous leader wrote when the retry is due, or this machine's clock was set back since."""
    spec = {"retry": {"maxRetries": 1, "backoff": {"maxSeconds": 10, "jitter": 0.5}}}
    status = {"phase": "Backoff", "attemptCount": 1}
    assert isinstance(step(task(spec, {**status, "nextRetryTime": at(15)})), Idle)
    assert step(task(spec, {**status, "nextRetryTime": at(16)})) == Begin(2)


def test_the_deadline_ends_a_task_that_waits() -> None:
    ended = step(task({"deadlineSeconds": 10}))
    assert isinstance(ended, Finish)
    assert (ended.phase, ended.reason) == (Phase.TIMED_OUT, "DeadlineExceeded")


def test_time_to_live_counts_from_the_end() -> None:
    status = {"phase": "Succeeded", "completionTime": at(-5)}
    assert step(task({"ttlSecondsAfterFinished": 5}, status)) == Expire()
    assert step(task({"ttlSecondsAfterFinished": 8}, status)) == Idle(until=NOW + datetime.timedelta(seconds=3))
    assert step(task({}, status)) == Idle()


def after(reason: str, spec: dict[str, Any] | None = None, **status: Any) -> Finish | RetryAt:
    return after_attempt(task(spec, {"attemptCount": 1, **status}), Outcome(reason, "it did"), now=NOW, draw=0.5)


@pytest.mark.parametrize(
    ("reason", "phase", "category"),
    [
        ("Completed", Phase.SUCCEEDED, ""),
        ("ExitCode", Phase.FAILED, "ExitCode"),
        ("Signal", Phase.FAILED, "ExitCode"),
        ("Timeout", Phase.TIMED_OUT, "Timeout"),
        ("OOMKilled", Phase.FAILED, "Resources"),
        ("Interrupted", Phase.FAILED, "Interrupted"),
        ("StartFailed", Phase.FAILED, "Invalid"),
        ("SandboxUnavailable", Phase.FAILED, "Sandbox"),
        ("BackendError", Phase.FAILED, "Infrastructure"),
        ("Cancelled", Phase.CANCELLED, "Cancelled"),
    ],
)
def test_without_retries_every_end_is_final(reason: str, phase: Phase, category: str) -> None:
    end = after(reason)
    assert isinstance(end, Finish)
    assert (end.phase, end.category) == (phase, category)


@pytest.mark.parametrize("reason", ["ExitCode", "Signal", "Timeout", "OOMKilled", "BackendError"])
def test_retries_are_counted(reason: str) -> None:
    spec = {"retry": {"maxRetries": 2, "backoff": {"initialSeconds": 3}}}
    assert after(reason, spec) == RetryAt(NOW + datetime.timedelta(seconds=3), "it did; next attempt in 3.0 s")
    assert isinstance(after(reason, spec, attemptCount=2), RetryAt)
    assert isinstance(after(reason, spec, attemptCount=3), Finish)


@pytest.mark.parametrize("reason", ["StartFailed", "SandboxUnavailable", "Cancelled", "Completed"])
def test_what_cannot_get_better_is_never_retried(reason: str) -> None:
    assert isinstance(after(reason, {"retry": {"maxRetries": 5}}), Finish)


def test_interruptions_are_retried_only_on_request_and_do_not_use_up_retries() -> None:
    retry = {"retry": {"maxRetries": 1, "onInterruption": "Retry"}}
    assert isinstance(after("Interrupted", {"retry": {"maxRetries": 5}}), Finish)
    assert isinstance(after("Interrupted", retry), RetryAt)
    assert isinstance(after("Interrupted", retry, attemptCount=4, interruptions=MAX_INTERRUPTIONS), Finish)
    assert isinstance(after("ExitCode", retry, attemptCount=3, interruptions=2), RetryAt)
    assert isinstance(after("ExitCode", retry, attemptCount=4, interruptions=2), Finish)


def test_a_server_is_asked_again_when_it_says() -> None:
    ended = Outcome("UnexpectedStatus", "it did", retry_after_seconds=7)
    spec = {"http": {"url": "http://a"}, "command": None, "retry": {"maxRetries": 1, "backoff": {"jitter": 0}}}
    counted = {"attemptCount": 1}
    later = NOW + datetime.timedelta(seconds=7)
    assert after_attempt(task(spec, counted), ended, now=NOW, draw=0.5) == RetryAt(
        later, "it did; next attempt in 7.0 s"
    )
    slow = {**spec, "retry": {"maxRetries": 1, "backoff": {"initialSeconds": 9, "jitter": 0}}}
    assert isinstance(waits := after_attempt(task(slow, counted), ended, now=NOW, draw=0.5), RetryAt)
    assert waits.when == NOW + datetime.timedelta(seconds=9)
    over = after_attempt(task({**spec, "deadlineSeconds": 16}, counted), ended, now=NOW, draw=0.5)
    assert isinstance(over, Finish)
    assert over.reason == "DeadlineExceeded"
    due = NOW + datetime.timedelta(seconds=1000)  # beyond the longest backoff
    assert step(task(spec, {"phase": "Backoff", "nextRetryTime": due.isoformat()})) == Idle(until=due)


def test_no_retry_is_promised_that_the_deadline_forbids() -> None:
    end = after("ExitCode", {"deadlineSeconds": 12, "retry": {"maxRetries": 1, "backoff": {"initialSeconds": 5}}})
    assert isinstance(end, Finish)
    assert end.reason == "DeadlineExceeded"


def test_a_cancelled_task_says_what_became_of_its_attempt() -> None:
    ended = Outcome("Cancelled", "cancelled while it was performed; it may have arrived")
    finish = after_attempt(task({"cancel": True}), ended, now=NOW, draw=0.5)
    assert finish == Finish(
        Phase.CANCELLED, "Cancelled", "Cancelled", "cancelled as spec.cancel asked; it may have arrived"
    )


def test_a_task_that_is_over_at_its_deadline_says_what_became_of_its_attempt() -> None:
    ended = Outcome("Timeout", "timed out after 10 s; it may have arrived", retryable=False)
    finish = after_attempt(task({"deadlineSeconds": 10}), ended, now=NOW, draw=0.5)
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.retryable) == ("DeadlineExceeded", False)
    assert finish.message == "not done by its deadline, 10 s after its creation; it may have arrived"


def test_a_cancel_that_came_during_a_failing_attempt_wins() -> None:
    end = after("ExitCode", {"cancel": True, "retry": {"maxRetries": 3}})
    assert isinstance(end, Finish)
    assert end.phase is Phase.CANCELLED


@given(
    phase=st.sampled_from([None, *Phase]),
    cancel=st.booleans(),
    running=st.booleans(),
    open_attempt=st.booleans(),
    retry_in=st.none() | st.integers(-100, 100),
    limit=st.none() | st.integers(1, 100),
)
def test_nothing_ever_starts_twice(
    phase: Phase | None, cancel: bool, running: bool, open_attempt: bool, retry_in: int | None, limit: int | None
) -> None:
    """In any state, Begin is decided only if nothing runs, no attempt is open, the task has not ended, and it was not
    cancelled."""
    attempts = [attempt()] if open_attempt else [attempt(finishedAt=at(-1))]
    status = {"phase": phase, "attempts": attempts, "attemptCount": 1}
    if retry_in is not None:
        status["nextRetryTime"] = at(retry_in)
    t = task({"cancel": cancel} | ({"deadlineSeconds": limit} if limit else {}), status)
    found = next_step(t, running=running, now=NOW)
    assert found == next_step(t, running=running, now=NOW)
    if isinstance(found, Begin):
        assert not running
        assert not open_attempt
        assert not cancel
        assert phase is None or not phase.final
        assert retry_in is None or not 0 < retry_in <= longest_retry_delay(t.spec.retry.backoff)
