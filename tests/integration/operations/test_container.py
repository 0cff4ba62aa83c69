"""Tests container operations on a real Docker engine."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from dockers import LEAKING, docker, make_image, needs_docker, remove_image, sdk_leaves_sockets  # noqa: F401
from remit.backends.docker.engine import Engine
from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.execution.operations import execute
from remit.operations.container.executor import ContainerExecutor
from remit.policy.limits import Limits

from .conftest import Desk

ACTIONS = ["run", "start", "stop", "restart", "remove", "logs", "exec", "inspect", "stats", "pull", "list"]
POLICY: dict[str, Any] = {
    "containers": {"operations": ACTIONS},
    "images": {"allow": ["remit-test:*"]},
    "commands": {"allow": [{"executable": "sh"}, {"executable": "sleep"}, {"executable": "env"}]},
    "environment": {"allow": ["A", "TOKEN", "LATER"]},
}


@pytest.fixture
async def desk(image: str) -> AsyncIterator[Desk]:
    executor = ContainerExecutor(Engine())
    yield Desk(executor, [POLICY])
    await executor.close()


@pytest.fixture
def name(image: str) -> Iterator[str]:
    name = f"remit-test-{uuid.uuid4().hex[:12]}"
    yield name
    docker("rm", "-fv", name)


def allowing(**containers: Any) -> dict[str, Any]:
    return {**POLICY, "containers": {"operations": ACTIONS, **containers}}


async def run(desk: Desk, image: str, name: str, *argv: str, **rest: Any) -> dict[str, Any]:
    command = {"argv": list(argv)} if argv else {}
    await desk.do(container={"action": "run", "name": name, "image": image, **command, **rest})
    return orjson.loads(desk.output.stdout)


async def act(desk: Desk, action: str, name: str, **rest: Any) -> bytes:
    await desk.do(container={"action": action, "name": name, **rest})
    return desk.output.stdout


def seen(name: str) -> dict[str, Any]:
    return orjson.loads(docker("inspect", name).stdout)[0]


async def ended(name: str) -> None:
    await asyncio.to_thread(docker, "wait", name)


async def test_the_life_of_a_container(desk: Desk, image: str, name: str) -> None:
    made = await run(desk, image, name, "sh", "-c", "trap exit TERM; sleep 600 & wait")
    assert made["name"] == name
    assert seen(name)["State"]["Running"]
    told = orjson.loads(await act(desk, "inspect", name))
    assert told["Id"] == made["id"]
    await act(desk, "restart", name)
    usage = orjson.loads(await act(desk, "stats", name))
    assert usage["pids"] == 2
    assert usage["memoryBytes"] > 0
    await act(desk, "stop", name)
    assert not seen(name)["State"]["Running"]
    await act(desk, "start", name)
    with pytest.raises(OperationFailed, match="running") as caught:
        await act(desk, "remove", name)
    assert caught.value.reason == "Conflict"
    await act(desk, "stop", name)
    await act(desk, "remove", name)
    assert docker("inspect", name).returncode != 0
    with pytest.raises(OperationFailed) as gone:
        await act(desk, "start", name)
    assert (gone.value.reason, gone.value.retryable) == ("NotFound", False)


async def test_the_defaults_are_safe(desk: Desk, image: str, name: str) -> None:
    desk.limits = Limits(memory=64 << 20, cpu=0.5, pids=32, open_files=100)
    await run(desk, image, name, "sleep", "600")
    host = seen(name)["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["Privileged"]
    assert not host["Binds"]
    assert host["IpcMode"] == "private"
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (64 << 20, 64 << 20, 32)
    assert host["NanoCpus"] == 500_000_000
    await desk.do(container={"action": "exec", "name": name, "argv": ["sh", "-c", "cat /proc/self/status; ulimit -n"]})
    status = desk.output.stdout.decode()
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert status.endswith("\n100\n")


async def test_logs_keep_the_streams_apart(desk: Desk, image: str, name: str) -> None:
    await run(desk, image, name, "sh", "-c", "echo one; echo two; echo wrong >&2")
    await ended(name)
    await act(desk, "logs", name)
    assert (desk.output.stdout, desk.output.stderr) == (b"one\ntwo\n", b"wrong\n")
    await act(desk, "logs", name, tailLines=1)
    assert len((desk.output.stdout + desk.output.stderr).splitlines()) == 1


async def test_a_large_log(desk: Desk, image: str, name: str) -> None:
    await run(desk, image, name, "sh", "-c", f"yes {'x' * 7999} | head -c 5000000")
    await ended(name)
    await act(desk, "logs", name)
    assert len(desk.output.stdout) == 5_000_000


async def test_exec(desk: Desk, image: str, name: str) -> None:
    await run(desk, image, name, "sleep", "600")
    await act(desk, "exec", name, argv=["sh", "-c", 'echo "$A"; echo no >&2'], env=[{"name": "A", "value": "b c"}])
    assert (desk.output.stdout, desk.output.stderr) == (b"b c\n", b"no\n")
    with pytest.raises(OperationFailed, match="code 3") as caught:
        await act(desk, "exec", name, argv=["sh", "-c", "exit 3"])
    assert caught.value.reason == "ExitCode"


async def test_exec_whose_output_comes_with_the_head_of_the_answer(
    desk: Desk, image: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens if the program is faster than the client that reads the response."""
    await run(desk, image, name, "sleep", "600")
    begin, size, late = http.client.HTTPResponse.begin, 20_000, []

    def begin_late(response: Any) -> None:
        connection, deadline = response.fp.raw._sock, time.monotonic() + 60
        while (came := connection.recv(1 << 16, socket.MSG_PEEK)).startswith(b"HTTP/1.1 101"):
            if len(came) > size and b"wrong\n" in came:
                late.append(len(came))
                break
            assert time.monotonic() < deadline, came[:500]
            time.sleep(0.01)
        begin(response)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin_late)
    await act(desk, "exec", name, argv=["sh", "-c", f"echo wrong >&2; yes | head -c {size}"])
    assert len(late) == 1
    assert (desk.output.stdout, desk.output.stderr) == (b"y\n" * (size // 2), b"wrong\n")


async def test_exec_in_a_folder(desk: Desk, image: str, name: str) -> None:
    desk.policies = [allowing(workingDirs=["/data/**"])]
    await run(desk, image, name, "sh", "-c", "cd /data && mkdir in && ln -s /etc out && ln -s in here && sleep 600")
    made = ["sh", "-c", "until [ -e /data/here ]; do sleep 0.1; done; pwd -P"]
    await act(desk, "exec", name, argv=made)
    assert desk.output.stdout == b"/\n"
    for folder, there in (("/data/in", b"/data/in\n"), ("/data/here", b"/data/in\n")):
        await act(desk, "exec", name, argv=["sh", "-c", "pwd -P"], workingDir=folder)
        assert desk.output.stdout == there
    # The path is checked as it is written; links inside the container are followed, as they are for its programs.
    await act(desk, "exec", name, argv=["sh", "-c", "pwd -P"], workingDir="/data/out")
    assert desk.output.stdout == b"/etc\n"
    with pytest.raises(PolicyDenied, match=r"spec\.container\.workingDir"):
        await act(desk, "exec", name, argv=["sh", "-c", "pwd -P"], workingDir="/etc")


@pytest.mark.parametrize("folder", ["/data/none", "/bin/busybox"])
async def test_exec_in_a_folder_that_does_not_exist_runs_nowhere(
    desk: Desk, image: str, name: str, folder: str
) -> None:
    desk.policies = [allowing(workingDirs=["/**"])]
    await run(desk, image, name, "sleep", "600")
    asked = {"action": "exec", "name": name, "argv": ["sh", "-c", "echo x > /tmp/ran"], "workingDir": folder}
    outcome = await desk.attempt(container=asked)
    assert (outcome.reason, outcome.retryable) == ("StartFailed", False)
    assert f"spec.container.workingDir {folder}" in outcome.message
    assert "the folder or the program is not there" in outcome.message
    assert b"directory" in desk.output.stdout
    assert docker("exec", name, "cat", "/tmp/ran").returncode != 0


async def test_a_program_that_was_not_started_is_distinguished_from_one_that_failed(
    desk: Desk, image: str, name: str
) -> None:
    desk.policies = [{**allowing(), "commands": {"allow": [{"executable": "nosuch"}, {"executable": "sh"}]}}]
    await run(desk, image, name, "sh", "-c", "sleep 600")
    with pytest.raises(OperationFailed, match="nosuch was not started") as caught:
        await act(desk, "exec", name, argv=["nosuch"])
    assert (caught.value.reason, caught.value.retryable) == ("StartFailed", False)
    for code in (126, 127):
        with pytest.raises(OperationFailed, match=f"code {code}") as caught:
            await act(desk, "exec", name, argv=["sh", "-c", f"exit {code}"])
        assert caught.value.reason == "ExitCode"


async def test_what_goes_on_in_a_container_is_not_executed_again(desk: Desk, image: str, name: str) -> None:
    """The engine cannot end the program, so a retry would run it a second time in parallel."""
    await run(desk, image, name, "sleep", "600")
    asked = {"action": "exec", "name": name, "argv": ["sh", "-c", "echo x >> /tmp/began; sleep 600"]}
    work = replace(desk.work(container=asked), timeout_seconds=2)
    ended = await execute(desk.executor, work, desk.output, asyncio.Event())
    assert (ended.reason, ended.retryable) == ("Timeout", False)
    assert f"may still be going on in container {name}" in ended.message
    assert docker("exec", name, "cat", "/tmp/began").stdout == b"x\n"


async def test_secrets_go_by_the_environment_and_are_not_reported(desk: Desk, image: str, name: str) -> None:
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    operation = {"action": "run", "name": name, "image": image, "argv": ["env"], "env": env}
    await desk.do({"env[0].valueFrom.secretKeyRef": b"hunter22"}, container=operation)
    await ended(name)
    assert b"TOKEN=hunter22" in await act(desk, "logs", name)
    told = await act(desk, "inspect", name)
    assert b"hunter22" not in told
    assert "TOKEN" in orjson.loads(told)["Config"]["Env"]


async def test_list_returns_only_own_containers(desk: Desk, image: str, name: str) -> None:
    await run(desk, image, name, "sleep", "600")
    other = f"{name}-other"
    try:
        assert docker("run", "-d", "--network=none", "--name", other, image, "/bin/sleep", "600").returncode == 0
        await desk.do(container={"action": "list"})
        assert other.encode() not in desk.output.stdout
        assert name in [orjson.loads(line)["name"] for line in desk.output.stdout.splitlines()]
        desk.policies = [allowing(others=[f"{name}-*"])]
        await desk.do(container={"action": "list"})
        assert {name, other} <= {orjson.loads(line)["name"] for line in desk.output.stdout.splitlines()}
    finally:
        docker("rm", "-f", other)


@pytest.mark.parametrize("action", ["start", "stop", "restart", "remove", "logs", "exec", "inspect", "stats"])
async def test_the_containers_of_others_are_left_alone(desk: Desk, image: str, name: str, action: str) -> None:
    argv = {"argv": ["sh", "-c", "true"]} if action == "exec" else {}
    docker("run", "-d", "--network=none", "--name", name, image, "/bin/sleep", "600")
    with pytest.raises(PolicyDenied, match=r"spec\.containers\.others"):
        await act(desk, action, name, **argv)
    with pytest.raises(PolicyDenied, match=r"spec\.containers\.others"):
        await act(desk, action, seen(name)["Id"][:12], **argv)
    desk.policies = [allowing(others=[f"{name}"])]
    desk.ceilings = [allowing()]
    with pytest.raises(PolicyDenied, match="ceiling"):
        await act(desk, action, name, **argv)
    assert seen(name)["State"]["Running"]


async def test_others_that_a_policy_names(desk: Desk, image: str, name: str) -> None:
    docker("run", "-d", "--network=none", "--name", name, image, "/bin/sleep", "600")
    desk.policies = [allowing(others=["remit-test-*"])]
    await act(desk, "inspect", name)
    docker("rm", "-f", name)
    namespace, attempt = "remit.dev/namespace=ns", "remit.dev/attempt=u-1"
    marks = ["--label", namespace, "--label", attempt, "--label", "remit.dev/task-uid=u"]
    docker("run", "-d", "--network=none", "--name", name, *marks, image, "/bin/sleep", "600")
    with pytest.raises(PolicyDenied, match="attempt"):
        await act(desk, "stop", name)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"privileged": True}, "options.privileged"),
        ({"capabilities": ["SYS_ADMIN"]}, "options.capabilities"),
        ({"devices": ["/dev/fuse"]}, "options.devices"),
        ({"hostNetwork": True}, "options.hostNetwork"),
        ({"hostPid": True}, "options.hostPid"),
        ({"hostIpc": True}, "options.hostIpc"),
        ({"network": "bridge"}, "options.network"),
        ({"network": "host"}, "hostNetwork"),
        ({"ports": [{"containerPort": 80, "hostPort": 8080}]}, "options.ports"),
        ({"user": "0"}, "options.user"),
        ({"restartPolicy": "Always"}, "options.restartPolicy"),
        ({"mounts": [{"source": "/etc", "target": "/x"}]}, "spec.containers.mounts"),
    ],
)
async def test_each_option_must_be_allowed(desk: Desk, options: dict[str, Any], missing: str) -> None:
    decision = desk.decision(container={"action": "run", "image": "remit-test:x", "options": options})
    assert not decision.allowed
    assert missing in decision.message


