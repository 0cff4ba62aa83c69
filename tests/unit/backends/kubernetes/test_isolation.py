"""What follows from a pod that tries to connect, and from one that could not even try."""

from __future__ import annotations

import pytest

from remit.backends.base import AttemptRequest
from remit.backends.kubernetes.isolation import Isolation
from remit.backends.outcome import ExitReason, Outcome


def exited(code: int) -> Outcome:
    return Outcome(ExitReason.EXIT_CODE if code else ExitReason.COMPLETED, f"exited with code {code}", code)


async def holds(with_network: int, without: int) -> bool:
    async def run(request: AttemptRequest, namespace: str) -> Outcome:
        return exited(without if request.confinement.network == "none" else with_network)

    return (await Isolation(run).verdict("team", "image:1")).holds


async def test_it_holds_where_only_the_pod_without_a_network_cannot_connect() -> None:
    assert await holds(with_network=0, without=1)
    assert not await holds(with_network=0, without=0)
    assert not await holds(with_network=1, without=1)


@pytest.mark.parametrize("code", [2, 126, 137])
async def test_who_could_not_try_has_not_shown_that_it_holds(code: int) -> None:
    assert not await holds(with_network=0, without=code)
    assert not await holds(with_network=code, without=1)
