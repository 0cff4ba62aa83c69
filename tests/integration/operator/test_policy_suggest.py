"""Tests policies that are suggested from what a real operator denied or audited, under the operator that they are
applied to."""

from __future__ import annotations

import asyncio
import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dockers import LEAKING, sdk_leaves_sockets  # noqa: F401
from remit.cli.connect import connected
from remit.describe import observedruns, policyyaml
from remit.errors import RemitError
from remit.kube.client import CONFIG_MAPS, DEPLOYMENTS, POLICIES, SECRETS, TASKS
from remit.policy.suggestion import Options, Suggestion
from remit.telemetry.trail import trail_of

from .conftest import World, truth
from .edges import eventually
from .test_egress import Server, egress, fetched, server  # noqa: F401
from .test_release_reach import create, listening, says

SECRET = "correct-horse-battery"


async def suggested(
    world: World, task: str | None = None, trail: bool = True, deployment: str | None = None, **options: Any
) -> Suggestion:
    kubeconfig, state = Path(world.control_plane.kubeconfig), world.settings.state_dir
    wanted = observedruns.Wanted(None, task, options.get("labels", {}), deployment)
    async with connected(kubeconfig, None, "default", state) as connection:
        where = trail_of([state]) if trail else None
        namespace = world.settings.operator_namespace
        return (await observedruns.suggested(connection, wanted, namespace, where, Options(**options)))[0]


async def printed(world: World, task: str) -> subprocess.CompletedProcess[str]:
    """Returns what `remit policy suggest --task` prints."""
    where = ["--kubeconfig", str(world.control_plane.kubeconfig), "-n", "default"]
    where += ["--operator-namespace", world.settings.operator_namespace, "--state-dir", str(world.settings.state_dir)]
    command = [sys.executable, "-m", "remit.cli", "policy", "suggest", "--task", task, *where]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    return await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=60)


async def applied(world: World, suggestion: Suggestion) -> None:
    for policy in suggestion.policies:
        await world.kube.create(POLICIES, "default", policy.object)
    for policy in suggestion.policies:
        await world.until(policy.name, lambda status: truth(status, "Ready") == "True", POLICIES)


async def again(world: World, name: str) -> dict[str, Any]:
    """Creates the same task once more, and returns its final status."""
    spec = (await world.get(name))["spec"]
    return await world.finished(await world.task(**spec))


