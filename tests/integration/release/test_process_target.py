"""Tests the process target: real processes in real sandboxes behind a real proxy."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import supervised
from parts import require
from policies import reading
from ports import free_port
from remit.api.deployment import DeploymentSpec
from remit.backends.base import AttemptRequest, Command
from remit.backends.process import ProcessBackend
from remit.errors import DeploymentError
from remit.operations.process.supervision import Supervision
from remit.release.model import ObservedState, Revision, SlotView, Snapshot
from remit.release.target import Material
from remit.release.targets import localports, process
from remit.release.targets.desiredstate import DesiredSide
from remit.release.targets.loadbalancer import LoadBalancer
from remit.release.targets.process import Permits, ProcessTarget
from remit.release.targets.reading import Reading
from remit.release.traffic.probe import Probe
from remit.release.traffic.traffic import Traffic
from remit.sandbox import Confinement, Layer, Limits, probe_host, reader_group, with_group
from remit.telemetry.redact import MASK

PATIENCE = 90
APP = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if os.path.exists("broken"):
            self.send_error(500)
            return
        body = (open("version").read() + os.environ.get("GREETING", "")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
if os.path.exists("crash"):
    sys.exit("no database")
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024  # or the kernel turns clients away while it is slow
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


AT_BOTH_PORTS = """
import threading
admin = Server(("127.0.0.1", int(os.environ["PORT_ADMIN"])), Handler)
threading.Thread(target=admin.serve_forever, daemon=True).start()
Server(("""


HANGING = APP.replace(
    "        if os.path",
    """        if self.path == "/hang":
            Handler.hangs = True
        if self.path == "/alive" and getattr(Handler, "hangs", False):
            self.send_error(500)
            return
        if os.path""",
    1,
)
ALIVE = """
import os, sys, urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/alive")
"""


CLOSING = f"""
import threading
{APP.rpartition("Server((")[0]}
turns = [signal.SIGUSR1, signal.SIGUSR2]
signal.pthread_sigmask(signal.SIG_BLOCK, turns)
while True:
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait(turns[:1])
    server.shutdown()
    server.server_close()
    signal.sigwait(turns[1:])
"""


CHECK = """
import os, sys, urllib.request
try:
    open("mine", "w")
    kept = "writable"
except OSError:
    kept = "read-only"
said = urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/").read().decode()
print("first")
print(f"\\x1b[31m{kept} {said} {os.environ['PASSWORD']}")
sys.exit(3)
"""


class Stage:
    """A process target and its revisions, with a way to create an equal target, as a restarted operator would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = probe_host()
        require("bwrap", self.host.abilities[Layer.NAMESPACES].available, "see remit doctor")
        self.port, self.preview_port = free_port(), free_port()
        self.readers = with_group(self.host, reader_group())
        self.artifacts = folder / "artifacts"
        self.kept: dict[int, tuple[Revision, Material]] = {}
        self.changed = asyncio.Event()
        self.revoked = False
        self.target = self.another()

    def another(self) -> ProcessTarget:
        return ProcessTarget(
            "default",
            "shop",
            self.folder / "release",
            self.artifacts,
            lambda copy: Supervision(self.folder / "processes", self.readers, [str(copy)]),
            Traffic(self.folder / "traffic"),
            lambda copy: ProcessBackend(self.readers, read_only_paths=[str(copy)]),
            Permits(self.admit, self.admit_check, self.reading, self.download),
            self.load,
            self.changed.set,
            reader_group(),
        )

    def admit(self, revision: Revision, material: Material) -> AttemptRequest:
        python = shutil.which("python3", path="/usr/bin:/bin")
        require("python3", python, "install python3 in /usr/bin")
        return AttemptRequest(
            f"uid-{revision.number}",
            Command(("python3", "app.py"), str(python), material.env),
            Confinement(Limits(disk_bytes=1 << 20), network="host"),
            timeout_seconds=60,
            grace_seconds=2,
        )

    def admit_check(self, revision: Revision, material: Material, argv: Sequence[str]) -> AttemptRequest:
        if self.revoked:
            raise DeploymentError("no policy allows it", reason="NotAllowed")
        admitted = self.admit(revision, material)
        return replace(admitted, command=replace(admitted.command, argv=tuple(argv)), timeout_seconds=10)

    def reading(self, revision: Revision, material: Material) -> Reading:
        return reading(f"{self.folder}/*")

    async def download(self, revision: Revision, material: Material, address: str) -> AsyncIterator[bytes]:
        raise AssertionError(f"{address} is not to be fetched")
        yield b""

    async def load(self, number: int) -> tuple[Revision, Material]:
        return self.kept[number]

    def revision(self, number: int, *marks: str, env: dict[str, str] | None = None, **spec: Any) -> Revision:
        source = self.folder / f"v{number}"
        source.mkdir()
        (source / "app.py").write_text(APP)
        (source / "version").write_text(f"v{number}")
        for mark in marks:
            (source / mark).touch()
        written = {
            "artifact": {"path": str(source)},
            "target": {"process": {"command": ["python3", "app.py"]}},
            "ports": [{"name": "http", "containerPort": 8080, "published": self.port}],
            "healthCheck": {"http": {"path": "/", "port": "http"}, "failureThreshold": 2},
            "strategy": {"blueGreen": {"previewPort": self.preview_port}},
            **spec,
        }
        made = Revision(number, Snapshot(f"v{number}", DeploymentSpec.model_validate(written), f"hash-{number}"))
        self.kept[number] = (made, Material(env or {}))
        return made

    async def provision(self, slot: Any, revision: Revision, replicas: int = 1) -> None:
        await self.target.prepare(revision)
        await self.target.provision(slot, revision, replicas, self.kept[revision.number][1])

    async def until(self, condition: Any) -> ObservedState:
        observed = ObservedState()
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(observed := await self.target.observe()):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"it never came so far: {observed}")
        return observed

    def state(self, name: str) -> Any:
        return Supervision(self.folder / "processes", self.host).list("default/shop")[name]

    async def answer(self, port: int | None = None, path: str = "/") -> str:
        """Returns the response that a client gets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        said = (await reader.read()).decode()
        writer.close()
        return said.rpartition("\r\n\r\n")[2] if " 200 " in said.splitlines()[0] else said.splitlines()[0]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for slot in ("blue", "green"):
        await stage.target.retire(slot)
    await stage.target.remove()
    await supervised.end(tmp_path / "processes")


async def test_a_switch_under_load_loses_nothing(stage: Stage) -> None:
    one, two = stage.revision(1), stage.revision(2)
    assert await stage.target.observe() == ObservedState()
    await stage.provision("blue", one, 2)
    await stage.until(lambda observed: observed.ready(1, "blue", 2))
    await stage.target.switch("blue")
    assert await stage.answer() == "v1"
    await stage.provision("green", two, 2)
    await stage.until(lambda observed: observed.ready(2, "green", 2))
    await stage.target.preview("green")
    assert (await stage.answer(), await stage.answer(stage.preview_port)) == ("v1", "v2")
    token = stage.target.probe_token()
    async with Probe(f"http://127.0.0.1:{stage.port}/", token=token, rate=100, timeout_seconds=PATIENCE) as probe:
        probe.switching(to="green")
        await stage.target.switch("green")
        await probe.settled()
        await stage.target.drain("blue")
        await stage.until(lambda observed: observed.blue.connections == 0)
        await stage.target.retire("blue")
        await stage.target.switch("green")
    report = probe.report()
    assert (report.failed, set(report.by_side)) == (0, {"blue", "green"}), report
    observed = await stage.until(lambda observed: observed.ready(2, "green", 2))
    assert (observed.live, observed.preview, observed.blue.revision, observed.prepared) == (
        "green",
        "green",
        None,
        {1, 2},
    )


async def test_other_published_ports_under_load_lose_nothing_at_those_that_stay(stage: Stage) -> None:
    """One more port, another preview port, one port fewer: each time another proxy takes over the sockets."""
    more = {"name": "admin", "containerPort": 9090, "published": free_port()}
    http = {"name": "http", "containerPort": 8080, "published": stage.port}
    one = stage.revision(1, strategy={})
    two = stage.revision(2, ports=[http, more])
    (stage.folder / "v2" / "app.py").write_text(APP.replace("\nServer((", AT_BOTH_PORTS))
    three = stage.revision(3, strategy={"blueGreen": {"previewPort": free_port()}})
    await stage.provision("blue", one)
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    async with Probe(f"http://127.0.0.1:{stage.port}/", rate=100, timeout_seconds=PATIENCE) as probe:
        for slot, other, revision in (("green", "blue", two), ("blue", "green", three)):
            await stage.provision(slot, revision)
            await stage.until(lambda observed, slot=slot, number=revision.number: observed.ready(number, slot, 1))
            await stage.target.switch(slot)
            await stage.target.drain(other)
            await stage.until(lambda observed, other=other: observed.slot(other).connections == 0)
            await stage.target.retire(other)
            assert await stage.answer() == f"v{revision.number}"
    report = probe.report()
    assert (report.failed, report.requests > 0) == (0, True), report
    with pytest.raises(ConnectionRefusedError):
        await stage.answer(more["published"])


async def test_an_instance_that_listens_at_no_more_than_some_of_its_ports_never_gets_healthy(stage: Stage) -> None:
    """The instance's own check does not cover the other ports, and a proxy that has just started assumes that each is
    open."""
    more = {"name": "admin", "containerPort": 9090, "published": free_port()}
    http = {"name": "http", "containerPort": 8080, "published": stage.port}
    await stage.provision("blue", stage.revision(1, ports=[http, more]))
    seen: list[int] = []

    def told(observed: ObservedState) -> bool:
        seen.append(observed.blue.healthy)
        return observed.blue.message == "blue-0: it passes its check, but takes no connections at port admin"

    await stage.until(told)
    assert not any(seen)


async def test_instances_get_ports_that_no_other_has_even_one_that_is_down(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = sorted(free_port() for _ in range(6))
    monkeypatch.setattr(localports, "_candidates", lambda: few)
    down = stage.revision(1, "crash")
    await stage.provision("blue", down, 3)
    await stage.provision("green", stage.revision(2), 3)
    sides = stage.target._balancer.desired().sides.values()
    assert sorted(port for side in sides for ports in side.ports for port in ports.values()) == few


async def test_another_operator_finds_all_of_it(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1, env={"GREETING": " hello"}), 2)
    await stage.until(lambda observed: observed.ready(1, "blue", 2))
    await stage.target.switch("blue")
    before = await stage.target.observe()
    await stage.target.close()
    assert await stage.answer() == "v1 hello"
    stage.target = stage.another()
    after = await stage.target.observe()
    assert replace(after, blue=replace(after.blue, requests=before.blue.requests)) == before
    await stage.target.scale("blue", 3)
    await stage.until(lambda observed: observed.ready(1, "blue", 3))
    await stage.target.scale("blue", 1)
    observed = await stage.target.observe()
    assert (observed.blue.wanted, observed.blue.started) == (1, 1)
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    async with asyncio.timeout(PATIENCE):
        while await stage.answer() != "v1 hello":
            await asyncio.sleep(0.02)


async def test_each_order_given_twice_is_as_given_once(stage: Stage) -> None:
    one = stage.revision(1)
    for _ in range(2):
        await stage.provision("blue", one)
    first = await stage.until(lambda observed: observed.ready(1, "blue", 1))
    for _ in range(2):
        await stage.target.switch("blue")
        await stage.provision("blue", one)
        await stage.target.drain("green")
        await stage.target.retire("green")
    assert (await stage.until(lambda observed: observed.live == "blue")).blue == first.blue


async def test_one_that_crashes_is_not_healthy_and_gives_the_reason(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1, "crash"))
    observed = await stage.until(lambda observed: observed.blue.failed == 1 and observed.blue.restarts >= 1)
    assert observed.blue.healthy == 0
    assert "no database" in observed.blue.message


async def test_one_that_fails_its_check_is_not_healthy_and_gives_the_reason(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1, "broken"))
    observed = await stage.until(lambda observed: observed.blue.failed == 1)
    assert (observed.blue.healthy, observed.blue.restarts) == (0, 0)
    assert "answered 500" in observed.blue.message


@pytest.mark.parametrize(
    "how",
    [{"http": {"path": "/alive", "port": "http"}}, {"command": {"argv": ["python3", "alive.py"]}}],
    ids=["http", "command"],
)
async def test_one_that_hangs_is_restarted_and_counted_as_a_crash(stage: Stage, how: dict[str, Any]) -> None:
    liveness = {**how, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 30}
    revision = stage.revision(1, healthCheck={"tcp": {"port": "http"}}, livenessCheck=liveness)
    (stage.folder / "v1" / "app.py").write_text(HANGING)
    (stage.folder / "v1" / "alive.py").write_text(ALIVE)
    await stage.provision("blue", revision)
    first = await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    assert await stage.answer(path="/hang") == "v1"
    observed = await stage.until(lambda observed: observed.ready(1, "blue", 1) and observed.blue.restarts)
    before, after = (each.blue.instances["blue-0"].incarnation for each in (first, observed))
    assert (observed.blue.restarts, after != before) == (1, True)
    assert observed.blue.message.startswith("blue-0: its liveness check failed: ")
    assert await stage.answer(path="/alive") == "v1"


async def test_a_check_that_policy_allows_no_more_is_distinguished_from_one_that_fails(stage: Stage) -> None:
    """Revoking a policy does not stop running instances."""
    revision, stage.revoked = stage.revision(1), True
    with pytest.raises(DeploymentError, match="no policy allows it"):
        await stage.target._ask("blue", DesiredSide.of(revision), 0, ["true"])


async def test_a_check_of_a_port_by_its_number_is_one_of_the_instance_and_not_of_what_is_live(stage: Stage) -> None:
    by_number = {
        "ports": [{"name": "http", "containerPort": stage.port}],
        "healthCheck": {"http": {"port": stage.port}, "failureThreshold": 1},
    }
    await stage.provision("blue", stage.revision(1, **by_number))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    await stage.provision("green", stage.revision(2, "broken", **by_number))
    observed = await stage.until(lambda observed: observed.green.failed or observed.green.healthy)
    assert "answered 500" in observed.green.message
    assert await stage.answer() == "v1"


async def test_a_check_that_is_a_command_is_confined_and_shows_no_secret(stage: Stage) -> None:
    """The check runs where the instance does, with its environment and its port."""
    one = stage.revision(1, env={"PASSWORD": "hunter22"}, healthCheck={"command": {"argv": ["python3", "check.py"]}})
    stage.kept[1] = (one, Material({"PASSWORD": "hunter22"}, secrets=frozenset({"hunter22"})))
    (stage.folder / "v1" / "check.py").write_text(CHECK)
    await stage.provision("blue", one)
    observed = await stage.until(lambda observed: observed.blue.failed)
    assert (observed.blue.healthy, observed.blue.failed) == (0, 1)
    assert observed.blue.message.endswith(f": \\x1b[31mread-only v1 {MASK}"), observed.blue.message


async def test_a_copy_that_is_gone_is_made_again_before_an_instance_needs_it(stage: Stage) -> None:
    """This includes a private copy, which only the instance's user may read."""
    one = stage.revision(1)
    (stage.folder / "v1" / "version").chmod(0o600)
    await stage.provision("blue", one)
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    copy = stage.artifacts / "1"
    assert not [path for path in copy.rglob("*") if path.stat().st_mode & 0o007]
    shutil.rmtree(stage.artifacts)
    await kill(stage)
    await stage.until(lambda observed: observed.blue.failed == 0 and observed.ready(1, "blue", 1) and copy.is_dir())
    assert await stage.answer() == "v1"


async def test_an_instance_is_never_started_from_anything_but_what_its_revision_was_made_from(stage: Stage) -> None:
    one = stage.revision(1)
    await stage.provision("blue", one)
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    shutil.rmtree(stage.artifacts)
    (stage.folder / "v1" / "version").write_text("edited")
    await kill(stage)
    observed = await stage.until(lambda observed: "has changed since" in observed.blue.message)
    assert observed.blue.healthy == 0
    for order in (stage.target.prepare(one), stage.target.scale("blue", 2)):
        with pytest.raises(DeploymentError) as refused:
            await order
        assert refused.value.reason == "ArtifactChanged"
    (stage.folder / "v1" / "version").write_text("v1")
    await stage.target.prepare(one)
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    assert await stage.answer() == "v1"


async def test_only_a_live_side_is_restarted_without_a_limit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a release fails, no operator may be left to end its instances, so these must not restart without a limit."""
    monkeypatch.setattr(process, "_MOST_RESTARTS", 1)
    await stage.provision("blue", stage.revision(1))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    await stage.target.observe()
    await stage.provision("green", stage.revision(2, "crash"))
    for restarts in (1, 2):
        await kill(stage)
        await stage.until(lambda observed, n=restarts: observed.blue.restarts == n and observed.ready(1, "blue", 1))
    supervision = Supervision(stage.folder / "processes", stage.host)
    async with asyncio.timeout(PATIENCE):
        while (state := await supervision.state("default/shop", "green-0"))["phase"] != "Failed":
            await asyncio.sleep(0.02)
    assert state["restarts"] == 1
    observed = await stage.target.observe()
    assert (observed.green.failed, observed.green.started) == (1, 0)
    assert len(supervised.supervisors(stage.folder / "processes" / "default")) == 1


async def kill(stage: Stage) -> None:
    """Kills the program of `blue-0`."""
    supervision = Supervision(stage.folder / "processes", stage.host)
    os.kill((await supervision.state("default/shop", "blue-0"))["process"]["pid"], signal.SIGKILL)


async def test_a_proxy_that_died_comes_back_as_it_was(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    seen = await Traffic(stage.folder / "traffic").look("default/shop")
    assert seen is not None
    os.kill(seen.pid, 9)
    await stage.until(lambda observed: observed.live == "blue")
    assert await stage.answer() == "v1"


async def test_a_side_that_was_being_retired_when_the_operator_was_killed_is_not_started_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.provision("blue", stage.revision(1), 2)
    await stage.until(lambda observed: observed.ready(1, "blue", 2))
    with monkeypatch.context() as killed:
        killed.setattr(LoadBalancer, "apply", _killed)
        with pytest.raises(asyncio.CancelledError):
            await stage.target.retire("blue")
    observed = await stage.another().observe()
    assert (observed.blue.revision, observed.blue.wanted, observed.blue.started) == (1, 0, 0)
    assert supervised.supervisors(stage.folder / "processes" / "default") == []
    await stage.target.retire("blue")
    assert (await stage.target.observe()).blue == SlotView()


async def _killed(*_: object) -> None:
    raise asyncio.CancelledError


async def test_a_taken_port_is_named(stage: Stage) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", stage.port))
        other.listen()
        with pytest.raises(DeploymentError, match=str(stage.port)) as refused:
            await stage.provision("blue", stage.revision(1))
        assert (refused.value.reason, refused.value.retryable) == ("PortTaken", False)
        assert not (stage.folder / "processes").exists()  # nothing was started for it


async def test_a_port_that_only_the_new_side_wants_is_no_trouble_of_the_live_one(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1))
    await stage.target.switch("blue")
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    balancer = LoadBalancer("default/shop", stage.folder / "release" / "told.json", Traffic(stage.folder / "traffic"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = [{"name": "http", "containerPort": 8080, "published": taken}]
        green = DesiredSide.of(stage.revision(2, ports=ports))
        balancer.save(balancer.desired().having("green", green))  # the state that an operator leaves that is killed
        observed = await stage.target.observe()
        assert f"port {taken} of default/shop is taken" in observed.green.message
        assert (observed.live, observed.converged, observed.ready(1, "blue", 1)) == ("blue", True, True)
        assert await stage.answer() == "v1"


async def test_a_side_whose_revision_cannot_be_read_goes_on_unchecked_and_can_be_retired(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")

    async def load(number: int) -> tuple[Revision, Material]:
        raise DeploymentError(f"revision {number} is not kept any more", reason="RevisionNotFound")

    await stage.target.close()
    stage.load = load  # type: ignore[method-assign]
    stage.target = stage.another()
    observed = await stage.target.observe()
    assert (observed.live, observed.blue.revision, observed.blue.started, observed.blue.healthy) == ("blue", 1, 1, 0)
    assert "revision 1 cannot be read" in observed.blue.message
    assert await stage.answer() == "v1"
    await stage.target.retire("blue")
    assert (await stage.target.observe()).blue == SlotView()


async def test_a_supervisor_that_is_stopped_does_not_delay_a_look(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    (supervisor,) = supervised.supervisors(stage.folder / "processes" / "default")
    await stage.target.switch("blue")
    supervisor.suspend()
    try:
        async with asyncio.timeout(PATIENCE):
            observed = await stage.target.observe()
    finally:
        supervisor.resume()
    assert (observed.live, observed.blue.started) == ("blue", 1)
    await stage.until(lambda observed: "maxRestarts" not in stage.state("blue-0"))


async def test_a_port_that_an_instance_closes_and_opens_is_reported_by_the_proxy(stage: Stage) -> None:
    """The instance's own check is not due for an hour."""
    revision = stage.revision(1, healthCheck={"tcp": {"port": "http"}, "periodSeconds": 3600})
    (stage.folder / "v1" / "app.py").write_text(CLOSING)
    await stage.provision("blue", revision)
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    await stage.target.observe()
    program = stage.state("blue-0")["process"]["pid"]
    for signal_, healthy in ((signal.SIGUSR1, 0), (signal.SIGUSR2, 1)):
        stage.changed.clear()
        os.kill(program, signal_)
        async with asyncio.timeout(PATIENCE):
            await stage.changed.wait()
            while (observed := await stage.target.observe()).blue.healthy != healthy:
                stage.changed.clear()
                await stage.changed.wait()
        assert (observed.blue.failed, observed.blue.restarts) == (0, 0)


async def test_a_proxy_that_dies_is_reported(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1, healthCheck={"tcp": {"port": "http"}, "periodSeconds": 3600}))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    await stage.until(lambda observed: observed.live == "blue")
    seen = await Traffic(stage.folder / "traffic").look("default/shop")
    assert seen
    stage.changed.clear()
    os.kill(seen.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        await stage.changed.wait()
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    assert await stage.answer() == "v1"


@pytest.mark.parametrize("whole", [False, True], ids=["program", "supervisor"])
async def test_an_exit_is_reported_without_a_look(stage: Stage, whole: bool) -> None:
    await stage.provision("blue", stage.revision(1, healthCheck=None))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    (supervisor,) = supervised.supervisors(stage.folder / "processes" / "default")
    before = (await stage.target.observe()).blue.instances["blue-0"].incarnation
    stage.changed.clear()
    if whole:
        supervisor.kill()
    else:
        await kill(stage)
    async with asyncio.timeout(PATIENCE):
        while (await stage.target.observe()).blue.instances["blue-0"].incarnation == before:
            await stage.changed.wait()
            stage.changed.clear()


async def test_a_supervisor_that_hangs_is_ended_with_its_program(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.operations.process.supervision._END_SECONDS", 0.1)
    await stage.provision("blue", stage.revision(1))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    program = psutil.Process(stage.state("blue-0")["process"]["pid"])
    (supervisor,) = supervised.supervisors(stage.folder / "processes" / "default")
    supervisor.suspend()
    async with asyncio.timeout(PATIENCE):
        await stage.target.retire("blue")
    assert supervised.supervisors(stage.folder / "processes" / "default") == []
    async with asyncio.timeout(PATIENCE):
        while program.is_running() and program.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


async def test_failed_requests_are_counted_where_the_side_is_published(stage: Stage) -> None:
    await stage.provision("blue", stage.revision(1))
    await stage.until(lambda observed: observed.ready(1, "blue", 1))
    await stage.target.switch("blue")
    before = (await stage.target.observe()).blue
    for _ in range(3):
        assert await stage.answer() == "v1"
    after = (await stage.target.observe()).blue
    assert after.requests is not None
    assert before.requests is not None
    assert (after.requests - before.requests, after.failed_requests) == (3, 0)