async def test_options_that_are_allowed(desk: Desk, image: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "file").write_text("seen")
    desk.policies = [allowing(options=["user", "capabilities"], mounts=[f"{tmp_path}/**"])]
    mount = {"source": str(tmp_path / "shown"), "target": "/data"}
    options = {"user": "65534", "capabilities": ["NET_RAW"], "mounts": [mount]}
    await run(desk, image, name, "sh", "-c", "id -u; cat /data/file; touch /data/x; sleep 600", options=options)
    await act(desk, "exec", name, argv=["sh", "-c", "id -u; cat /data/file; touch /data/x || echo read-only"])
    assert desk.output.stdout == b"65534\nseenread-only\n"
    assert seen(name)["HostConfig"]["CapAdd"] in (["NET_RAW"], ["CAP_NET_RAW"])
    detour = {"action": "run", "image": image, "options": {"mounts": [{**mount, "source": f"{tmp_path}/../x"}]}}
    assert "detour" in desk.decision(container=detour).message


async def test_a_denial_names_what_would_be_allowed(desk: Desk, image: str) -> None:
    assert "images.allow" in desk.decision(container={"action": "run", "image": "evil:1"}).message
    assert "images.allow" in desk.decision(container={"action": "pull", "image": "evil:1"}).message
    denied = desk.decision(container={"action": "exec", "name": "xx", "argv": ["rm", "-rf", "/"]})
    assert "no rule of policy ns/p0 allows `rm -rf /`" in denied.message
    desk.policies = [{**POLICY, "containers": {"operations": ["logs"]}}]
    assert "operations has logs" in desk.decision(container={"action": "list"}).message
    allowed = desk.decision(container={"action": "logs", "name": "xx"})
    assert allowed.rule == "containers.operations[0]"


