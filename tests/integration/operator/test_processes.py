"""Tests supervised processes: they outlive the task and the operator, are found again, and cannot be controlled from
other namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest

import supervised
from remit.errors import ApiError
from remit.kube.client import NAMESPACES, SECRETS

from .conftest import PATIENCE, World

ACTIONS = ["start", "stop", "signal", "status", "list", "usage"]
SERVE = "echo begun; trap 'echo stopping; exit 0' TERM; trap 'echo again' HUP; while true; do sleep 0.05; done"


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    await world.policy("sh", processes={"operations": ACTIONS}, environment={"allow": ["TOKEN"]})
    desk = Desk(world)
    yield desk
    await supervised.end(desk.root)


class Desk:
    """Runs process operations as tasks, and ends the processes that remain."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.root = world.settings.state_dir / "processes"

    async def task(
        self, action: str, name: str | None = None, namespace: str = "default", **rest: Any
    ) -> dict[str, Any]:
        """Returns the final status of a task with this action."""
        spec = {"action": action, **({"name": name} if name else {}), **rest.pop("process", {})}
        task = await self.world.task(process=spec, namespace=namespace, **rest)
        return await self.world.finished(task, namespace=namespace)

    async def do(self, action: str, name: str | None = None, **rest: Any) -> list[dict[str, Any]]:
        """Returns the output of a task that must succeed."""
        status = await self.task(action, name, **rest)
        assert status["phase"] == "Succeeded", status
        return [json.loads(line) for line in status["output"].get("stdoutTail", "").splitlines()]

    async def start(self, name: str, script: str = SERVE, **rest: Any) -> dict[str, Any]:
        process = {"argv": ["sh", "-c", script], **rest.pop("process", {})}
        (state,) = await self.do("start", name, process=process, **rest)
        return state

    async def status(self, name: str) -> dict[str, Any]:
        (state,) = await self.do("status", name)
        return state

    async def until(self, name: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while not condition(state := await self.status(name)):
                pass
            return state


def alive(state: dict[str, Any]) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(state["process"]["pid"]).status() != psutil.STATUS_ZOMBIE
    return False


async def dead(state: dict[str, Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while alive(state):
            await asyncio.sleep(0.02)


async def test_from_start_to_stop(desk: Desk) -> None:
    async with desk.world.operator():
        state = await desk.start("web")
        assert (state["phase"], state["name"], state["restarts"]) == ("Running", "web", 0)
        assert alive(state)  # its task has ended
        running = await desk.until("web", lambda state: "begun" in state["stdoutTail"])
        assert running["process"] == state["process"]
        await desk.do("signal", "web", process={"signal": "SIGHUP"})
        await desk.until("web", lambda state: "again" in state["stdoutTail"])
        (listed,) = await desk.do("list")
        assert (listed["name"], listed["phase"]) == ("web", "Running")
        (usage,) = await desk.do("usage", "web")
        assert usage["now"]["processes"] >= 1
        assert usage["now"]["memoryBytes"] > 0
        assert usage["now"]["threads"] >= 1
        (stopped,) = await desk.do("stop", "web")
        assert stopped["phase"] == "Stopped"
        assert not alive(state)
        assert "stopping" in (await desk.status("web"))["stdoutTail"]
        await supervised.ended(desk.root)
        assert await desk.do("stop", "web") == []  # it was stopped already


async def test_it_outlives_the_operator_and_is_found_again(desk: Desk) -> None:
    async with desk.world.operator():
        state = await desk.start("web")
    assert alive(state)
    async with desk.world.operator():
        assert (await desk.status("web"))["process"] == state["process"]
        again = await desk.start("web")  # the desired process runs already
        assert (again["process"], again["same"]) == (state["process"], True)
        other = await desk.task("start", "web", process={"argv": ["sh", "-c", "sleep 1"]})
        assert other["attempts"][0]["reason"] == "AlreadyExists"
        assert "stop it first" in other["message"]
        await desk.do("stop", "web")
    assert not alive(state)


async def test_it_is_started_again_as_its_policy_says(desk: Desk) -> None:
    async with desk.world.operator():
        state = await desk.start("crashing", "echo run; sleep 0.3; exit 3", process={"restartPolicy": "OnFailure"})
        later = await desk.until("crashing", lambda state: state["restarts"] >= 1 and state["phase"] == "Running")
        assert later["process"] != state["process"]
        assert later["stdoutTail"].count("run") >= 2
        assert later["lastExit"]["exitCode"] == 3
        await desk.start("done", "echo once; sleep 0.3", process={"restartPolicy": "OnFailure"})
        assert (await desk.until("done", lambda state: state["phase"] == "Exited"))["restarts"] == 0
        await desk.start("never", "sleep 0.3; exit 1")
        assert (await desk.until("never", lambda state: state["phase"] == "Failed"))["restarts"] == 0


FETCH = """
import time, urllib.request
print(urllib.request.urlopen('http://127.0.0.2:{}/').status, flush=True)
time.sleep({})
"""


async def test_it_reaches_the_hosts_that_its_policy_lists_and_no_others(desk: Desk) -> None:
    """The proxy belongs to the supervisor, which continues after the operator has stopped."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    listed, other = [await asyncio.start_server(serve, "127.0.0.2", 0) for _ in range(2)]
    ports = [server.sockets[0].getsockname()[1] for server in (listed, other)]
    rule = {"hosts": ["127.0.0.2"], "ports": [ports[0]], "addresses": ["127.0.0.0/8"]}
    await desk.world.policy(
        "python3",
        networks=["restricted"],
        egress={"allow": [rule]},
        processes={"operations": ["start", "status", "stop"]},
    )
    try:
        async with desk.world.operator():
            begun = {"argv": ["python3", "-c", FETCH.strip().replace("\n", ";").format(ports[0], 600)]}
            await desk.do("start", "reaches", process=begun, network="restricted")
            await desk.until("reaches", lambda state: state["stdoutTail"] == "200\n")
            denied = {"argv": ["python3", "-c", FETCH.strip().replace("\n", ";").format(ports[1], 0)]}
            await desk.task("start", "strays", process=denied, network="restricted")
            strayed = await desk.until("strays", lambda state: state["phase"] == "Failed")
            assert "403" in strayed["stderrTail"]
            network = strayed["lastExit"]["network"]
            assert (network["connections"], network["denied"]) == (0, 1)
            assert f"port {ports[1]} of 127.0.0.2 is not in spec.egress.allow[0].ports" in network["lastDenied"]
            (stopped,) = await desk.do("stop", "reaches")
            assert stopped["lastExit"]["network"]["connections"] == 1
    finally:
        for server in (listed, other):
            server.close()


async def test_what_cannot_start_fails_the_task(desk: Desk) -> None:
    async with desk.world.operator():
        status = await desk.task("start", "no", process={"argv": ["sh", "-c", "exit 9"]})
        # The process may have been seen running before it ended; then the task reports that it ran.
        assert status["phase"] == "Succeeded" or status["attempts"][0]["reason"] == "StartFailed"
        missing = await desk.task("start", "gone", process={"argv": ["no-such-program"]})
        assert missing["phase"] in {"Denied", "Failed"}
        assert "no-such-program" in missing["message"]


async def test_a_tree_that_ignores_everything_is_gone(desk: Desk) -> None:
    daemon = "(trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & )"
    stubborn = f"trap '' TERM HUP INT; {daemon}; while true; do sleep 1; done"
    async with desk.world.operator():
        state = await desk.start("stubborn", stubborn, terminationGracePeriodSeconds=1)
        tree = psutil.Process(state["process"]["pid"]).parent()
        assert tree is not None
        below = [tree, *tree.children(recursive=True)]
        await desk.do("stop", "stubborn")
        assert [process for process in below if process.is_running() and process.status() != "zombie"] == []


async def test_it_does_not_live_without_its_supervisor(desk: Desk) -> None:
    async with desk.world.operator():
        state = await desk.start("web")
        (supervisor,) = supervised.supervisors(desk.root)
        supervisor.send_signal(signal.SIGKILL)
        await dead(state)
        lost = await desk.until("web", lambda state: state["phase"] == "Lost")
        assert "process" not in lost
        assert (await desk.start("web"))["phase"] == "Running"  # and it can be started again


async def test_a_pid_that_was_given_to_another_is_left_alone(desk: Desk) -> None:
    """The record names a process that is alive but belongs to another program. The lock, not the pid, tells whether a
    supervisor runs."""
    bystander = await asyncio.create_subprocess_exec("sleep", "600")
    folder = desk.root / "default" / "web"
    folder.mkdir(parents=True)
    me = {"pid": bystander.pid, "startTime": 1, "bootId": "x"}
    state = {"name": "web", "phase": "Running", "supervisor": me, "process": me, "restarts": 0}
    (folder / "state.json").write_text(json.dumps(state))
    async with desk.world.operator():
        assert (await desk.status("web"))["phase"] == "Lost"
        assert (await desk.task("signal", "web", process={"signal": "SIGKILL"}))["attempts"][0][
            "reason"
        ] == "NotRunning"
        await desk.do("stop", "web")
    assert bystander.returncode is None
    bystander.kill()
    await bystander.wait()


async def test_a_namespace_sees_its_own_alone(desk: Desk) -> None:
    world = desk.world
    await world.kube.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    await world.policy("sh", namespace="other", processes={"operations": ACTIONS})
    async with world.operator():
        state = await desk.start("web")
        for action in ("stop", "status", "usage"):
            status = await desk.task(action, "web", namespace="other")
            assert status["attempts"][0]["reason"] == "NotFound"
        assert await desk.do("list", namespace="other") == []
        for name in ("../default/web", "..", "a/b", "web\n", "-web"):
            with pytest.raises(ApiError, match=r"spec.process.name"):
                await world.task(process={"action": "stop", "name": name}, namespace="other")
    assert alive(state)


async def test_a_policy_must_allow_the_action_and_the_command(world: World) -> None:
    await world.policy("echo", processes={"operations": ["start", "status"]})
    desk = Desk(world)
    async with world.operator():
        status = await desk.task("stop", "web")
        assert status["phase"] == "Denied"
        assert "spec.processes.operations has start, status" in status["message"]
        status = await desk.task("start", "web", process={"argv": ["sh", "-c", "true"]})
        assert status["phase"] == "Denied"
        assert "no rule of policy" in status["message"]
        assert "`sh -c true`" in status["message"]


async def test_a_secret_reaches_the_process_and_nothing_else(desk: Desk) -> None:
    world = desk.world
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "canary-secret"}}
    await world.kube.create(SECRETS, "default", body)
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    async with world.operator():
        await desk.start("web", "echo $TOKEN; echo ${#TOKEN}; sleep 600 # canary-secret", env=env)
        state = await desk.until("web", lambda state: "13" in state["stdoutTail"])
        assert state["argv"][2].endswith("sleep 600 # [redacted]")
        assert state["stdoutTail"] == "[redacted]\n13\n"
        (supervisor,) = supervised.supervisors(desk.root)
        assert "canary" not in " ".join(supervisor.cmdline())
        kept = [path for path in world.settings.state_dir.rglob("*") if path.is_file()]
        assert [path for path in kept if b"canary" in path.read_bytes()] == []
        assert [path for path in kept if "processes" in path.parts and path.stat().st_mode & 0o077] == []


async def test_a_working_directory_that_does_not_exist_is_a_failed_start(desk: Desk) -> None:
    async with desk.world.operator():
        status = await desk.task("start", "web", process={"argv": ["sh", "-c", SERVE]}, workingDir="/workspace/none")
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Failed", "StartFailed")
    assert "/workspace/none: No such file or directory" in status["message"]


async def test_limits_hold_for_a_process_too(desk: Desk) -> None:
    async with desk.world.operator():
        await desk.start("hungry", "sleep 0.3; tail /dev/zero", resources={"memory": "32Mi"})
        state = await desk.until("hungry", lambda state: state["phase"] == "Failed")
        assert state["lastExit"]["reason"] in {"OOMKilled", "Exited", "Signaled"}
        assert state["lastExit"]["exitCode"] != 0
        await desk.start("chatty", "while true; do echo 0123456789012345678901234567890123456789; done")
        await desk.until("chatty", lambda state: (desk.root / "default/chatty/stdout.log.1").exists())
        sizes = [path.stat().st_size for path in (desk.root / "default/chatty").glob("stdout.log*")]
        assert sum(sizes) <= 10 * 1024 * 1024
