"""Tests liveness checks: which instances are restarted, and which are not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from remit.api.deployment import LivenessCheck
from remit.errors import DeploymentError
from remit.release.targets.liveness import Due, Liveness

SPEC = LivenessCheck.model_validate({"tcp": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1})
ONCE_AN_HOUR = SPEC.model_copy(update={"period_seconds": 3600})
PATIENCE = 60


@dataclass
class Instance:
    """An instance whose responses and restarts the test controls."""

    says: str = ""
    cannot: bool = False
    restarts: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(self) -> str:
        self.asked.set()
        if self.cannot:
            raise DeploymentError("no policy allows it", reason="NotAllowed")
        return self.says

    async def restart(self, why: str) -> None:
        self.restarts.append(why)
        self.begun.set()
        await self.over.wait()
        raise DeploymentError("the engine is away", reason="Away", retryable=True)

    def due(self, spec: LivenessCheck = SPEC) -> dict[str, Due]:
        return {"run": Due(spec, self.check, self.restart)}


async def test_one_that_fails_is_restarted_once_and_again_where_that_failed() -> None:
    failed, instance = asyncio.Event(), Instance("it hangs")
    liveness = Liveness(failed.set)
    async with asyncio.timeout(PATIENCE):
        await liveness.have(instance.due())
        await failed.wait()
        for _ in range(2):
            await liveness.have(instance.due())
            await instance.begun.wait()
        assert instance.restarts == ["its liveness check failed: it hangs"]
        instance.over.set()
        while len(instance.restarts) < 2:
            await liveness.have(instance.due())
            await asyncio.sleep(0.01)
        await liveness.end()


async def test_an_old_verdict_restarts_nothing() -> None:
    """All instances of a host that was unreachable until now have failed."""
    failed, instance = asyncio.Event(), Instance("no route to host")
    liveness = Liveness(failed.set)
    async with asyncio.timeout(PATIENCE):
        await liveness.have(instance.due())
        await failed.wait()
        instance.says = ""
        instance.asked.clear()
        await liveness.have(instance.due())
        await instance.asked.wait()
        await liveness.end()
    assert instance.restarts == []


async def test_one_that_cannot_be_checked_is_left_alone() -> None:
    instance = Instance(cannot=True)
    liveness = Liveness(pytest.fail)
    async with asyncio.timeout(PATIENCE):
        for _ in range(2):
            instance.asked.clear()
            await liveness.have(instance.due())
            await instance.asked.wait()
            await liveness.have({})
    await liveness.end()
    assert instance.restarts == []


async def test_a_look_waits_for_no_liveness_check() -> None:
    instance = Instance("not yet")
    liveness = Liveness(lambda: None)
    async with asyncio.timeout(PATIENCE):
        await liveness.have(instance.due(ONCE_AN_HOUR))
        await instance.asked.wait()
        await liveness.have({})
    await liveness.end()
    assert instance.restarts == []
