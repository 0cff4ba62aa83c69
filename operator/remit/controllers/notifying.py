"""Has the notifier see what the operator sees: tasks, Deployments and its own health checks."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from remit.api.endpoint import Resource
from remit.controllers.settings import Settings
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, LEASES, TASKS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.reflector import Reflector, ResourceEventHandler
from remit.notifications.config import NotificationConfig
from remit.notifications.notifier import Notifier
from remit.notifications.sources import ActiveAlerts
from remit.telemetry.health import Checks, failing
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor

log = structlog.get_logger(__name__)

_Observe = Callable[[Object, datetime.datetime], None]


def notifier(
    settings: Settings,
    kube: Kube,
    reflectors: Mapping[Resource, Reflector],
    events: Recorder,
    checks: Checks,
    metrics: Metrics,
    redactor: Redactor,
) -> Notifier | None:
    """Returns the notifier, or None if no notifications are configured. Raises `InvalidInput` for an invalid
    configuration."""
    if settings.notifications is None:
        return None
    made = Notifier(
        NotificationConfig.load(settings.notifications),
        settings.state_dir,
        checks=partial(failing_checks, checks),
        metrics=metrics,
        redactor=redactor,
        on_failure=partial(record_failure, kube, events, settings.operator_namespace, settings.lease_name),
    )
    connect(made.active, reflectors)
    return made


def connect(active: ActiveAlerts, reflectors: Mapping[Resource, Reflector]) -> None:
    _follow(reflectors[TASKS], active.observe_task, active.forget_task)
    _follow(reflectors[DEPLOYMENTS], active.observe_deployment, active.forget_deployment)


async def failing_checks(checks: Checks) -> Mapping[str, str]:
    live, ready = await asyncio.gather(failing(checks.live), failing(checks.ready))
    return {**live, **ready}


async def record_failure(
    kube: Kube, events: Recorder, namespace: str, lease_name: str, receiver: str, why: str
) -> None:
    """Records an Event about the Lease, which represents the operator in a cluster."""
    try:
        lease = await kube.get(LEASES, namespace, lease_name)
    except ApiError:
        return  # logs and metrics report it too
    events.record(lease, "Warning", "NotificationFailed", f"{receiver}: {why}")


def _follow(reflector: Reflector, observe: _Observe, forget: Callable[[Object], None]) -> None:
    def add(obj: Object) -> None:
        _tolerant(obj, lambda: observe(obj, datetime.datetime.now(datetime.UTC)))

    reflector.add_handler(
        ResourceEventHandler(on_add=add, on_update=lambda before, after: add(after), on_delete=partial(_forget, forget))
    )


def _forget(forget: Callable[[Object], None], obj: Object) -> None:
    _tolerant(obj, lambda: forget(obj))


def _tolerant(obj: Object, do: Callable[[], None]) -> None:
    """Logs errors of `do` instead of raising them, because another client may have written any status that the schema
    accepts."""
    try:
        do()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        name = obj["metadata"].get("name")
        log.warning("an object is left out of notifications", name=name, reason=f"{type(error).__name__}: {error}")
