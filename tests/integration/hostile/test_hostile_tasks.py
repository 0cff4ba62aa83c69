"""Runs hostile tasks, commands and bodies under the real operator and API server."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from remit.errors import ApiError
from remit.kube.client import CONFIG_MAPS, NAMESPACES, POLICIES, TASKS, Object, Resource
from remit.operations.command import look_up
from remit.policy.argv import canonical
from remit.policy.deciding import decide
from remit.policy.limits import Limits
from remit.policy.request import PolicyRequest
from remit.policy.testing import parse_policies
from remit.sandbox import Layer, probe_host
from remit.telemetry.logs import escape

from ..operator.conftest import PATIENCE, truth
from . import bodies, commands_starter, tasks_smuggling
from .case import Body, Command, Task
from .conftest import World, new_world

pytestmark = pytest.mark.no_cover

VERSION = "remit.dev/v1alpha1"
STARTER = Path(__file__).parents[3] / "manifests" / "examples" / "00-starter-policy.yaml"


@dataclass(frozen=True)
class Ends:
    """The statuses of a case's two tasks."""

    attack: dict[str, Any]
    honest: dict[str, Any]


@pytest.fixture(scope="module")
def ends(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ends]:
    """Provides the outcomes of the tasks of each case. One operator runs them all, each case in a namespace of its
    own."""
    return asyncio.run(run_all(installed, tmp_path_factory.mktemp("tasks")))


async def run_all(installed: Path, folder: Path) -> dict[str, Ends]:
    spaces = {f"case-{number}": case for number, case in enumerate(tasks_smuggling.CASES)}
    async with new_world(installed, folder) as world:
        for namespace, case in spaces.items():
            await create_case(world, namespace, case)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        async with world.operator():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while len(found) < 2 * len(spaces):
                        await asyncio.sleep(0.1)
                        found = await finished(world)
        late = {(namespace, name) for namespace in spaces for name in ("attack", "honest")} - found.keys()
        assert not late, f"these never finished: {late}"
    return {
        case.name: Ends(found[namespace, "attack"], found[namespace, "honest"]) for namespace, case in spaces.items()
    }


async def create_case(world: World, namespace: str, case: Task) -> None:
    async def create(resource: Resource, kind: str, name: str, *, version: str = VERSION, **fields: Any) -> None:
        space = namespace if resource.namespaced else None
        about = {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
        await world.kube.create(resource, space, {**about, **fields})

    await create(NAMESPACES, "Namespace", namespace, version="v1")
    await create(POLICIES, "CommandPolicy", "p", spec=case.policy)
    await create(CONFIG_MAPS, "ConfigMap", "steering", version="v1", data={"LD_PRELOAD": "/run/x"})
    await create(CONFIG_MAPS, "ConfigMap", "harmless", version="v1", data={"AUDIT": "x"})
    await create(TASKS, "ExecutionTask", "attack", spec=case.spec)
    await create(TASKS, "ExecutionTask", "honest", spec=case.honest)


async def finished(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the statuses of finished tasks, by namespace and name."""
    found = {(task["metadata"]["namespace"], task["metadata"]["name"]): task for task in await world.kube.list(TASKS)}
    statuses = {key: task.get("status", {}) for key, task in found.items()}
    return {key: status for key, status in statuses.items() if truth(status, "Finished") == "True"}


@pytest.mark.parametrize("case", tasks_smuggling.CASES, ids=str)
def test_task(case: Task, ends: dict[str, Ends]) -> None:
    attack, honest = ends[case.name].attack, ends[case.name].honest
    reasons = [status["conditions"][0]["reason"] for status in (attack, honest)]
    assert attack["phase"] != "Succeeded"
    assert not attack.get("output", {}).get("stdoutTail")
    if reasons[1] == "SandboxUnavailable":  # this host cannot run any task
        assert not probe_host().abilities[Layer.NAMESPACES].available
        assert reasons[0] in {case.reason, "SandboxUnavailable"}
    else:
        assert reasons == [case.reason, "Completed"], (attack["message"], honest["message"])


@pytest.mark.parametrize("case", commands_starter.CASES, ids=str)
def test_command(case: Command) -> None:
    (starter,) = parse_policies(STARTER.read_text())

    def asked(argv: tuple[str, ...]) -> PolicyRequest:
        return PolicyRequest(namespace=starter.namespace, command=look_up(list(argv)), limits=Limits())

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
