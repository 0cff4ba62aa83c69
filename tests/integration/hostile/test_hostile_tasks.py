"""Tasks, commands and bodies that try to get more than a policy gives, under the real operator and API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from remit.errors import ApiError
from remit.kube.client import CONFIG_MAPS, POLICIES, TASKS, Object
from remit.operations.command import look_up
from remit.policy import Limits, Request, canonical, decide
from remit.policy.testing import parse_policies
from remit.sandbox import Layer, probe_host
from remit.telemetry import escape

from . import bodies, commands_starter, tasks_smuggling
from .case import Body, Command, Task
from .conftest import World

STARTER = Path(__file__).parents[3] / "manifests" / "examples" / "00-starter-policy.yaml"


@pytest.mark.parametrize("case", tasks_smuggling.CASES, ids=str)
async def test_task(case: Task, world: World) -> None:
    policy = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy", "metadata": {"name": "p"}}
    await world.kube.create(POLICIES, "default", {**policy, "spec": case.policy})
    for name, data in {"steering": {"LD_PRELOAD": "/run/x"}, "harmless": {"AUDIT": "x"}}.items():
        about = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        await world.kube.create(CONFIG_MAPS, "default", {**about, "data": data})
    async with world.operator():
        attack = await world.finished(await world.task(**case.spec))
        honest = await world.finished(await world.task(**case.honest))
    reasons = [status["conditions"][0]["reason"] for status in (attack, honest)]
    assert attack["phase"] != "Succeeded"
    assert not attack.get("output", {}).get("stdoutTail")
    if reasons[1] == "SandboxUnavailable":  # nothing can be run here at all
        assert not probe_host().abilities[Layer.NAMESPACES].available
        assert reasons[0] in {case.reason, "SandboxUnavailable"}
    else:
        assert reasons == [case.reason, "Completed"], (attack["message"], honest["message"])


@pytest.mark.parametrize("case", commands_starter.CASES, ids=str)
def test_command(case: Command) -> None:
    (starter,) = parse_policies(STARTER.read_text())

    def asked(argv: tuple[str, ...]) -> Request:
        return Request(namespace=starter.namespace, command=look_up(list(argv)), limits=Limits())

    for argv in case.attacks:
        decision = decide(asked(argv), [starter])
        assert not decision.allowed, canonical(argv)
        assert decision.reason == case.reason, decision.message
        assert escape(decision.message) == decision.message
    verdict = decide(asked(case.honest), [starter])
    assert verdict.allowed or verdict.reason == "ExecutableNotFound", verdict.message


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
@pytest.mark.parametrize("case", bodies.CASES, ids=str)
async def test_body(case: Body, world: World) -> None:
    body = case.body()
    with pytest.raises(ApiError) as refusal:
        await send(world, body)
    assert refusal.value.status in case.codes, refusal.value
    assert await world.kube.list(TASKS, "default") == []
    await send(world, bodies.task())


async def send(world: World, body: dict[str, Any] | bytes) -> Object:
    content = orjson.Fragment(body) if isinstance(body, bytes) else body
    return await world.kube.request("POST", TASKS.path("default"), params={"fieldValidation": "Strict"}, body=content)
