"""Tests releases on processes, through a whole operator: blue-green, rollback, restarts, and no lost requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import supervised
from archives import archives
from ports import free_port
from remit.client import RemitClient
from remit.errors import DeploymentError
from remit.kube.client import DEPLOYMENTS, EVENTS, SECRETS, TASKS, Object
from remit.release.traffic.probe import Probe
from remit.release.traffic.traffic import Traffic

from .conftest import PATIENCE, World, truth

APP = """
import http.server, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/healthz" and os.path.exists("sick"):
            return self.send_error(500)
        body = (open("version").read() + os.environ.get("GREETING", "")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Shop:
    """The Deployment `shop`, its versions, and a client of it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"

    def spec(self, version: str, *marks: str, **changes: Any) -> dict[str, Any]:
        source = self.folder / version
        if not source.exists():
            source.mkdir(parents=True)
            (source / "app.py").write_text(APP)
            (source / "version").write_text(version)
            for mark in marks:
                (source / mark).touch()
        return {
            "artifact": {"path": str(source)},
            "target": {"process": {"command": ["python3", "app.py"]}},
            "replicas": 2,
            "ports": [{"name": "http", "containerPort": 8080, "published": self.port}],
            "healthCheck": {"http": {"path": "/healthz", "port": "http"}, "failureThreshold": 2},
            "strategy": {"blueGreen": {"scaleDownDelaySeconds": 0}},
            "stages": {"bakeSeconds": 0},
            "resources": {"memory": "128Mi", "pids": 16},
            "progressDeadlineSeconds": 600,
            **changes,
        }

    async def create(self, version: str, *marks: str, **changes: Any) -> None:
        body = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "Deployment",
            "metadata": {"name": "shop"},
            "spec": self.spec(version, *marks, **changes),
        }
        await self.world.kube.create(DEPLOYMENTS, "default", body)

    async def change(self, version: str, *marks: str, **changes: Any) -> None:
        patch = {"spec": self.spec(version, *marks, **changes)}
        await self.world.kube.patch(DEPLOYMENTS, "default", "shop", patch)

    async def ask(self, request: str) -> None:
        patch = {"metadata": {"annotations": {"remit.dev/request": request}}}
        await self.world.kube.patch(DEPLOYMENTS, "default", "shop", patch)

    async def stuck(self, words: str) -> dict[str, Any]:
        """Waits until the status says that these words hold the release up, then lets its deadline pass and waits for
        its end."""
        await self.until(lambda status: words in status.get("message", ""))
        patch = {"spec": {"progressDeadlineSeconds": 1}}  # this change starts no new release
        await self.world.kube.patch(DEPLOYMENTS, "default", "shop", patch)
        return await self.until(lambda status: truth(status, "Stalled") == "True")

    async def until(self, condition: Any) -> dict[str, Any]:
        return await self.world.until("shop", condition, DEPLOYMENTS)

    async def live(self, version: str) -> dict[str, Any]:
        """Waits until this version is live and nothing is in progress."""
        end = f"/{version} ("
        return await self.until(
            lambda status: (
                end in status.get("active", "")
                and truth(status, "Reconciling") == "False"
                and status.get("ready") == "2/2"
            )
        )

    async def get(self) -> Object:
        return await self.world.get("shop", DEPLOYMENTS)

    async def answer(self) -> str:
        """Returns the response that a client gets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        said = (await reader.read()).decode()
        writer.close()
        return said.rpartition("\r\n\r\n")[2]


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    await world.policy(
        {"executable": "python3", "args": ["app.py"]},
        environment={"allow": ["GREETING", "PASSWORD", "FAULT"]},
        networks=["none", "host"],
        files={"allow": [{"paths": [f"{tmp_path}/versions/**"], "operations": ["read"]}]},
    )
    yield Shop(world, tmp_path / "versions")
    state = world.settings.state_dir
    await supervised.end(state / "instances" / "default")
    traffic = Traffic(state / "traffic")
    for name in traffic.names():
        await traffic.remove(name)


async def test_the_first_release_and_the_next_one_lose_no_request(shop: Shop) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        status = await shop.live("v1")
        assert (status["phase"], status["activeRevision"], await shop.answer()) == ("Healthy", 1, "v1")
        token = Traffic(shop.world.settings.state_dir / "traffic").probe_token("default/shop")
        async with Probe(shop.url, token=token, rate=100, timeout_seconds=PATIENCE) as probe:
            probe.switching(to="green")
            await shop.change("v2")
            status = await shop.live("v2")
            await probe.settled()
        report = probe.report()
        assert (report.failed, await shop.answer()) == (0, "v2"), report
        assert [revision["outcome"] for revision in status["history"]] == ["Promoted", "Promoted"]
        status = await shop.until(lambda status: {stage["state"] for stage in status["stages"]} <= {"Done", "Skipped"})
        conditions = {each["type"]: each["status"] for each in status["conditions"]}
        expected = {"Available": "True", "Healthy": "True", "Reconciling": "False", "Stalled": "False"}
        assert conditions.items() >= expected.items()


async def test_one_that_is_never_healthy_leaves_the_old_one_serving(shop: Shop) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        async with Probe(shop.url, rate=50, timeout_seconds=PATIENCE) as probe:
            await shop.change("v2", "sick")
            status = await shop.stuck("answered 500")
        report = probe.report()
        assert (report.failed, await shop.answer()) == (0, "v1")
        assert "v1 (1)" in status["active"]
        assert status["history"][0]["outcome"] == "Failed"
        assert "500" in status["message"], status["message"]
        await shop.change("v3")  # the next spec is released normally
        await shop.live("v3")


@pytest.mark.no_cover
async def test_a_secret_in_the_command_is_neither_recorded_nor_reported(shop: Shop) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "kestrel-Plumage"}}
    await shop.world.kube.create(SECRETS, "default", secret)
    env = [{"name": "GREETING", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    target = {"process": {"command": ["python3", "app.py", "--key=kestrel-Plumage"]}}
    async with shop.world.operator():
        await shop.create("v1", env=env, target=target)
        status = await shop.until(lambda status: "--key" in str(status))
        assert "kestrel" not in str(status)
        await shop.world.policy(
            {"executable": "python3", "args": ["app.py", "--key=.*"]},
            environment={"allow": ["GREETING"]}, networks=["host"], files={
                "allow": [{"paths": [f"{shop.folder}/**"], "operations": ["read"]}]
            },
        )  # fmt: skip
        await shop.live("v1")
        assert "kestrel" not in str(await shop.world.kube.list(EVENTS, "default"))
    trail = (shop.world.settings.state_dir / "audit" / "audit.jsonl").read_text()
    assert "--key=" in trail
    assert "kestrel" not in trail


async def test_a_rollback_brings_back_the_whole_state_and_edits_no_spec(shop: Shop) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": " canary-one"}}
    await shop.world.kube.create(SECRETS, "default", secret)
    env = [{"name": "GREETING", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    async with shop.world.operator():
        await shop.create("v1", env=env)
        await shop.live("v1")
        assert await shop.answer() == "v1 canary-one"
        await shop.world.kube.patch(SECRETS, "default", "s", {"stringData": {"k": " canary-two"}})
        await shop.change("v2", env=env)
        await shop.live("v2")
        assert await shop.answer() == "v2 canary-two"
        before = (await shop.get())["spec"]
        await shop.ask('{"rollback": {"revision": 1}}')
        status = await shop.live("v1")
        assert await shop.answer() == "v1 canary-one"  # with the Secret's value at that revision, not the current one
        assert status["pinnedRevision"] == 1
        obj = await shop.get()
        assert obj["spec"] == before
        assert "remit.dev/request" not in obj["metadata"].get("annotations", {})
        assert status["request"]["accepted"]
        assert "canary" not in json.dumps(obj)
        trail = (shop.world.settings.state_dir / "audit" / "audit.jsonl").read_text()
        released = [record for record in map(json.loads, trail.splitlines()) if record["kind"] == "release"]
        verdicts = [record["verdict"] for record in released]
        assert verdicts[:3] == ["Provision", "Switch", "Promoted"]
        assert verdicts.count("Requested") == 1
        assert released[0]["argv"] == ["python3", "app.py"]
        assert "canary" not in trail
        await shop.change("v3", env=env)  # a new spec releases the pin
        status = await shop.live("v3")
        assert "pinnedRevision" not in status
        assert await shop.answer() == "v3 canary-two"


@pytest.mark.no_cover
async def test_promotion_by_hand_and_abort(shop: Shop) -> None:
    manual = {"strategy": {"blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 0}}}
    async with shop.world.operator():
        await shop.create("v1", **manual)
        await shop.live("v1")  # with nothing live there is nothing to protect
        await shop.change("v2", **manual)
        await shop.until(lambda status: status.get("phase") == "AwaitingPromotion")
        assert await shop.answer() == "v1"
        await shop.ask("promote")
        await shop.live("v2")
        await shop.change("v3", **manual)
        await shop.until(lambda status: status.get("phase") == "AwaitingPromotion")
        await shop.ask("abort")
        status = await shop.until(lambda status: status["history"][0]["outcome"] == "Aborted")
        assert "v2 (2)" in status["active"]
        assert await shop.answer() == "v2"


@pytest.mark.no_cover
async def test_hooks_are_tasks_under_policy_and_their_failure_stops_the_release(shop: Shop) -> None:
    def gate(command: str) -> dict[str, Any]:
        task = {"command": {"argv": [command]}}
        return {"stages": {"bakeSeconds": 0, "prePromotion": [{"name": "gate", "task": task}]}}

    async def hooks() -> dict[str, str]:
        return {task["metadata"]["name"]: task["status"]["phase"] for task in await world.kube.list(TASKS, "default")}

    world = shop.world

    await shop.world.policy("true", "false")
    async with shop.world.operator():
        await shop.create("v1", **gate("true"))
        await shop.live("v1")
        await shop.change("v2", **gate("false"))
        status = await shop.until(lambda status: truth(status, "Stalled") == "True")
        assert "gate" in status["message"]
        await shop.change("v3", **gate("rm"))  # no policy allows this command
        await shop.until(lambda status: status["history"][0]["revision"] == 3 and truth(status, "Stalled") == "True")
        assert await shop.answer() == "v1"
        first = {"shop-1-pre-gate": "Succeeded"}
        assert await hooks() == {**first, "shop-2-pre-gate": "Failed", "shop-3-pre-gate": "Denied"}
        await shop.change("v4", **gate("true"), revisionHistoryLimit=1)
        await shop.live("v4")
        for forgotten in ("shop-2-pre-gate", "shop-3-pre-gate"):
            await world.gone(forgotten)
        assert await hooks() == {**first, "shop-4-pre-gate": "Succeeded"}, "those of revisions that are kept"


@pytest.mark.no_cover
async def test_without_a_policy_nothing_is_released(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    async with shop.world.operator():
        await shop.create("v1", artifact={"path": str(tmp_path / "elsewhere")})
        status = await shop.until(lambda status: status.get("phase") == "Pending" and status.get("message"))
        assert "files" in status["message"]
        await shop.change("v1", target={"process": {"command": ["python3", "other.py"]}})
        status = await shop.until(lambda status: "other.py" in status.get("message", ""))
        assert status["phase"] == "Pending"
        await shop.change("v1")
        await shop.live("v1")


async def test_an_archive_at_an_address_and_a_check_that_is_a_command(shop: Shop) -> None:
    """Policies are checked for each: the archive's address, the targets of redirects, and the check's command."""
    await shop.world.policy({"executable": "python3", "args": ["check.py"]}, networks=["host"])
    async with archives() as server, shop.world.operator():

        def spec(version: str, address: str, check: str = "check.py") -> dict[str, Any]:
            shop.spec(version)
            source = shop.folder / version
            (source / "check.py").write_text(f"import sys; sys.exit({version!r} == 'v2' and 'no database')")
            archive = {"archive": f"{server.url}/{address}", "sha256": server.have(source)}
            return {
                "artifact": archive,
                "healthCheck": {"command": {"argv": ["python3", check]}},
            }

        await shop.create("v1", **spec("v1", "elsewhere/v1.tgz"))
        status = await shop.until(lambda status: status.get("phase") == "Pending" and status.get("message"))
        assert "http" in status["message"]
        port = [server.port]
        await shop.world.policy(http={"allow": [{"hosts": ["127.0.0.1"], "ports": port, "paths": ["/moved/**"]}]})
        await shop.change("v1", **spec("v1", "moved/v1.tgz", check="other.py"))
        await shop.until(lambda status: "other.py" in status.get("message", ""))
        await shop.change("v1", **spec("v1", "moved/v1.tgz"))
        await shop.until(lambda status: status.get("activeRevision") == 1 and status["ready"] == "2/2")
        assert (server.asked, await shop.answer()) == (["/moved/v1.tgz", "/moved/here/v1.tgz"], "v1")
        await shop.change("v2", **spec("v2", "moved/v2.tgz"))
        status = await shop.stuck("no database")
        assert "green-0: python3: exit code 1: no database" in status["message"]
        assert await shop.answer() == "v1"
        for address, reason in (
            ("moved/v1.tgz", "DigestMismatch"),
            ("moved/none.tgz", "UnexpectedStatus"),
            ("moved/out.tgz", "PolicyDenied"),
        ):
            await shop.change("v3", **spec("v3", address))
            await shop.until(lambda status, reason=reason: reason in {c["reason"] for c in status["conditions"]})
            assert await shop.answer() == "v1"


async def test_replicas_change_what_is_live_without_a_revision(shop: Shop) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v1", replicas=3)
        status = await shop.until(lambda status: status.get("ready") == "3/3")
        assert status["activeRevision"] == 1
        assert len(status["history"]) == 1


@pytest.mark.no_cover
async def test_deleted_it_leaves_nothing(shop: Shop) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.world.kube.delete(DEPLOYMENTS, "default", "shop")
        await shop.world.gone("shop", DEPLOYMENTS)
        state = shop.world.settings.state_dir
        async with asyncio.timeout(PATIENCE):
            while supervised.supervisors(state / "instances" / "default"):
                await asyncio.sleep(0.02)
        with pytest.raises(ConnectionRefusedError):
            await shop.answer()
        assert not ((state / "artifacts") / "default" / "shop").exists()
        assert not (state / "releases" / "default" / "shop").exists()


async def test_kubernetes_without_a_cluster_is_reported_in_words(shop: Shop) -> None:
    async with shop.world.operator():
        await shop.world.policy(containers={"operations": ["run"]}, images={"allow": ["shop:*"]})
        body = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "Deployment",
            "metadata": {"name": "shop"},
            "spec": {"artifact": {"image": "shop:v1"}, "target": {"kubernetes": {}}},
        }
        await shop.world.kube.create(DEPLOYMENTS, "default", body)
        status = await shop.until(lambda status: "needs a whole cluster" in status.get("message", ""))
        assert truth(status, "Reconciling") == "True"
        await shop.world.kube.delete(DEPLOYMENTS, "default", "shop")
        await shop.world.gone("shop", DEPLOYMENTS)


@pytest.mark.no_cover
async def test_nonsense_asked_for_is_refused_and_removed(shop: Shop) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        for asked in ("frobnicate", '{"rollback": {"revision": -1}}', "{"):
            await shop.ask(asked)
            async with asyncio.timeout(PATIENCE):
                while "remit.dev/request" in (await shop.get())["metadata"].get("annotations", {}):
                    await asyncio.sleep(0.02)
        await shop.ask("promote")  # there is nothing to promote
        status = await shop.until(lambda status: status.get("request", {}).get("kind") == "promote")
        assert not status["request"]["accepted"]
        assert await shop.answer() == "v1"


async def test_a_program_deploys_and_rolls_back_through_the_api_server(shop: Shop) -> None:
    def manifest(version: str, *marks: str, **changes: Any) -> dict[str, Any]:
        return {"metadata": {"name": "shop"}, "spec": shop.spec(version, *marks, replicas=1, **changes)}

    async with shop.world.operator(), RemitClient(shop.world.kube.access, name="hive") as client:
        await client.deploy(manifest("v1"), timeout=PATIENCE)
        second = await client.deploy(manifest("v2"), timeout=PATIENCE)
        assert (second.status.active_revision, await shop.answer()) == (2, "v2")
        assert (await client.deploy(manifest("v2"), timeout=PATIENCE)).metadata.generation == second.metadata.generation
        back = await client.rollback(second, timeout=PATIENCE)
        assert (back.status.pinned_revision, await shop.answer()) == (1, "v1")
        with pytest.raises(DeploymentError, match="a rollback holds it at revision 1") as pinned:
            await client.deploy(manifest("v2"), timeout=PATIENCE)
        assert pinned.value.reason == "Pinned"
        with pytest.raises(DeploymentError, match="revision 9 is not kept") as refused:
            await client.rollback("shop", revision=9)
        assert refused.value.reason == "RequestRefused"
        with pytest.raises(DeploymentError) as failed:
            await client.deploy(manifest("v3", "sick", progressDeadlineSeconds=2), timeout=PATIENCE)
        assert (failed.value.reason, await shop.answer()) == ("ProgressDeadlineExceeded", "v1")
        waiting = asyncio.create_task(client.deploy(manifest("v4", "sick"), timeout=PATIENCE))
        await shop.until(lambda status: "/v4 (" in status.get("preview", ""))
        await shop.change("v5", replicas=1)
        with pytest.raises(DeploymentError, match="another spec took its place"):
            await waiting
