"""The process of `remit up` that is the operator."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog

from remit.api.definitions import crds
from remit.cli.serve import operate
from remit.cli.supervisor.channel import Message
from remit.cli.supervisor.service import Supervised
from remit.controllers.operator import Operator
from remit.controllers.settings import Settings
from remit.errors import ApiError
from remit.execution.artifacts.s3.location import S3Location
from remit.kube.access import Access
from remit.kube.client import CRDS, NAMESPACES, Kube
from remit.kube.kubeconfig import merge
from remit.telemetry.redact import Redactor

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5
_CONFLICT = 409


async def serve(settings: Message, redactor: Redactor, supervised: Supervised) -> None:
    """Run until told to stop, on the control plane of the kubeconfig. Raises `RemitError`."""
    kubeconfig = Path(settings["kubeconfig"])
    if settings["merge_into"]:
        merge(kubeconfig, Path(settings["merge_into"]))
    chosen = settings["operator"]
    chosen["state_dir"] = Path(chosen["state_dir"])
    if chosen.get("metrics_token_file") is not None:
        chosen["metrics_token_file"] = Path(chosen["metrics_token_file"])
    chosen["notifications"] = Path(chosen["notifications"]) if chosen["notifications"] else None
    if chosen["artifact_store"]:
        chosen["artifact_store"] = S3Location.of(chosen["artifact_store"])
    chosen["read_only_paths"] = tuple(map(Path, chosen["read_only_paths"]))

    def started(operator: Operator) -> None:
        supervised.ready(metrics_port=operator.health.port)

    with supervised.stop_requested() as stop:
        access = await Access.load(kubeconfig)
        ready = asyncio.ensure_future(_install(access, chosen["operator_namespace"]))
        await _first(ready, stop)
        if not stop.is_set():
            # The lock on the state directory ensures that only one operator works here, so no leader election is
            # needed.
            await operate(access, Settings(leader_election=False, **chosen), redactor, stop, started)


async def _first(work: asyncio.Future[None], stop: asyncio.Event) -> None:
    """Wait for `work` or `stop`, and cancel the work if it is not done."""
    stopping = asyncio.ensure_future(stop.wait())
    ends: set[asyncio.Future[Any]] = {work, stopping}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if work.done():
        work.result()
    else:
        work.cancel()


async def _install(access: Access, operator_namespace: str) -> None:
    """The kinds, and the namespace that policies for everyone live in. Waits for a control plane that is away."""
    told = False
    while True:
        try:
            async with Kube(access) as kube:
                await _apply(kube, operator_namespace)
        except ApiError as error:
            if not error.retryable or error.reason == "CertificateNotTrusted":
                raise
            if not told:
                log.warning("waiting for the control plane", reason=str(error))
            told = True
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _apply(kube: Kube, operator_namespace: str) -> None:
    for definition in crds():
        await kube.apply(CRDS, None, definition["metadata"]["name"], definition, manager="remit-up", force=True)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": operator_namespace}}
    try:
        await kube.create(NAMESPACES, None, namespace)
    except ApiError as error:
        if error.status != _CONFLICT:
            raise
