"""Tests the docker target: real containers on a real engine behind a real proxy."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dockers import docker, make_image, remove_image
from dockerstage import PATIENCE, SERVE, Stage, staged
from remit.backends.docker.engine import Engine
from remit.errors import DeploymentError
from remit.policy.limits import Limits
from remit.release.model import ObservedState
from remit.release.target import Material
from remit.release.targets.docker import network
from remit.release.targets.docker.planning import Owner


@pytest.fixture
async def stage(tmp_path: Path, image: str) -> AsyncIterator[Stage]:
    async with staged(tmp_path, image) as stage:
        yield stage


async def test_both_sides_and_the_preview(stage: Stage) -> None:
    """Each order is given twice and must have the same effect as once."""
    assert await stage.target.observe() == ObservedState()
    await stage.live()
    container, two = stage.inspected("blue")["Id"], stage.revision(2)
    for _ in range(2):
        await stage.live()
        await stage.provision("green", two)
        await stage.target.retire("green")
    assert stage.inspected("blue")["Id"] == container
    await stage.provision("green", two)
    await stage.until(lambda observed: observed.ready(2, "green", 1))
    await stage.target.preview("green")
    assert (await stage.answer(), await stage.answer(stage.preview_port)) == ("v1", "v2")
    await stage.target.switch("green")
    await stage.target.drain("blue")
    await stage.until(lambda observed: observed.blue.connections == 0)
    await stage.target.retire("blue")
    assert (await stage.answer(), stage.containers()) == ("v2", [stage.name("green")])
    observed = await stage.target.observe()
    assert (observed.live, observed.preview, observed.blue.revision, observed.green.healthy) == (
        "green",
        "green",
        None,
        1,
    )
    assert observed.prepared == {1, 2}


async def test_another_operator_finds_all_of_it(stage: Stage) -> None:
    before = await stage.live(replicas=2, material=Material({"VERSION": "v1", "GREETING": " hello"}))
    addresses = {stage.address("blue", index) for index in range(2)}
    await stage.target.close()
    assert await stage.answer() == "v1 hello"
    stage.target = stage.another()
    after = await stage.target.observe()
    assert replace(after, blue=replace(after.blue, requests=before.blue.requests)) == before
    await stage.target.scale("blue", 3)
    await stage.until(lambda observed: observed.ready(1, "blue", 3))
    assert addresses < {stage.address("blue", index) for index in range(3)}
    await stage.target.scale("blue", 1)
    observed = await stage.until(lambda observed: stage.containers() == [stage.name("blue")])
    assert (observed.blue.wanted, observed.blue.started, observed.blue.restarts) == (1, 1, 0)
    assert await stage.answer() == "v1 hello"


async def test_what_a_container_may_do(stage: Stage) -> None:
    """The files exist and no user, including root, can change them; they exist nowhere else; the container has no
    additional rights."""
    secret = Material({"VERSION": "v1"}, {"/run/shop/token": b"canary-secret"}, frozenset({"canary-secret"}))
    await stage.live(material=secret, ports=[{"name": "http", "containerPort": 8080, "published": stage.port}])
    said = await stage.answer(path="/cgi-bin/look")
    assert said.strip().startswith("canary-secret0\n"), said
    assert said.count("Permission denied") == 2, said
    told = stage.inspected("blue")
    assert "canary" not in json.dumps(told)
    host = told["HostConfig"]
    assert (host["Privileged"], host["CapDrop"], host["CapAdd"], host["SecurityOpt"]) == (
        *(False, ["ALL"]),
        *(None, ["no-new-privileges"]),
    )
    assert (host["PortBindings"], host["Binds"]) == ({}, None)
    assert host["NetworkMode"].startswith(f"remit_{stage.owner.namespace}_")
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"], host["IpcMode"]) == ("", "", "", "private")
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, 64 << 20, 500_000_000)
    assert host["PidsLimit"] in {32, 33}
    assert (host["RestartPolicy"]["Name"], told["Config"]["StopTimeout"]) == ("unless-stopped", 1)


async def test_one_that_crashes_is_not_healthy_and_says_why_but_no_secret(stage: Stage) -> None:
    secret = Material({"TOKEN": "canary-secret"}, secrets=frozenset({"canary-secret"}))
    await stage.provision("blue", stage.revision(1, "echo no database for $TOKEN >&2; exit 3", material=secret))
    observed = await stage.until(lambda observed: observed.blue.failed == 1 and observed.blue.restarts >= 1)
    assert (observed.blue.healthy, observed.blue.started) == (0, 1)
    # If the container is observed just after a restart, it runs and fails its check. The message of the check then
    # comes first.
    assert observed.blue.message.startswith("blue-0: ")
    assert observed.blue.message.endswith("exit code 3: no database for [redacted]")


async def test_out_of_memory_is_reported_also_when_it_runs_again(stage: Stage) -> None:
    stage.limits = Limits(memory=16 << 20, pids=32)
    # The container continues after the OOM kill, because the engine may miss a kill that ends the container.
    hungry = "touch /tmp/been; exec 2>/dev/null; tail /dev/zero; sleep 1; exit 137"
    once = f"echo hungry; test -e /tmp/been || {{ {hungry}; }}; exec sleep 600"
    await stage.provision("blue", stage.revision(1, once, ports=[], healthCheck=None))
    observed = await stage.until(lambda observed: observed.blue.restarts == 1 and observed.ready(1, "blue", 1))
    assert observed.blue.message == "blue-0: started again after out of memory: exit code 137: hungry"


async def test_a_command_that_is_not_in_the_image_is_named(stage: Stage) -> None:
    stage.spec = {"command": ["/no/such/program"]}
    await stage.provision("blue", stage.revision(1))
    # For a moment after each restart the engine reports the container as running, without the earlier message.
    await stage.until(
        lambda observed: observed.blue.failed and "/no/such/program failed: No such file" in observed.blue.message
    )


async def test_one_that_fails_its_check_is_not_healthy_and_gives_the_reason(stage: Stage) -> None:
    check = {"http": {"path": "/none", "port": 8080}, "failureThreshold": 1}
    await stage.provision("blue", stage.revision(1, healthCheck=check))
    observed = await stage.until(lambda observed: observed.blue.failed == 1)
    assert (observed.blue.healthy, observed.blue.restarts) == (0, 0)
    assert "answered 404" in observed.blue.message


async def test_a_check_by_a_command(stage: Stage) -> None:
    check = {
        "command": {"argv": ["sh", "-c", "test -e /tmp/well || { echo not well; exit 2; }"]},
        "failureThreshold": 1,
    }
    await stage.provision("blue", stage.revision(1, healthCheck=check))
    observed = await stage.until(lambda observed: observed.blue.failed == 1)
    assert observed.blue.message == "blue-0: the check ended with exit code 2: not well"
    docker("exec", stage.name("blue"), "touch", "/tmp/well")
    await stage.until(lambda observed: observed.ready(1, "blue", 1))


@pytest.mark.parametrize(
    ("how", "ends"),
    [
        ({"http": {"path": "/alive", "port": "http"}}, False),
        ({"command": {"argv": ["sh", "-c", "test -e /tmp/www/alive"]}}, True),
    ],
    ids=["http", "command"],
)
async def test_one_that_hangs_is_restarted_and_counted_as_a_crash(
    stage: Stage, how: dict[str, Any], ends: bool
) -> None:
    """This includes an instance that has to be killed."""
    liveness = {**how, "periodSeconds": 1, "failureThreshold": 2}
    script = f"trap {'exit' if ends else ':'} TERM; mkdir -p /tmp/www; touch /tmp/www/alive; {SERVE}"
    script = script.replace("exec httpd", "httpd").rstrip() + " & while :; do wait; done"
    revision = stage.revision(1, script, healthCheck={"tcp": {"port": "http"}}, livenessCheck=liveness)
    await stage.provision("blue", revision)
    first = await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    assert docker("exec", stage.name("blue"), "busybox", "rm", "/tmp/www/alive").returncode == 0
    observed = await stage.until(lambda observed: observed.ready(1, "blue", 1) and observed.blue.restarts)
    before, after = (each.blue.instances["blue-0"].incarnation for each in (first, observed))
    assert (observed.blue.restarts, after != before) == (1, True)
    assert observed.blue.message.startswith("blue-0: started again after its liveness check failed: ")
    assert stage.inspected("blue")["State"]["Running"]


async def test_what_is_removed_or_stopped_by_hand_comes_back_where_it_was(stage: Stage) -> None:
    await stage.live(replicas=2)
    addresses = [stage.address("blue", index) for index in range(2)]
    docker("rm", "-f", stage.name("blue", 0))
    docker("kill", stage.name("blue", 1))
    await stage.until(lambda observed: observed.ready(1, "blue", 2))
    assert [stage.address("blue", index) for index in range(2)] == addresses
    assert await stage.answer() == "v1"


async def test_an_operator_killed_in_mid_start_leaves_nothing_half_done(stage: Stage) -> None:
    """A container that was created without its files, or that is no longer wanted, is not taken for an instance."""
    await stage.live(replicas=2, material=Material({"VERSION": "v1"}, {"/run/shop/token": b"x"}))
    told = stage.folder / "release" / "told.json"
    wish = json.loads(told.read_bytes())
    labels = stage.inspected("blue", 1)["Config"]["Labels"]
    docker("rm", "-f", stage.name("blue", 1))
    marks = [f"--label={name}={value}" for name, value in labels.items()]
    docker("create", "--name", stage.name("blue", 1), *marks, stage.image, "sleep", "600")
    await stage.until(lambda observed: observed.ready(1, "blue", 2))
    assert stage.inspected("blue", 1)["Config"]["Cmd"][-1] == SERVE
    wish["sides"]["blue"]["wanted"] = 1
    told.write_text(json.dumps(wish))
    await stage.until(lambda observed: stage.containers() == [stage.name("blue", 0)])


async def test_a_container_of_another_user_is_left_alone(stage: Stage) -> None:
    docker("create", "--name", stage.name("blue"), stage.image, "sleep", "600")
    try:
        with pytest.raises(DeploymentError, match="not of this Deployment") as caught:
            await stage.provision("blue", stage.revision(1))
        assert (caught.value.reason, caught.value.retryable) == ("NameTaken", False)
        await stage.target.retire("blue")
        assert stage.inspected("blue")["State"]["Status"] == "created"
    finally:
        docker("rm", "-f", stage.name("blue"))


async def test_a_container_that_only_looks_like_one_of_ours_is_left_alone(stage: Stage) -> None:
    """The author of an image chooses its labels, but not those of a task that runs it."""
    await stage.live()
    labels = {**stage.inspected("blue")["Config"]["Labels"], "remit.dev/task-uid": "other"}
    marks = [f"--label={name}={value}" for name, value in labels.items()]
    docker(
        "run", "-d", "--network=none", "--name", f"{stage.owner.namespace}-other", *marks, stage.image, "sleep", "600"
    )
    try:
        assert (await stage.target.observe()).blue.healthy == 1
        await stage.target.retire("blue")
        assert stage.containers() == [f"{stage.owner.namespace}-other"]
    finally:
        docker("rm", "-f", f"{stage.owner.namespace}-other")


async def test_a_taken_port_is_named_and_what_wanted_it_goes_away(stage: Stage) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", stage.port))
        other.listen()
        with pytest.raises(DeploymentError, match=str(stage.port)):
            await stage.provision("blue", stage.revision(1))
        await stage.target.retire("blue")
        assert (stage.containers(), (await stage.target.observe()).blue.revision) == ([], None)


async def test_names_may_be_as_long_as_names_are(stage: Stage) -> None:
    stage.owner = Owner(f"{stage.owner.namespace}-{'n' * 53}", "d" * 63, stage.owner.uid)
    stage.target = stage.another()
    await stage.live()
    assert await stage.answer() == "v1"


async def test_a_worker_without_ports(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1, ports=[], healthCheck=None))
    check = {"tcp": {"port": 8080}}
    await stage.provision("green", stage.revision(2, ports=[], healthCheck=check))
    await stage.until(lambda observed: observed.ready(1, "blue", 1) and observed.ready(2, "green", 1))


async def test_all_tasks_of_a_namespace_share_a_network(stage: Stage) -> None:
    engine, owners = Engine(), [Owner(stage.owner.namespace, f"shop-{number}", str(number)) for number in range(4)]
    try:
        first = await asyncio.gather(*(network.ensured(engine, owner) for owner in owners))
        then = {(await network.ensured(engine, owner)).name for owner in owners}
        assert len(then) == 1
        assert then <= {each.name for each in first}
        await network.removed(engine, owners[0])
    finally:
        await engine.close()


async def test_a_revision_keeps_its_image(stage: Stage, image: str) -> None:
    """A tag that moves, and one that is removed, have no effect; an image that is pulled again must be the same."""
    never = {"image": "remit-test:none", "pullPolicy": "Never"}
    with pytest.raises(DeploymentError, match="pullPolicy is Never") as caught:
        await stage.target.prepare(stage.revision(9, artifact=never))
    assert (caught.value.reason, caught.value.retryable) == ("ImageNotFound", False)
    tag = f"remit-test:{uuid.uuid4().hex}"
    docker("tag", image, tag)
    one = stage.revision(1, artifact={"image": tag})
    await stage.target.prepare(one)
    docker("rmi", tag)
    other = make_image(changes=["ENV OTHER=1"])
    docker("tag", other, tag)
    try:
        await stage.provision("blue", one)
        await stage.until(lambda observed: observed.ready(1, "blue", 1))
        await stage.target.retire("blue")
        docker("rmi", f"{stage.owner.images}:1")
        with pytest.raises(DeploymentError) as caught:
            await stage.target.prepare(one)
        assert (caught.value.reason, caught.value.retryable) == ("ImageChanged", False)
        await stage.target.prepare(stage.revision(2, artifact={"image": tag}))
        assert (await stage.target.observe()).prepared == {2}
        await stage.target.keep({1})
        assert (await stage.target.observe()).prepared == set()
    finally:
        docker("rmi", tag)
        remove_image(other)


async def test_what_both_sides_use(stage: Stage) -> None:
    await stage.live()
    await stage.provision("green", stage.revision(2))
    await stage.until(lambda observed: observed.ready(2, "green", 1))
    first = await stage.target.usage()
    assert set(first) == {"blue", "green"}
    for usage in first.values():
        assert usage.cpu_seconds > 0
        assert 1 << 16 < usage.memory_bytes < 1 << 30
    await stage.target.retire("green")
    then = await stage.target.usage()
    assert set(then) == {"blue"}
    assert then["blue"].cpu_seconds >= first["blue"].cpu_seconds


async def test_an_exit_is_reported_by_the_engine(stage: Stage) -> None:
    observed = await stage.live(healthCheck=None)
    before = observed.blue.instances["blue-0"].incarnation
    stage.changed.clear()
    docker("kill", stage.name("blue"))
    async with asyncio.timeout(PATIENCE):
        while (await stage.target.observe()).blue.instances["blue-0"].incarnation == before:
            await stage.changed.wait()
            stage.changed.clear()


@pytest.mark.parametrize("code", [0, 3])
async def test_only_a_live_side_is_restarted_without_a_limit(stage: Stage, code: int) -> None:
    """If a release fails, no operator may be left to end its instances, so these must not restart without a limit."""
    await stage.live()
    await stage.until(lambda _: stage.inspected("blue")["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped")
    await stage.provision("green", stage.revision(2, f"exit {code}"))
    policy = stage.inspected("green")["HostConfig"]["RestartPolicy"]
    assert policy == {"Name": "on-failure", "MaximumRetryCount": 10}
    observed = await stage.until(lambda seen: seen.green.instances["green-0"].restarts >= 2)
    assert observed.blue.healthy == 1
