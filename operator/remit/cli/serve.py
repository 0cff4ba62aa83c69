"""An operator as a service: started, at work until asked to stop, and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import structlog

from remit.cli.signals import stop_requested, until
from remit.controllers.operator import Operator, running_operator
from remit.controllers.settings import Settings
from remit.errors import RemitError
from remit.kube.access import Access
from remit.telemetry.redact import Redactor

log = structlog.get_logger(__name__)


async def operator(settings: Settings, redactor: Redactor, kubeconfig: Path | None, context: str | None) -> None:
    """`remit operator`. Raises `RemitError` when it cannot start or breaks down."""
    access = await Access.load(kubeconfig, context)

    def started(running: Operator) -> None:
        log.info("the operator is at work", server=access.server, metrics=f"port {running.health.port}")

    with stop_requested() as stop:
        await operate(access, settings, redactor, stop, started)


async def operate(
    access: Access, settings: Settings, redactor: Redactor, stop: asyncio.Event, on_started: Callable[[Operator], None]
) -> None:
    """An operator at work until `stop`, also while it still waits for the CRDs or the lease. Raises `RemitError`."""
    started = asyncio.Event()

    async def work() -> None:
        async with _operator(access, settings, redactor) as running:
            started.set()
            on_started(running)
            await until(stop, running.failed)

    working = asyncio.ensure_future(work())
    stopping = asyncio.ensure_future(stop.wait())
    ends: set[asyncio.Future[Any]] = {working, stopping}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not started.is_set():
        working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


@contextlib.asynccontextmanager
async def _operator(access: Access, settings: Settings, redactor: Redactor) -> AsyncIterator[Operator]:
    """The operator at work. Raises `RemitError` where its metrics cannot be served."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            running = await stack.enter_async_context(running_operator(access, settings, redactor))
        except OSError as error:
            address = f"{settings.health_host}:{settings.health_port}"
            raise RemitError(
                f"cannot serve metrics on {address}: {error.strerror or error}; choose another --metrics-address"
            ) from None
        # Objects that exist now live as long as the operator. Freezing them excludes them from garbage collection,
        # which would otherwise block the event loop while it traverses them.
        gc.collect()
        gc.freeze()
        yield running
