"""Asks a Deployment's operator for something, as `remit.release.requestannotation` takes it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import RequestAnswer
from remit.errors import RemitError
from remit.kube.client import DEPLOYMENTS, Kube
from remit.release.requestannotation import ANNOTATION

_LOOK_SECONDS: Final = 0.2


async def ask(
    kube: Kube,
    deployment: Deployment,
    asked: dict[str, Any],
    look: Callable[[], Awaitable[Deployment]],
    patience: float,
) -> RequestAnswer:
    """Ask, such as for `{"rollback": {"revision": 3}}`, and wait for what status says to it; `look` gets it.

    It is asked of the `deployment` that was read, and not of another one that has its name by now. Raises `RemitError`
    where no operator takes it within `patience` seconds, and `ApiError`.
    """
    metadata = deployment.metadata
    request = secrets.token_hex(6)
    text = orjson.dumps({**asked, "id": request}).decode()
    body = {"metadata": {"uid": metadata.uid, "annotations": {ANNOTATION: text}}}
    await kube.patch(DEPLOYMENTS, metadata.namespace, metadata.name, body)
    try:
        async with asyncio.timeout(patience):
            while True:
                answer = (await look()).status.request
                if answer is not None and answer.id == request:
                    return answer
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise RemitError(
            f"no operator has taken the request within {patience:g} s; it stays until one does, or until you"
            f" remove it: kubectl annotate deployments.remit.dev/{metadata.name} {ANNOTATION}-"
        ) from None
