"""Removes what was made for an attempt, and nothing that only has its names: anybody can guess these."""

from __future__ import annotations

import contextlib

import structlog

from remit.api.endpoint import Resource
from remit.backends.base import AttemptRequest
from remit.backends.kubernetes.ensuring import read
from remit.backends.kubernetes.fileparts import MOST_PARTS, part_name, parts
from remit.backends.kubernetes.gatewaymanifests import beside_job
from remit.backends.kubernetes.manifests import Secrets, belongs_to, is_of_attempt, job_name
from remit.errors import ApiError
from remit.kube.client import JOBS, SECRETS, Kube

log = structlog.get_logger(__name__)


async def discard_of_attempt(kube: Kube, namespace: str, request: AttemptRequest) -> bool:
    """Only what says that it belongs to the task. Whether nothing of it is left."""
    clean, own = True, job_name(request.id)
    objects = [(JOBS, own), *((SECRETS, part.name) for each in parts(request, own).values() for part in each)]
    restricted = request.confinement.network == "restricted"
    objects += [(SECRETS, own)] if restricted or Secrets.of(request).data else []
    objects += beside_job(own) if restricted else []
    for resource, name in objects:
        try:
            found = await read(kube, resource, namespace, name)
            if found is not None and (request.task is None or belongs_to(found, request.task.uid)):
                await kube.discard(resource, namespace, name, uid=found["metadata"]["uid"])
        except ApiError as error:
            clean = False
            log.info("what is left of an attempt stays for now", name=name, reason=str(error))
    return clean


async def discard_of_job(kube: Kube, namespace: str, job: str) -> None:
    """Delete what is named after an attempt's Job, which is gone. What cannot be removed goes with the task."""
    with contextlib.suppress(ApiError):
        await _discard_own(kube, SECRETS, namespace, job, job)
    with contextlib.suppress(ApiError):
        for number in range(MOST_PARTS):  # until `_discard_own` raises because the part does not exist
            await _discard_own(kube, SECRETS, namespace, part_name(job, number), job)
    for resource, name in beside_job(job):
        with contextlib.suppress(ApiError):
            await _discard_own(kube, resource, namespace, name, name)


async def _discard_own(kube: Kube, resource: Resource, namespace: str, name: str, job: str) -> None:
    """Delete the object if it belongs to the attempt, or the gateway, with that Job. Raises `ApiError`."""
    found = await kube.get(resource, namespace, name)
    if is_of_attempt(found, job):
        await kube.discard(resource, namespace, name, uid=found["metadata"]["uid"])
