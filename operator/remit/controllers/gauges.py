"""Metrics that are read where the facts are, at each scrape: what there is, what waits, what this host can give."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, get_args

import structlog

from remit.api.endpoint import Resource
from remit.api.phases import DeploymentPhase, Phase
from remit.controllers import releasemetrics
from remit.controllers.releasemetrics import TARGETS, Side
from remit.controllers.tasks import TaskReconciler
from remit.execution.queue import WaitReason
from remit.execution.runner import Runner
from remit.kube.client import DEPLOYMENTS, TASKS
from remit.kube.indexer import PHASE, Indexer
from remit.kube.reflector import Reflector
from remit.sandbox import Layer, probe_host
from remit.telemetry.audit import AuditLog
from remit.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

DISK_SECONDS: Final = 15.0
"""Between two looks at the free space."""


def expose(
    metrics: Metrics, known: Mapping[Resource, Reflector], tasks: TaskReconciler, runner: Runner, audit: AuditLog
) -> None:
    """Makes `metrics` read its gauges from the informer's cache and the parts of an operator."""
    for phase in Phase:
        count = partial(known[TASKS].objects.count_by_index, PHASE, str(phase))
        metrics.tasks.labels(phase).set_function(count)
    deployments = known[DEPLOYMENTS].objects
    for release_phase in DeploymentPhase:
        count = partial(deployments.count_by_index, PHASE, str(release_phase))
        metrics.deployments.labels(release_phase).set_function(count)
    for target in TARGETS:
        for side in get_args(Side):
            metrics.instances_desired.labels(target, side).set_function(partial(_desired, deployments, target, side))
            metrics.instances_ready.labels(target, side).set_function(partial(_ready, deployments, target, side))
    for backend in ("operator", *runner.backends):
        metrics.tasks_running.labels(backend).set_function(partial(runner.count, backend))
    for reason in WaitReason:
        metrics.tasks_queued.labels(reason).set_function(partial(tasks.queued, reason))
    for operation, executor in runner.executors.items():
        if executor.breaker is not None:
            metrics.circuits_open.labels(operation).set_function(executor.breaker.open_count)
            trips = metrics.circuit_trips.labels(operation)
            executor.breaker.on_trip = trips.inc
    if "process" in runner.backends:
        abilities = probe_host().abilities
        for layer in Layer:
            metrics.sandbox_layer.labels(layer).set(layer in abilities and abilities[layer].available)
    metrics.audit_head.set_function(lambda: audit.head.seq)
    metrics.audit_available.set_function(lambda: audit.check() is None)


async def keep_measuring_disk(metrics: Metrics, state_dir: Path) -> None:
    """Measure the disk in a thread, because a filesystem may hang. Then the last numbers stay."""
    while True:
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, state_dir)
        except OSError as error:
            log.warning("the free space of the state directory is not known", error=str(error))
        else:
            metrics.state_size.set(usage.total)
            metrics.state_free.set(usage.free)
        await asyncio.sleep(DISK_SECONDS)


def _desired(deployments: Indexer, target: str, side: Side) -> int:
    found = releasemetrics.instances(deployments.list()).get((target, side))
    return found.desired if found else 0


def _ready(deployments: Indexer, target: str, side: Side) -> int:
    found = releasemetrics.instances(deployments.list()).get((target, side))
    return found.ready if found else 0
