"""Simulates a day of an operator with 50,000 tasks (`make soak`; otherwise 2,000): its counters and notifications stay
within bounds. The state on disk is tested with retention."""

from __future__ import annotations

import datetime
import random
from collections import deque
from typing import Any, cast

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, ExecutionTaskStatus
from remit.api.phases import Phase
from remit.backends.outcome import Outcome
from remit.controllers.taskstore import ApiTaskStore
from remit.execution.lifecycle import Finish
from remit.execution.taskstore import StoredTask
from remit.notifications import message
from remit.notifications.config import NotificationConfig
from remit.notifications.grouping import Groups
from remit.notifications.sources import MOST_ACTIVE, ActiveAlerts
from remit.reasons import CATALOGUE, tasks
from remit.telemetry.metrics import MOST_WORDS, Metrics
from support import repetitions

MORNING = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)
TASKS = repetitions(2000, soak=50_000)
LOOK = datetime.timedelta(seconds=60)
NAMESPACES = 300
HOUR = datetime.timedelta(hours=1)
MOST_AN_HOUR = 20
FAILURES = [code.name for code in tasks.CODES if code.retried]
Moment = datetime.datetime


def ends(chance: random.Random) -> list[tuple[Moment, int]]:
    """Returns when each task ends: denied tasks and half of the failing ones within one minute, the others at any
    time."""
    burst = MORNING + 9 * HOUR
    moments = [
        burst + datetime.timedelta(seconds=chance.uniform(0, 60))
        if number % 10 in {0, 1}
        else MORNING + datetime.timedelta(seconds=chance.uniform(0, 86_400))
        for number in range(TASKS)
    ]
    return sorted((moment, number) for number, moment in enumerate(moments))


def obj(number: int, phase: Phase, ended: Moment) -> dict[str, Any]:
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {
            "name": f"named-by-users-{number}",
            "namespace": f"branch-{number % NAMESPACES}",
            "uid": f"{number}",
        },
        "spec": {"command": {"argv": ["true"]}},
        "status": {
            "phase": phase,
            "completionTime": ended.isoformat(),
            "error": {"message": "it went wrong " * 100},
        },
    }


def ending(number: int) -> Finish:
    """Seven in ten tasks succeed, one is denied, and two fail, sometimes with a text from outside."""
    if number % 10 in {3, 4, 5, 6, 7, 8, 9}:
        return Finish(Phase.SUCCEEDED, "Completed", "", "it ended")
    if number % 10 == 1:
        return Finish(Phase.DENIED, "NotAllowed", "Denied", "no")
    reason = f"Word{number}" if number % 4 == 0 else FAILURES[number % len(FAILURES)]
    return Finish(Phase.FAILED, reason, f"Kind{number}" if number % 20 == 0 else "ExitCode", "no")


def test_series_are_bounded_whatever_tasks_say() -> None:
    metrics, chance = Metrics(), random.Random(1)
    store = ApiTaskStore(*cast(Any, (None, None, None, metrics, None, None, None)))
    for ended, number in ends(chance):
        finish = ending(number)
        stored = StoredTask(ExecutionTask.parse(obj(number, finish.phase, ended) | {"status": {}}), {})
        status = ExecutionTaskStatus(phase=finish.phase, backend="process", start_time=ended, completion_time=ended)
        attempt = AttemptStatus(number=1, id=f"{number}-1", backend="process", started_at=ended)
        outcome = Outcome(finish.reason, "", 0, finished_at=ended, exceeded=("Memory",))
        store.on_attempt_ended(stored, attempt, outcome, retried=number % 7 == 0)
        store.on_finished(stored, finish, status)
    page = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert not [each for each in page if any("named-by" in word or "branch-" in word for word in each.labels.values())]
    words = {word for each in page for word in each.labels.values() if word.startswith(("Word", "Kind"))}
    assert 0 < len(words) <= MOST_WORDS
    counted = {each.labels["reason"] for each in page if each.name == "remit_task_finished_total"}
    assert counted >= {ending(number).reason for number in range(TASKS)} & CATALOGUE.keys()
    assert counted - words <= CATALOGUE.keys() | {"Other"}
    finished = [each for each in page if each.name == "remit_task_finished_total"]
    assert len(finished) <= 3 * MOST_WORDS + len(CATALOGUE)
    assert sum(each.value for each in finished) == TASKS


def test_whoever_is_told_is_told_so_often_at_most_and_nothing_is_remembered_for_good() -> None:
    config = NotificationConfig.model_validate(
        {
            "receivers": [{"name": name, "apprise": {"urls": ["json://localhost"]}} for name in ("team", "ops")],
            "routes": [{"receivers": ["team", "ops"]}],
            "mostAnHour": MOST_AN_HOUR,
            "denials": {"count": 2, "within": "5m"},
        }
    )
    active, groups, chance = ActiveAlerts(config), Groups(config), random.Random(1)
    sent: dict[str, list[Moment]] = {"team": [], "ops": []}
    seen: set[str] = set()
    coming, now = deque(ends(chance)), MORNING
    evening = MORNING + datetime.timedelta(days=1)
    over = evening + datetime.timedelta(days=2)  # notifications that the rate held back were sent by then
    while now < over:
        now += LOOK
        while coming and coming[0][0] <= now:
            ended, number = coming.popleft()
            finish = ending(number)
            active.observe_task(obj(number, finish.phase, ended), now)
        alerts = active.at(now)
        assert len(alerts) <= MOST_ACTIVE
        seen |= {str(alert.key.name) for alert in alerts}
        for notification in groups.update(alerts, now):
            assert len(message.body(notification)) < 20_000
            sent[notification.group.receiver].append(now)
            groups.delivered(notification, now)
        assert len(groups._groups) <= len(sent) * 3 * NAMESPACES
    for moments in sent.values():
        assert len(moments) > MOST_AN_HOUR, "the rate was met"
        assert all(later - first >= HOUR for first, later in zip(moments, moments[MOST_AN_HOUR:], strict=False))
    assert seen == {"TaskFailed", "PolicyDenials"}
    assert not active.at(now)
    assert not groups._groups
    assert not active._denials
