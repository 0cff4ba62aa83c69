"""The operator's controllers, one row each. They are connected, listed, started and measured in this order, and closed
in the opposite one."""

from __future__ import annotations

from collections.abc import Iterable

from remit.controllers.controller import Controller, Watch, generation_changed, own_key
from remit.controllers.deployments import DeploymentReconciler
from remit.controllers.hooks import release_key
from remit.controllers.policies import Policies
from remit.controllers.schedules import parent_key
from remit.controllers.tasks import TaskReconciler
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Object
from remit.kube.workqueue import WorkQueue

_RELEASES_AT_ONCE = 4


def controllers(
    policies: Policies,
    tasks: TaskReconciler,
    task_queue: WorkQueue,
    deployments: DeploymentReconciler,
    release_queue: WorkQueue,
    *,
    workers: int,
) -> tuple[Controller, ...]:
    return (
        Controller(
            kind="CommandPolicy",
            resource=POLICIES,
            queue=policies.queue,
            reconcile=policies.reconcile,
            watches=(Watch(POLICIES, own_key, generation_changed),),
            workers=1,
            close=policies.write_counts,
        ),
        Controller(
            kind="ExecutionTask",
            resource=TASKS,
            queue=task_queue,
            reconcile=tasks.reconcile,
            watches=(Watch(TASKS, own_key, tasks.writer.by_others), Watch(TASKS, _schedule)),
            workers=workers,
            on_delete=tasks.deleted,
            on_vanish=tasks.vanished,
            sweep=tasks.sweep,
            shut_down=tasks.runner.shutdown,
            close=tasks.runner.close,
        ),
        Controller(
            kind="Deployment",
            resource=DEPLOYMENTS,
            queue=release_queue,
            reconcile=deployments.reconcile,
            watches=(Watch(DEPLOYMENTS, own_key, deployments.writer.by_others), Watch(TASKS, _release_of_hook)),
            workers=_RELEASES_AT_ONCE,
            close=deployments.close,
        ),
    )


def _schedule(task: Object) -> Iterable[str]:
    parent = parent_key(task)
    return [] if parent is None else [parent]


def _release_of_hook(task: Object) -> Iterable[str]:
    release = release_key(task)
    return [] if release is None else [release]