async def test_an_image_that_does_not_exist(desk: Desk, image: str, name: str) -> None:
    with pytest.raises(OperationFailed, match="pull it first") as caught:
        await run(desk, "remit-test:nowhere", name)
    assert (caught.value.reason, caught.value.retryable) == ("ImageNotFound", False)


async def test_a_pull_that_fails(desk: Desk, image: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        desk.policies = [{**POLICY, "images": {"allow": ["*"]}}]
        await desk.do(container={"action": "pull", "image": "127.0.0.1:1/remit-test:none"})
    assert caught.value.reason in {"PullFailed", "EngineFailed"}


async def test_a_name_that_is_taken(desk: Desk, image: str, name: str) -> None:
    docker("create", "--network=none", "--name", name, image, "/bin/sleep", "1")
    with pytest.raises(OperationFailed, match="choose another") as caught:
        await run(desk, image, name, "sleep", "600")
    assert caught.value.reason == "AlreadyExists"
    assert seen(name), "it is not ours to remove"


async def test_a_retry_takes_up_what_the_first_attempt_made(desk: Desk, image: str, name: str) -> None:
    first = await run(desk, image, name, "sleep", "600")
    assert await run(desk, image, name, "sleep", "600") == first


async def test_a_program_that_cannot_be_started_leaves_nothing(desk: Desk, image: str, name: str) -> None:
    desk.policies = [{**POLICY, "commands": {"allow": [{"executable": "nosuch"}]}}]
    with pytest.raises(OperationFailed, match="nosuch") as caught:
        await run(desk, image, name, "nosuch")
    assert caught.value.reason == "EngineRefused"
    assert docker("inspect", name).returncode != 0


async def test_options_that_contradict_each_other(desk: Desk, image: str, name: str) -> None:
    desk.policies = [allowing(options=["ports", "network", "hostNetwork"])]
    port = [{"containerPort": 80, "hostPort": 8080}]
    with pytest.raises(OperationFailed, match="set network too"):
        await run(desk, image, name, "sleep", "1", options={"ports": port})
    with pytest.raises(OperationFailed, match="leave out network and ports"):
        await run(desk, image, name, "sleep", "1", options={"hostNetwork": True, "network": "bridge"})


@LEAKING
async def test_no_engine(tmp_path: Path) -> None:
    executor = ContainerExecutor(Engine(f"unix://{tmp_path}/none.sock"))
    desk = Desk(executor, [POLICY])
    for _ in range(5):
        with pytest.raises(OperationFailed, match="--docker-host") as caught:
            await desk.do(container={"action": "list"})
        assert (caught.value.reason, caught.value.retryable) == ("EngineUnavailable", True)
    with pytest.raises(OperationFailed) as caught:
        await desk.do(container={"action": "list"})
    assert caught.value.reason == "CircuitOpen"
    await executor.close()


@LEAKING
async def test_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = tmp_path / "mute.sock"
    server = await asyncio.start_unix_server(mute, path)
    executor = ContainerExecutor(Engine(f"unix://{path}", answer_seconds=1))
    with pytest.raises(OperationFailed, match=r"--docker-host|within 1 s") as caught:
        await Desk(executor, [POLICY]).do(container={"action": "list"})
    assert caught.value.retryable
    await executor.close()
    server.close()
