"""Tests releases of a real server by a Python program, without an API server."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import supervised
from dockers import LEAKING, sdk_leaves_sockets  # noqa: F401
from parts import require
from ports import free_port
from remit import DeploymentError, DeploymentManager, ExecutionAgent, ResourceError, SecurityError
from remit.errors import InvalidInput
from remit.release.traffic.traffic import Traffic
from remit.sandbox import Layer, probe_host

ROOT = Path(__file__).parents[3]
APP = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/healthz" and os.path.exists("sick"):
            return self.send_error(500)
        body = open("version").read().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
if os.path.exists("crash"):
    sys.exit("no database")
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> None:
    ability = probe_host().abilities[Layer.NAMESPACES]
    require("bwrap", ability.available, ability.remedy)


class Production:
    """A target named `production`, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder / "app", folder / "remit/agents"  # the layout of XDG_STATE_HOME
        self.port = free_port()

    def version(self, name: str, *marks: str) -> None:
        place = self.folder / name
        place.mkdir(parents=True)
        (place / "app.py").write_text(APP)
        (place / "version").write_text(name)
        for mark in marks:
            (place / mark).touch()

    def supervisors(self) -> list[psutil.Process]:
        return supervised.supervisors(self.state / "releases" / "instances" / "default")

    def target(self, **changes: Any) -> dict[str, Any]:
        return {
            "artifact": {"path": f"{self.folder}/{{version}}"},
            "target": {"process": {"command": ["python3", "app.py"]}},
            "replicas": 1,
            "ports": [{"name": "http", "containerPort": 8080, "published": self.port}],
            "healthCheck": {"http": {"path": "/healthz", "port": "http"}, "failureThreshold": 2},
            "stages": {"bakeSeconds": 0},
            "resources": {"memory": "128Mi", "pids": 16},
            **changes,
        }

    def agent(self, **options: Any) -> ExecutionAgent:
        return ExecutionAgent(state_dir=self.state, **{"targets": {"production": self.target()}, **options})

    async def answer(self) -> str:
        """Returns the response that a client gets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        said = (await reader.read()).decode()
        writer.close()
        return said.rpartition("\r\n\r\n")[2]


@pytest.fixture
async def production(tmp_path: Path) -> AsyncIterator[Production]:
    place = Production(tmp_path)
    for version in ("v1", "v2", "v3"):
        place.version(version)
    place.version("broken", "sick")
    yield place
    root = place.state / "releases"
    await supervised.end(root / "instances" / "default")
    traffic = Traffic(root / "traffic")
    for name in traffic.names():
        await traffic.remove(name)


@pytest.mark.timeout(120)
async def test_the_deployment_lines_of_the_design(production: Production) -> None:
    agent = production.agent()
    await agent.deploy("app:v1", "production")
    deployment_id = await agent.deploy("app:v2", "production")
    assert await production.answer() == "v2"
    assert (await agent.get_deployment_status("production")).version == "app:v2"
    await agent.rollback(deployment_id)
    assert (await agent.get_deployment_status("production")).version == "app:v1"
    assert await production.answer() == "v1"
    assert await agent.health_check("production")

    with pytest.raises(DeploymentError, match=r"app:v2 is not live.* live is app:v1") as twice:
        await agent.rollback(deployment_id)
    assert twice.value.reason == "NotLive"
    # A revision that was rolled back is released again when the caller asks for it.
    again = await agent.deploy("app:v2", "production")
    assert again != deployment_id
    assert await production.answer() == "v2"
    await agent.aclose()

    assert await production.answer() == "v2"  # the live side outlives the agent, and the next agent finds it
    async with production.agent() as other:
        state = await other.health_check("production")
        assert (state.version, state.ready, state.wanted, state.deployment_id) == ("app:v2", 1, 1, again)
        with pytest.raises(ResourceError, match="another agent releases to production"):
            await production.agent().get_deployment_status("production")
        await other.rollback(again)
        assert await production.answer() == "v1"
    trail = "".join(path.read_text() for path in production.state.glob("agent-*/audit/audit.jsonl"))
    assert '"verdict":"Switch"' in trail.replace(" ", "")


@pytest.mark.timeout(120)
async def test_rollbacks_that_race_all_come_to_an_end(production: Production) -> None:
    async with production.agent() as agent:
        await agent.deploy("app:v1", "production")
        second = await agent.deploy("app:v2", "production")
        ends = await asyncio.gather(*(agent.rollback(second) for _ in range(3)), return_exceptions=True)
        refused = [end for end in ends if end is not None]
        assert all(isinstance(end, DeploymentError) for end in refused)
        assert len(refused) < len(ends)
        assert await production.answer() == "v1"


@pytest.mark.timeout(120)
async def test_the_example_of_the_page_and_a_release_that_failed(production: Production) -> None:
    page = (ROOT / "docs/python-api.md").read_text()
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "targets=" in each)
    for written, here in {
        "/srv/app": str(production.folder),
        "published: 8080": f"published: {production.port}",
        "replicas: 2": "replicas: 1",
        "bakeSeconds: 5": "bakeSeconds: 0",
        "progressDeadlineSeconds: 60": "progressDeadlineSeconds: 5",
    }.items():
        assert written in block
        block = block.replace(written, here)
    environment = {"PYTHONPATH": str(ROOT / "operator"), "XDG_STATE_HOME": str(production.state.parents[1])}
    run = [sys.executable, "-c", block]
    done = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.stdout, done.stderr) == ("app:v2\napp:v1\nfailed: ProgressDeadlineExceeded\n", "")
    assert await production.answer() == "v1"
    async with production.agent() as agent:
        manager = DeploymentManager(agent)
        state = await manager.status("production")
        assert (state.version, state.phase, state.healthy) == ("app:v1", "Degraded", True)
        await manager.deploy("app:v3", "production")
        assert await production.answer() == "v3"
        assert (await manager.health_check("production")).phase == "Healthy"
        await manager.remove("production")
        assert (await manager.status("production")).version == ""
    with pytest.raises(ConnectionRefusedError):
        await production.answer()
    assert not list((production.state / "releases/instances/default").glob("production/*"))


@pytest.mark.timeout(120)
async def test_hooks_run_under_the_policy_of_the_agent(production: Production) -> None:
    def gate(*argv: str) -> dict[str, Any]:
        hook = {"name": "gate", "task": {"command": {"argv": list(argv)}}}
        return {"targets": {"production": production.target(stages={"prePromotion": [hook], "bakeSeconds": 0})}}

    async with production.agent(**gate("echo", "fine")) as agent:
        await agent.deploy("app:v1", "production")
        assert [result.reason for result in agent.history()] == ["Completed"]
    async with production.agent(**gate("rm", "-rf", "/")) as agent:  # none of its policies allows this command
        with pytest.raises(DeploymentError, match="gate") as failed:
            await agent.deploy("app:v2", "production")
        assert failed.value.reason == "HookFailed"
    assert await production.answer() == "v1"


@pytest.mark.parametrize("mark", ["crash", "sick"])
@pytest.mark.timeout(120)
async def test_a_side_that_was_never_live_is_gone_once_the_program_learns_of_the_failure(
    production: Production, mark: str
) -> None:
    production.version("bad", mark)
    async with production.agent(targets={"production": production.target(replicas=2)}) as agent:
        await agent.deploy("app:v1", "production")
    hasty = production.target(replicas=2, progressDeadlineSeconds=1)
    async with production.agent(targets={"production": hasty}) as agent:
        with pytest.raises(DeploymentError) as failed:
            await agent.deploy("app:bad", "production")
        assert failed.value.reason == "ProgressDeadlineExceeded"
    assert len(production.supervisors()) == 2
    assert await production.answer() == "v1"


@pytest.mark.timeout(120)
async def test_a_side_that_was_never_live_is_taken_down_by_the_next_agent_where_the_program_was_killed(
    production: Production,
) -> None:
    production.version("bad", "crash")
    async with production.agent() as agent:
        await agent.deploy("app:v1", "production")
    target = production.target(progressDeadlineSeconds=3)
    program = (
        "from remit import ExecutionAgent\n"
        f"agent = ExecutionAgent(state_dir={str(production.state)!r}, targets={{'production': {target!r}}})\n"
        "agent.deploy_sync('app:bad', 'production')\n"
    )
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), env={"PYTHONPATH": str(ROOT / "operator")}, stderr=subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        while len(production.supervisors()) < 2:
            await asyncio.sleep(0.02)
    running.kill()
    await running.wait()
    async with production.agent(targets={"production": target}) as agent, asyncio.timeout(60):
        while len(production.supervisors()) > 1:
            await agent.health_check("production")
    assert await production.answer() == "v1"


async def test_policies_that_were_given_are_all_that_counts(production: Production) -> None:
    async with production.agent(policies=[]) as agent:
        with pytest.raises(SecurityError) as denied:
            await agent.deploy("app:v1", "production")
        assert denied.value.reason == "NoPolicy"
        assert not await agent.get_deployment_status("production")


def test_without_an_event_loop(production: Production) -> None:
    agent = production.agent()
    agent.deploy_sync("v1", "production")
    second = agent.deploy_sync("v2", "production")
    assert agent.health_check_sync("production")
    agent.rollback_sync(second)
    assert agent.get_deployment_status_sync("production").version == "v1"
    agent.close()


async def test_unknown_targets_and_versions_are_refused(production: Production) -> None:
    async with production.agent() as agent:
        with pytest.raises(DeploymentError, match="no target 'staging'; there are: production"):
            await agent.deploy("app:v1", "staging")
        for name in ("nothing", "production-7"):
            with pytest.raises(DeploymentError):
                await agent.rollback(name)
        for name in ("", "../etc", "app:../v1", "a b", "app:v1\n"):
            with pytest.raises(InvalidInput):
                await agent.deploy(name, "production")


@pytest.mark.parametrize("kept", ["targets/production/status.json", "releases/default/production/revisions/1.json"])
@pytest.mark.timeout(120)
async def test_state_that_cannot_be_stored_is_reported_to_waiting_callers(production: Production, kept: str) -> None:
    async with production.agent() as agent:
        await agent.get_deployment_status("production")
        in_the_way = production.state / "releases" / f"{Path(kept).parent}/.{Path(kept).name}.new"
        in_the_way.mkdir(parents=True)
        async with asyncio.timeout(60):
            with pytest.raises(DeploymentError, match="cannot be kept") as failed:
                await agent.deploy("app:v1", "production")
        assert (failed.value.reason, failed.value.retryable) == ("StateNotKept", True)
        in_the_way.rmdir()
        await agent.deploy("app:v1", "production")
        assert await production.answer() == "v1"


async def test_nothing_is_declared_on_a_target_that_is_not_supported(tmp_path: Path) -> None:
    target = {"artifact": {"image": "shop:{version}"}, "target": {"docker": {"host": "tcp://127.0.0.1:2376"}}}
    async with ExecutionAgent(state_dir=tmp_path, targets={"production": target}) as agent:
        for _ in range(2):
            with pytest.raises(DeploymentError, match="needs tlsSecret") as failed:
                await agent.deploy("shop:v1", "production")
            assert failed.value.reason == "NotSupported"
    assert not list(tmp_path.rglob("wishes"))


@LEAKING
async def test_a_target_that_is_away_from_the_start_is_not_waited_for_without_end(tmp_path: Path) -> None:
    away = {
        "artifact": {"image": "{version}"},
        "target": {"docker": {"host": f"unix://{tmp_path}/nobody.sock"}},
        "ports": [{"name": "http", "containerPort": 80, "published": free_port()}],
        "progressDeadlineSeconds": 1,
    }
    async with ExecutionAgent(state_dir=tmp_path / "state", targets={"away": away}) as agent, asyncio.timeout(60):
        with pytest.raises(DeploymentError, match=r"cannot be reached: .*tried for 1 s") as caught:
            await agent.deploy("app:v2", "away")
        assert (caught.value.reason, caught.value.retryable) == ("TargetUnreachable", True)
