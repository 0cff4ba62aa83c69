"""The long-running commands: start the parts in order, wait, stop them in the opposite order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import structlog
import typer

from remit.api import crd
from remit.cli.kubeconfig import annotate, merge
from remit.cli.signals import stop_requested
from remit.controllers.operator import Operator, running_operator
from remit.controllers.settings import DEFAULT_DOCKER_HOST, Settings
from remit.controlplane import ADMIN, ControlPlane
from remit.errors import ApiError, InvalidInput, RemitError
from remit.kube.access import Access
from remit.kube.client import CRDS, NAMESPACES, Kube
from remit.telemetry import Redactor, configure
from remit.telemetry.logs import Format
from remit.userpaths import default_state_dir, may_hold_state

log = structlog.get_logger(__name__)

USUAL_PORT = 6443
"""What a Kubernetes API server listens on."""
_TRIES = 20
QUIET = {"kopf": "warning", "kopf._core.reactor.running": "error"}
"""kopf tells of every event that it hands over; and that it runs in a thread of its own, which is meant."""


def settings(
    state_dir: Path | None,
    *,
    metrics_address: tuple[str, int],
    read_only_paths: Sequence[Path] | None,
    docker_host: str,
    **fields: Any,
) -> Settings:
    """From flags. Raises `InvalidInput` for paths that cannot be meant, or cannot be used."""
    for path in read_only_paths or ():
        if not path.is_absolute() or not path.is_dir():
            raise InvalidInput(f"--read-only-path {path} is not an absolute path of a directory")
    if docker_host != "off" and not docker_host.startswith("unix:///"):
        raise InvalidInput(f"--docker-host {docker_host} is neither off nor a socket such as {DEFAULT_DOCKER_HOST}")
    state_dir = (state_dir or default_state_dir()).absolute()
    if not may_hold_state(state_dir):
        raise InvalidInput(
            f"{state_dir} cannot be written; name another directory with --state-dir, or run as a user who may write it"
        )
    health_host, health_port = metrics_address
    return Settings(
        state_dir=state_dir,
        health_host=health_host,
        health_port=health_port,
        read_only_paths=tuple(read_only_paths or ()),
        docker_host=docker_host,
        **fields,
    )


def logging(form: str, level: str) -> Redactor:
    """Raises `InvalidInput` for a format or level that does not exist."""
    return configure(format=cast(Format, form), level=level, levels={} if level == "debug" else QUIET)


async def everything(
    settings: Settings, redactor: Redactor, host: str, port: int | None, kubeconfig: Path | None
) -> None:
    """`remit up`. Raises `RemitError` when a part cannot start or breaks down."""
    with stop_requested() as stop:
        async with _control_plane(settings.state_dir, host, port) as control_plane:
            annotate(control_plane.kubeconfig, settings.state_dir)
            if kubeconfig is not None:
                merge(control_plane.kubeconfig, kubeconfig)
            access = await Access.load(control_plane.kubeconfig)
            settings = replace(settings, only_user=ADMIN)
            await _furnish(access, settings.operator_namespace)
            async with _operator(access, settings, redactor) as operator:
                _welcome(control_plane, kubeconfig, operator.health.port)
                await _until(stop, control_plane.failed, operator.failed)
                log.info("stopping; once more stops at once")


async def operator(settings: Settings, redactor: Redactor, kubeconfig: Path | None, context: str | None) -> None:
    """`remit operator`. Raises `RemitError` when it cannot start or breaks down."""
    access = await Access.load(kubeconfig, context)
    started = asyncio.Event()

    async def operate() -> None:
        async with _operator(access, settings, redactor) as running:
            started.set()
            log.info("the operator is at work", server=access.server, metrics=f"port {running.health.port}")
            await _until(stop, running.failed)

    with stop_requested() as stop:
        working = asyncio.ensure_future(operate())
        stopping = asyncio.ensure_future(stop.wait())
        ends: set[asyncio.Future[Any]] = {working, stopping}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not started.is_set():  # still waiting for the CRDs or the lease
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
        # What is alive now lives as long as the operator. A garbage collection of it all would hold up the event loop.
        gc.collect()
        gc.freeze()
        yield running


@contextlib.asynccontextmanager
async def _control_plane(state_dir: Path, host: str, port: int | None) -> AsyncIterator[ControlPlane]:
    """On `port`; where none is named, on the usual one or the next that is free."""
    if port is not None:
        async with ControlPlane(state_dir, host, port) as control_plane:
            yield control_plane
        return
    for candidate in range(USUAL_PORT, USUAL_PORT + _TRIES):
        if await _is_free(host, candidate):
            async with ControlPlane(state_dir, host, candidate) as control_plane:
                yield control_plane
            return
    raise RemitError(f"ports {USUAL_PORT} to {USUAL_PORT + _TRIES - 1} of {host} are taken; choose one with --port")


async def _is_free(host: str, port: int) -> bool:
    try:
        server = await asyncio.start_server(lambda *_: None, host, port)
    except OSError:
        return False
    server.close()
    await server.wait_closed()
    return True


async def _furnish(access: Access, operator_namespace: str) -> None:
    """The kinds, and the namespace that policies for everyone live in."""
    async with Kube(access) as kube:
        for definition in crd.crds():
            await kube.apply(CRDS, None, definition["metadata"]["name"], definition, manager="remit-up", force=True)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": operator_namespace}}
        try:
            await kube.create(NAMESPACES, None, namespace)
        except ApiError as error:
            if error.status != 409:
                raise


async def _until(stop: asyncio.Event, *failures: asyncio.Future[None]) -> None:
    """Until asked to stop. Raises what broke a part down."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        ends: set[asyncio.Future[Any]] = {stopping, *failures}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for failure in failures:
            if failure.done() and (error := failure.exception()) is not None:
                raise RemitError(f"stopped, because a part broke down: {error}") from error
    finally:
        stopping.cancel()


def _welcome(control_plane: ControlPlane, kubeconfig: Path | None, metrics_port: int) -> None:
    where = kubeconfig or control_plane.kubeconfig
    typer.echo(
        f"Remit serves {control_plane.url} (metrics on port {metrics_port}). In another terminal:\n"
        "\n"
        f"  export KUBECONFIG={where.absolute()}\n"
        "  kubectl get remit -A\n"
        "  remit run -- echo hello        # denied until a CommandPolicy allows it\n"
        "\n"
        "Ctrl-C stops it.",
    )
    sys.stdout.flush()
