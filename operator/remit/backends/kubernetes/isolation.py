"""Whether this cluster keeps what a NetworkPolicy promises. Nothing tells, so it is tried."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from remit.backends.base import AttemptRequest, Command
from remit.backends.kubernetes.launcher import PATH
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import RemitError
from remit.sandbox import Confinement, Limits

log = structlog.get_logger(__name__)
_HOLDS_SECONDS: Final = 3600.0
_DOES_NOT_SECONDS: Final = 300.0
_TRY_SECONDS: Final = 120.0
_CONNECTED, _REFUSED = 0, 1
"""What `launch -p` exits with where it could try."""
_TRIES: Final = 3
"""Of a connection that should fail: a network plugin may need a moment until it knows of a new pod."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`holds`: whether a pod without a network has none; `why`, for people, where that is not so."""

    holds: bool
    why: str = ""


class Isolation:
    """Asks by two pods of the attempt's own image: one that may connect to the API server, and must be able to for the
    other one to mean anything, and one with `network: none`, which must not. The answer holds for a while.

    `run` runs one attempt of no task, in the namespace that is asked about.
    """

    def __init__(self, run: Callable[[AttemptRequest, str], Awaitable[Outcome]]) -> None:
        self._run = run
        self._asking = asyncio.Lock()
        self._verdict = Verdict(False)
        self._until = 0.0

    async def verdict(self, namespace: str, image: str) -> Verdict:
        """Raises nothing: what could not be tried does not hold."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now >= self._until:
                self._verdict = await self._tried(namespace, image)
                seconds = _HOLDS_SECONDS if self._verdict.holds else _DOES_NOT_SECONDS
                self._until = asyncio.get_running_loop().time() + seconds
                log.info("tried whether NetworkPolicies are enforced", holds=self._verdict.holds, why=self._verdict.why)
            return self._verdict

    async def _tried(self, namespace: str, image: str) -> Verdict:
        try:
            connected, said = await self._connects(namespace, image, "host")
            if not connected:
                return Verdict(False, f"it cannot be told whether it does: a pod that may connect could not ({said})")
            for _ in range(_TRIES):
                connected, said = await self._connects(namespace, image, "none")
                if not connected:
                    return Verdict(True)
        except RemitError as error:
            return Verdict(False, f"it cannot be told whether it does: {error}")
        return Verdict(False, "a pod that a NetworkPolicy allows no connection could connect")

    async def _connects(self, namespace: str, image: str, network: str) -> tuple[bool, str]:
        request = AttemptRequest(
            id=f"probe-{secrets.token_hex(8)}",
            command=Command((PATH, "-p"), PATH),
            confinement=Confinement(
                limits=Limits(memory_bytes=64 << 20, disk_bytes=1 << 20),
                network="host" if network == "host" else "none",
            ),
            timeout_seconds=_TRY_SECONDS,
            grace_seconds=0,
            image=image,
        )
        outcome = await self._run(request, namespace)
        ran = outcome.reason in {ExitReason.COMPLETED, ExitReason.EXIT_CODE}
        if not ran or outcome.exit_code not in {_CONNECTED, _REFUSED}:
            raise RemitError(f"the pod that tries it did not run: {outcome.message}")
        return outcome.exit_code == _CONNECTED, outcome.message
