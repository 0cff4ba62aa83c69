"""Tests which runs a task is compared with, and how many of them are kept."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import ExecutionTaskStatus
from remit.controllers import runhistory
from remit.controllers.runhistory import RunHistory
from remit.execution.anomalies import LEAST_RUNS, WINDOW
from remit.kube.client import TASKS, Object
from remit.kube.reflector import Reflector

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
API = "remit.dev/v1alpha1"
_numbers = itertools.count(1)


def owner(kind: str, name: str, uid: str) -> Object:
    return {"apiVersion": API, "kind": kind, "name": name, "uid": uid, "controller": True}


def task(
    seconds: float = 60,
    *,
    argv: str = "true",
    namespace: str = "shop",
    of: Object | None = None,
    labels: dict[str, str] | None = None,
    phase: str = "Succeeded",
    backend: str = "process",
    **spec: Any,
) -> Object:
    number = next(_numbers)
    started = START + datetime.timedelta(hours=number)
    attempt = {
        "number": 1,
        "id": f"a{number}",
        "startedAt": started.isoformat(),
        "finishedAt": (started + datetime.timedelta(seconds=seconds)).isoformat(),
    }
    return {
        "apiVersion": API,
        "kind": "ExecutionTask",
        "metadata": {
            "name": f"t{number}",
            "namespace": namespace,
            "uid": f"uid{number}",
            "resourceVersion": f"{number}",
            "labels": labels or {},
            "ownerReferences": [of] if of else [],
        },
        "spec": {"command": {"argv": [argv]}, **spec},
        "status": {"phase": phase, "backend": backend, "attempts": [attempt]},
    }


def status(obj: Object) -> ExecutionTaskStatus:
    return ExecutionTask.parse(obj).status


@pytest.fixture
def tasks() -> Reflector:
    return Reflector(TASKS)


@pytest.fixture
def history(tasks: Reflector) -> RunHistory:
    return RunHistory(tasks)


def learn(history: RunHistory, *objs: Object) -> None:
    for obj in objs:
        history.learn(obj, status(obj))


def unusual(history: RunHistory, obj: Object) -> bool:
    return bool(history.find_unusual(obj, status(obj)))


def hook(seconds: float = 60, revision: int = 1, deployment: str = "d", **changes: Any) -> Object:
    labels = {"remit.dev/revision": f"{revision}", "remit.dev/stage": "PrePromotion", "remit.dev/hook": "smoke"}
    return task(seconds, of=owner("Deployment", "web", deployment), labels=labels | changes)


def test_tasks_with_the_same_spec_are_a_family(history: RunHistory) -> None:
    learn(history, *(task(cancel=False) for _ in range(LEAST_RUNS)))
    assert unusual(history, task(600))
    assert unusual(history, task(600, ttlSecondsAfterFinished=5))
    assert not unusual(history, task(61))
    assert not unusual(history, task(600, argv="false"))
    assert not unusual(history, task(600, namespace="bank"))
    assert not unusual(history, task(600, backend="docker"))
    assert not unusual(history, task(600, phase="Failed"))


def test_the_hooks_of_a_deployment_are_a_family_whatever_the_revision(history: RunHistory) -> None:
    learn(history, *(hook(revision=number) for number in range(1, LEAST_RUNS + 1)))
    changed = hook(600, revision=99)
    changed["spec"]["command"]["argv"] = ["other"]
    assert unusual(history, changed)
    assert not unusual(history, hook(600, deployment="made-anew"))
    assert not unusual(history, hook(600, **{"remit.dev/hook": "other"}))
    assert not unusual(history, task(600))


def schedule(runs: int, uid: str = "schedule") -> Object:
    obj = task(phase="Scheduled", schedule={"cron": "0 0 1 1 *"})
    obj["metadata"] |= {"name": "nightly", "uid": uid}
    obj["status"]["recentRuns"] = [
        {"name": f"nightly-{number}", "finishedAt": START.isoformat(), "durationSeconds": 60} for number in range(runs)
    ]
    return obj


def test_runs_of_a_schedule_are_compared_with_those_of_its_status(tasks: Reflector, history: RunHistory) -> None:
    tasks.observe(schedule(LEAST_RUNS))
    of = owner("ExecutionTask", "nightly", "schedule")
    assert unusual(history, task(600, of=of))
    assert not unusual(history, task(61, of=of))
    assert not unusual(history, task(600)), "not one of its runs"
    assert not unusual(history, task(600, of=owner("ExecutionTask", "nightly", "another uid")))
    learn(history, task(of=of))
    assert len(history) == 0, "they are kept in the status of the schedule"


def test_a_schedule_of_another_version_is_no_failure(tasks: Reflector, history: RunHistory) -> None:
    broken = schedule(LEAST_RUNS)
    broken["status"]["recentRuns"][0]["durationSeconds"] = "long"
    tasks.observe(broken)
    assert not unusual(history, task(600, of=owner("ExecutionTask", "nightly", "schedule")))


def test_a_task_is_not_compared_with_itself(history: RunHistory) -> None:
    """Its end may have to be written a second time, and the operator may be restarted in between."""
    one = task(600)
    learn(history, one, *(task() for _ in range(LEAST_RUNS - 1)))
    assert not unusual(history, one), "there are too few others"
    learn(history, task())
    assert unusual(history, one)


def test_a_new_leader_knows_what_is_still_there(tasks: Reflector, history: RunHistory) -> None:
    objs = [task(50 + number) for number in range(30)]
    learn(history, *objs)
    other = RunHistory(tasks)
    learn(other, *reversed(objs), *objs)
    late = task(600)
    assert history.find_unusual(late, status(late)) == other.find_unusual(late, status(late)) != ()


def test_what_is_kept_has_bounds_and_nobody_has_others_forgotten(
    history: RunHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runhistory, "MOST_FAMILIES", 50)
    learn(history, *(task(argv="kept", namespace="quiet") for _ in range(3 * WINDOW)))
    learn(history, *(task(argv="own", namespace="noisy") for _ in range(LEAST_RUNS)))
    for number in range(200):
        learn(history, task(argv=f"once {number}", namespace="noisy"))
        assert len(history) <= 50
    assert unusual(history, task(600, argv="kept", namespace="quiet"))
    assert not unusual(history, task(600, argv="own", namespace="noisy"))
    kept = [len(runs) for families in history._families.values() for runs in families.values()]
    assert (len(kept), max(kept)) == (50, WINDOW)


def test_the_family_that_had_no_run_for_longest_is_forgotten(
    history: RunHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runhistory, "MOST_FAMILIES", 3)
    for _ in range(LEAST_RUNS):
        learn(history, task(argv="often"), task(argv=f"once {next(_numbers)}"), task(argv=f"once {next(_numbers)}"))
    assert unusual(history, task(600, argv="often"))


def test_a_namespace_without_families_is_not_kept(history: RunHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runhistory, "MOST_FAMILIES", 3)
    learn(history, *(task(namespace=f"branch-{number}") for number in range(20)))
    assert (len(history), len(history._families)) == (3, 3)
