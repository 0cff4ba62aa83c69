"""Starts the container that holds the network of an attempt, or what that leaves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.backends.docker import pause
from remit.backends.docker.engine import Engine, create
from remit.backends.docker.holding import holding

_TOKEN_BYTES: Final = 16


async def start_holder(
    engine: Engine, name: str, request: AttemptRequest, image: Mapping[str, Any], architecture: str
) -> str:
    """Gives its id. Raises `OperationFailed`; the container, if there is one, is removed by whoever removes the
    attempt."""
    program = f"remit-{secrets.token_hex(_TOKEN_BYTES)}"
    config = holding(request, image, program)
    id_ = await engine.call(lambda client: create(client, name, config))
    packed = pause.archive(architecture, program)
    await engine.call(lambda client: client.put_archive(id_, "/", packed))
    await engine.call(lambda client: client.start(id_))
    return id_
