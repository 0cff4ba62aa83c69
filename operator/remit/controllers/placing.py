"""Chooses the backend of an operator that was not told one: Jobs if the API server runs Jobs."""

from __future__ import annotations

from remit.api.executiontask import BackendName
from remit.backends.docker.engine import OFF
from remit.controllers.settings import Settings
from remit.errors import ApiError
from remit.kube.client import Kube

_NOT_FOUND = 404
BESIDE_THE_OPERATOR = frozenset({"process", "file"})
"""Operations on the operator's own host, which are not performed where its backend `process` is not: in a pod."""


async def backends(kube: Kube, settings: Settings) -> tuple[BackendName, ...]:
    """Returns the configured backends, or else the available ones, the default first. Raises `ApiError`.

    In a pod, nothing runs beside the operator unless it is configured, because a task could stop the operator and with
    it every other task.
    """
    if settings.backends:
        return settings.backends
    containers: tuple[BackendName, ...] = () if settings.docker_host == OFF else ("docker",)
    beside: tuple[BackendName, ...] = () if settings.in_pod else ("process",)
    if await _serves_jobs(kube):
        return ("kubernetes", *beside, *containers)
    return ("process", *containers)


async def _serves_jobs(kube: Kube) -> bool:
    try:
        await kube.request("GET", "/apis/batch/v1")
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        return False
    return True
