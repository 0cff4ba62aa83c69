"""Health checks that are a command, on the operator's host: each one confined as the instance that it is about."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from dataclasses import replace

from remit.backends.base import AttemptRequest, Backend, Stream
from remit.backends.outcome import ExitReason
from remit.errors import DeploymentError
from remit.telemetry.logs import escape
from remit.telemetry.redact import Redactor

_KEPT = 4096
_NOT_MADE = frozenset(
    {ExitReason.BACKEND_ERROR, ExitReason.INTERNAL_ERROR, ExitReason.INTERRUPTED, ExitReason.SANDBOX_UNAVAILABLE}
)
"""How a command ends that says nothing of the instance."""


async def run_check(backend: Backend, request: AttemptRequest, secrets: Iterable[str]) -> str:
    """Why it is not healthy; empty where the command ended with 0. `secrets` are not shown. Raises RemitError where the
    command cannot run."""
    said = _LastWords()
    # A check that was interrupted may still be ending.
    request = replace(request, id=f"{request.id}-{uuid.uuid4().hex[:8]}")
    outcome = await backend.run(request, said, cancel=asyncio.Event())
    if outcome.exit_code == 0:
        return ""
    match outcome.reason:
        case ExitReason.EXIT_CODE:
            why = f"exit code {outcome.exit_code}"
        case ExitReason.TIMED_OUT:
            why = f"still running after {request.timeout_seconds:g} s"
        case reason if reason in _NOT_MADE:
            raise DeploymentError(outcome.message, reason="CheckNotMade", retryable=True)
        case _:
            why = outcome.message
    words = Redactor(secrets).redact(said.line())
    return f"{' '.join(request.command.argv[:1])}: {why}" + (f": {escape(words)}" if words else "")


class _LastWords:
    """The end of both output streams, in the order of arrival."""

    def __init__(self) -> None:
        self._end = b""

    def write(self, stream: Stream, chunk: bytes) -> None:
        self._end = (self._end + chunk)[-_KEPT:]

    def line(self) -> str:
        return self._end.decode(errors="replace").strip().rpartition("\n")[2]
