"""Tests that requests about an object that was read do not affect a new object with the same name."""

from __future__ import annotations

from typing import Any

import pytest

from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.cli import tasks
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, TASKS
from remit.release.asking import ask
from remit.release.requestannotation import ANNOTATION

from .conftest import World

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "Deployment",
    "metadata": {"name": "site"},
    "spec": {
        "artifact": {"path": "/srv/site"},
        "target": {"process": {"command": ["sh"]}},
        "ports": [{"name": "http", "containerPort": 8080}],
        "healthCheck": {"http": {"port": "http"}},
    },
}


async def test_another_task_of_the_same_name_is_not_cancelled(world: World) -> None:
    body = tasks.for_command(["true"], name="again")
    read = ExecutionTask.parse(await world.kube.create(TASKS, "default", body))
    await world.kube.delete(TASKS, "default", "again")
    await world.kube.create(TASKS, "default", body)
    with pytest.raises(ApiError, match=r"(?i)\buid\b") as refused:
        await tasks.request_cancel(world.kube, read)
    assert refused.value.status in {409, 422}
    now = await world.kube.get(TASKS, "default", "again")
    assert not now["spec"].get("cancel")
    await tasks.request_cancel(world.kube, ExecutionTask.parse(now))
    assert (await world.kube.get(TASKS, "default", "again"))["spec"]["cancel"] is True


async def test_another_deployment_of_the_same_name_is_not_asked(world: World) -> None:
    read = Deployment.parse(await world.kube.create(DEPLOYMENTS, "default", DEPLOYMENT))
    await world.kube.delete(DEPLOYMENTS, "default", "site")
    await world.kube.create(DEPLOYMENTS, "default", DEPLOYMENT)

    async def look() -> Deployment:
        raise AssertionError("nobody was asked, so nobody answers")

    with pytest.raises(ApiError, match=r"(?i)\buid\b"):
        await ask(world.kube, read, {"abort": {}}, look, 1.0)
    now = await world.kube.get(DEPLOYMENTS, "default", "site")
    assert ANNOTATION not in (now["metadata"].get("annotations") or {})