async def referred(world: World) -> None:
    """Creates the objects that the tasks refer to."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": SECRET}}
    await world.kube.create(SECRETS, "default", secret)
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"MODE": "x", "LANG": "C"}}
    await world.kube.create(CONFIG_MAPS, "default", data)


PASSWORD = {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}


async def test_from_default_deny_to_a_policy_that_fits(world: World) -> None:
    await referred(world)
    async with world.operator():
        names = [
            await world.task("echo", "a b", "c*"),
            await world.task("printenv", "MODE", envFrom=[{"configMapRef": {"name": "app"}}], env=[PASSWORD]),
            await world.task("true", resources={"memory": "64Mi"}, timeoutSeconds=900, network="host"),
            await world.task(script={"interpreter": "sh", "source": "exit 0\n"}),
            await world.task(file={"operation": "stat", "path": "/etc/hostname"}),
        ]
        for name in names:
            status = await world.finished(name)
            assert status["phase"] == "Denied"
            advice = f"; a policy that allows it: remit policy suggest -n default --task {name}"
            assert status["message"].endswith(advice)
            (event,) = await world.events(name, 1)
            assert event["message"].endswith(advice)
        found = await suggested(world)
        assert not found.left_out
        await applied(world, found)
        assert [(await again(world, name))["phase"] for name in names] == ["Succeeded"] * 5
        neighbours = [
            await world.task("echo", "a b", "cc"),
            await world.task("printenv", "MODE", env=[{"name": "OTHER", "value": "x"}]),
            await world.task("echo", "a b", "c*", network="host"),
            await world.task("true", network="host", timeoutSeconds=901),
            await world.task(file={"operation": "read", "path": "/etc/hostname"}),
            await world.task(script={"interpreter": "sh", "source": "exit 0\n\n"}),
        ]
        assert [(await world.finished(name))["phase"] for name in neighbours] == ["Denied"] * 6
        nothing = await suggested(world, names[0])
        assert (nothing.policies, nothing.left_out) == ((), ())


async def test_what_a_policy_in_audit_let_run_is_allowed_once_it_is_enforced(world: World) -> None:
    async with world.operator():
        rules = {"allow": [{"executable": "echo"}], "deny": [{"executable": "false"}]}
        audit = await world.policy(enforcement="Audit", commands=rules)
        names = [await world.task("true"), await world.task("echo", "x")]
        denied = await world.task("false")
        for name in (*names, denied):
            await world.finished(name)
        found = await suggested(world)
        assert [each.run.name for each in found.left_out] == [f"task {denied}"]
        await applied(world, found)
        assert [(await again(world, name))["phase"] for name in names] == ["Succeeded"] * 2
        await world.kube.patch(POLICIES, "default", audit, {"spec": {"enforcement": "Enforce"}})
        await world.until(audit, lambda status: status["observedGeneration"] == 2, POLICIES)
        assert [(await again(world, name))["phase"] for name in names] == ["Succeeded"] * 2
        assert (await again(world, denied))["phase"] == "Denied"


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_secret_is_never_reported(world: World, deleted: bool) -> None:
    await referred(world)
    async with world.operator():
        argument = await world.task("echo", f"--password={SECRET}", env=[PASSWORD])
        program = await world.task("sh", "-c", f"login {SECRET}", env=[PASSWORD])
        for name in (argument, program):
            await world.finished(name)
            if deleted:
                await world.kube.delete(TASKS, "default", name)
                await world.gone(name)
        found = await suggested(world)
        text = policyyaml.as_yaml(found) + policyyaml.as_json(found) + policyyaml.difference(found, {})
        assert SECRET not in text
        assert r"echo, args: [--password=.+]" in text
        assert "an argument holds a secret" in text
        (left,) = found.left_out
        assert program in left.run.name
        assert SECRET not in left.why
        await applied(world, found)
        task = await world.task("echo", f"--password={SECRET}", env=[PASSWORD])
        assert (await world.finished(task))["phase"] == "Succeeded"


async def test_deleted_tasks_are_found_on_the_trail_with_all_that_was_asked(world: World) -> None:
    await referred(world)
    async with world.operator():
        spec: dict[str, Any] = {"envFrom": [{"configMapRef": {"name": "app"}}], "network": "host", "timeoutSeconds": 7}
        names = [
            await world.task("true", labels={"team": "data"}, **spec),
            await world.task("true", labels={"team": "web"}),
            await world.task(file={"operation": "stat", "path": "/etc/hostname"}),
        ]
        for name in names:
            await world.finished(name)
            await world.kube.delete(TASKS, "default", name)
            await world.gone(name)
        assert not (await suggested(world, trail=False)).policies
        found = await suggested(world, labels={"team": "data"})
        (policy,) = found.policies
        assert policy.spec["selector"] == {"matchLabels": {"team": "data"}}
        assert policy.spec["networks"] == ["host"]
        assert policy.spec["commands"]["allow"] == [{"executable": "true", "args": []}]
        assert ["the audit trail does not tell enough" in each.why for each in found.left_out] == [True]


async def test_a_schedule_and_its_runs_are_one(world: World) -> None:
    async with world.operator():
        name = await world.task("true", schedule={"cron": "0 0 1 1 *"})
        await world.phase(name, "Scheduled")
        (policy,) = (await suggested(world, name)).policies
        assert [run.name for run in policy.runs] == [f"schedule {name}"]
        now = datetime.datetime.now(datetime.UTC)
        assert await world.task("true") != name
        wanted = observedruns.Wanted(now + datetime.timedelta(hours=1))
        async with connected(Path(world.control_plane.kubeconfig), None, "default") as connection:
            assert not (await observedruns.tasks_of(connection, wanted)).runs


async def test_what_a_ceiling_forbids_is_said_and_never_suggested(world: World) -> None:
    async with world.operator():
        await world.ceiling("echo")
        fine, forbidden = await world.task("echo"), await world.task("true")
        for name in (fine, forbidden):
            await world.finished(name)
        found = await suggested(world)
        assert [run.name for policy in found.policies for run in policy.runs] == [f"task {fine}"]
        (left,) = found.left_out
        assert left.run.name == f"task {forbidden}"
        assert "CeilingExceeded" in left.why
        assert f"# - task {forbidden}: CeilingExceeded" in policyyaml.as_yaml(found)


async def test_what_does_not_exist_and_what_would_be_a_ceiling_is_refused(world: World) -> None:
    with pytest.raises(RemitError, match="there is no ExecutionTask gone in namespace default"):
        await suggested(world, "gone")
    own = world.settings.operator_namespace
    async with connected(Path(world.control_plane.kubeconfig), None, own) as connection:
        with pytest.raises(RemitError, match="is a ceiling for every namespace"):
            await observedruns.policies_of(connection, own)


async def test_a_task_whose_references_are_missing_is_left_out(world: World) -> None:
    await world.task("true", envFrom=[{"configMapRef": {"name": "nowhere"}}])
    found = await suggested(world)
    assert found.policies == ()
    assert "ConfigMap nowhere is not there" in found.left_out[0].why


@pytest.mark.parametrize("deleted", [False, True])
async def test_what_the_proxy_refused_is_added_to_the_policy_that_allows_the_command(
    world: World,
    server: Server,  # noqa: F811
    deleted: bool,
) -> None:
    async with world.operator():
        name = await world.policy("python3", **egress(1))
        url = f"http://127.0.0.2:{server.http}/"
        assert (await fetched(world, url, server))["phase"] == "Failed"
        (task,) = [each["metadata"]["name"] for each in await world.kube.list(TASKS, "default")]
        if deleted:
            await world.kube.delete(TASKS, "default", task)
            await world.gone(task)
        else:
            unknown = await suggested(world, task, trail=False)
            assert ["lastDenied" in each.why for each in unknown.left_out] == [True]
        found = await suggested(world, task)
        (policy,) = found.policies
        added = {"hosts": ["127.0.0.2"], "ports": [server.http]}
        assert (policy.name, policy.spec["egress"]["allow"][1:], found.left_out) == (name, [added], ())
        changed = await world.kube.patch(POLICIES, "default", name, {"spec": policy.spec})
        generation = changed["metadata"]["generation"]
        await world.until(name, lambda status: status["observedGeneration"] == generation, POLICIES)
        assert (await fetched(world, url, server))["phase"] == "Succeeded"


@LEAKING
async def test_a_deployment_that_was_denied_continues_under_what_is_suggested_for_it(
    world: World, tmp_path: Path
) -> None:
    await referred(world)
    async with listening(tmp_path / "engine.sock") as connections, world.operator():
        target = {"docker": {"host": f"unix://{tmp_path}/engine.sock", "command": ["serve", f"--key={SECRET}"]}}
        await create(world, target, env=[PASSWORD], healthCheck={"command": {"argv": ["look", "now"]}})
        await says(world, "; a policy that allows it: remit policy suggest -n default --task deploy/shop")
        assert not connections
        found = await suggested(world, deployment="shop")
        assert not found.left_out
        assert SECRET not in policyyaml.as_yaml(found)
        done = await printed(world, "deploy/shop")
        assert (done.returncode, done.stdout) == (0, f"{policyyaml.as_yaml(found)}\n"), done.stderr
        for name in ("pods/shop", "deploy/"):
            assert "neither the name of a task nor deploy/NAME" in (await printed(world, name)).stderr
        assert {run.name for each in found.policies for run in each.runs} == {"Deployment shop"}
        assert not (await suggested(world, await world.task("true"))).policies[0].spec.get("images")
        await applied(world, found)

        async def contacted() -> bool:
            return bool(connections)

        await eventually(contacted, "a connection to the engine")
        assert not (await suggested(world, deployment="shop")).policies
        await world.kube.delete(DEPLOYMENTS, "default", "shop")
    with pytest.raises(RemitError, match="nosuch"):
        await suggested(world, deployment="nosuch")
