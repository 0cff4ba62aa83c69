"""Whether this cluster keeps what a NetworkPolicy promises. Nothing tells, so it is tried."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from remit.backends.base import AttemptRequest, Command
from remit.backends.kubernetes.launcher import PATH
from remit.backends.kubernetes.manifests import until_held
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import RemitError
from remit.sandbox import Confinement, Limits

log = structlog.get_logger(__name__)
_HOLDS_SECONDS: Final = 3600.0
_DOES_NOT_SECONDS: Final = 300.0
_TRY_SECONDS: Final = 120.0
_CONNECTED, _REFUSED = 0, 1
"""What `launch -p` exits with where it could try."""
_LATE_SECONDS: Final = 8
"""A network plugin may need a moment until it knows of a new pod."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`holds`: whether a pod without a network has none; `why`, for people, where that is not so. `tried`: whether that
    says anything beyond one image."""

    holds: bool
    why: str = ""
    tried: bool = True


@dataclass(slots=True)
class _Place:
    """The knowledge about a namespace, from pods of `image`."""

    asking: asyncio.Lock
    verdict: Verdict = field(default_factory=lambda: Verdict(False))
    image: str = ""
    until: float = 0.0


class Isolation:
    """Asks by two pods of the attempt's own image: one that may connect to the API server, and must be able to for the
    other one to mean anything, and one with `network: none`, which must not. The answer holds for a while, and for the
    namespace: another one may have NetworkPolicies that let more through.

    `run` runs one attempt of no task, in the namespace that is asked about.
    """

    def __init__(self, run: Callable[[AttemptRequest, str], Awaitable[Outcome]]) -> None:
        self._run = run
        self._places: dict[str, _Place] = {}

    async def verdict(self, namespace: str, image: str) -> Verdict:
        """Raises nothing: what could not be tried does not hold."""
        clock = asyncio.get_running_loop().time
        if namespace not in self._places:
            self._places = {name: each for name, each in self._places.items() if each.until > clock() or _busy(each)}
        place = self._places.setdefault(namespace, _Place(asyncio.Lock()))
        async with place.asking:
            if clock() >= place.until or not (place.verdict.tried or place.image == image):
                verdict = place.verdict = await self._tried(namespace, image)
                place.image, place.until = image, clock() + (_HOLDS_SECONDS if verdict.holds else _DOES_NOT_SECONDS)
                holds, why = verdict.holds, verdict.why
                log.info("tried whether NetworkPolicies are enforced", namespace=namespace, holds=holds, why=why)
            return place.verdict

    async def _tried(self, namespace: str, image: str) -> Verdict:
        try:
            connected, said = await self._connects(namespace, image, "host")
            if not connected:
                return Verdict(
                    False, f"it cannot be told whether it does: a pod that may connect could not ({said})", tried=False
                )
            connected, said = await self._connects(namespace, image, "none")
            if not connected:
                return Verdict(True)
        except RemitError as error:
            return Verdict(False, f"it cannot be told whether it does: {error}", tried=False)
        return Verdict(False, "a pod that a NetworkPolicy allows no connection could connect")

    async def _connects(self, namespace: str, image: str, network: str) -> tuple[bool, str]:
        request = AttemptRequest(
            id=f"probe-{secrets.token_hex(8)}",
            command=Command((PATH, *([] if network == "host" else until_held(_LATE_SECONDS)), "-p"), PATH),
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


def _busy(place: _Place) -> bool:
    """Whether somebody asks, or is about to."""
    return place.asking.locked()
