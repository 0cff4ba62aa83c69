"""Keeps measurements of runs by family, with which a task that ends is compared.

A schedule's runs are kept in its own status, because most of them are deleted long before there are enough. All other
families are kept here, and an operator that starts reads them from the existing tasks. A new leader therefore knows
what the previous one knew, and reports nothing again: a task is evaluated only in the write that ends it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Final

import orjson

from remit.api.controllerref import is_controlled_by
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import ExecutionTaskStatus, RecentRun
from remit.controllers.hooks import key_of_hook, release_key
from remit.controllers.schedules import parent_key
from remit.errors import InvalidInput
from remit.execution.anomalies import Finding, judge, latest, run_of
from remit.kube.client import Object
from remit.kube.indexer import by_controller
from remit.kube.reflector import Reflector

MOST_FAMILIES: Final = 1000
"""Families that are known at once, those of schedules besides; beyond it the namespace that has most of them forgets
the one that no run was added to for longest."""
_OF_NO_RUN: Final = frozenset({"cancel", "ttlSecondsAfterFinished"})
"""Fields of a spec that change nothing of what runs."""


class RunHistory:
    """Families of tasks, with what their latest runs took. `tasks` has the schedules."""

    def __init__(self, tasks: Reflector) -> None:
        self._tasks = tasks
        self._families: dict[str, OrderedDict[Hashable, list[RecentRun]]] = {}
        """Families by namespace, so that no namespace can have those of others forgotten."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find_unusual(self, obj: Object, status: ExecutionTaskStatus) -> Sequence[Finding]:
        """Find what is unusual about the task `obj`, which ends with `status`."""
        schedule, metadata = self._schedule(obj), obj["metadata"]
        run = run_of(metadata["uid"] if schedule is None else metadata["name"], status)
        if run is None:
            return ()
        if schedule is None:
            families = self._families.get(metadata["namespace"])
            return judge(run, families.get(_family(obj, status), ())) if families else ()
        try:
            return judge(run, ExecutionTask.parse(schedule).status.recent_runs)
        except InvalidInput:
            return ()

    def learn(self, obj: Object, status: ExecutionTaskStatus) -> None:
        """Add the task to its family, if it has succeeded. Adding it again changes nothing."""
        run = run_of(obj["metadata"]["uid"], status)
        if run is None or self._schedule(obj) is not None:
            return
        families = self._families.setdefault(obj["metadata"]["namespace"], OrderedDict())
        key = _family(obj, status)
        self._count += key not in families
        families[key] = latest(families.get(key, ()), (run,))
        families.move_to_end(key)
        if self._count > MOST_FAMILIES:
            self._forget_one()

    def _schedule(self, obj: Object) -> Object | None:
        key = parent_key(obj)
        schedule = None if key is None else self._tasks.objects.get(key)
        return schedule if schedule is not None and is_controlled_by(obj, schedule) else None

    def _forget_one(self) -> None:
        namespace, families = max(self._families.items(), key=lambda each: len(each[1]))
        families.popitem(last=False)
        self._count -= 1
        if not families:
            del self._families[namespace]


def _family(obj: Object, status: ExecutionTaskStatus) -> Hashable:
    """Returns the family: hooks of one Deployment, whatever the revision, or else runs with the same spec and backend.
    Backends differ in duration and in how they measure."""
    hook, release = key_of_hook(obj), release_key(obj)
    if hook is not None and release is not None:
        return tuple(by_controller(obj)), hook.stage, hook.name, status.backend
    spec = {name: value for name, value in obj["spec"].items() if name not in _OF_NO_RUN}
    digest = hashlib.blake2b(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS), digest_size=16)
    return digest.digest(), status.backend
