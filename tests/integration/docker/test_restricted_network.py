"""Tests containers with `network: restricted`: the proxy is the only way out, and it is available from the start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import pythonimage
from dockers import Heard, docker, needs_docker, remove_image
from outgoing import PRELUDE, egress, local, open_listener, web_server
from remit.backends.base import AttemptRequest, Command, Handle
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.egress.listeners import EgressListeners
from remit.backends.egress.usagestore import UsageStore
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import BackendError, OutcomeUnknown
from remit.policy.egress import Egress
from remit.sandbox import Confinement, Limits

PATIENCE = 60
WAIT = """
import time
def until(path):
    print("begun", flush=True)
    while not os.path.exists(path):
        time.sleep(0.02)
"""
"""Defines `until`, which waits until a file exists."""


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    needs_docker()
    with imported() as tag:
        yield tag


@contextlib.contextmanager
def imported(*changes: str) -> Iterator[str]:
    """Provides an image with Python, and `changes` as lines of a Dockerfile."""
    tag = f"remit-test:{uuid.uuid4().hex}"
    made = docker("import", *(f"--change={change}" for change in changes), "-", tag, input=pythonimage.tree())
    assert made.returncode == 0, made.stderr
    try:
        yield tag
    finally:
        remove_image(tag)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with web_server() as port:
        yield port


class Stage:
    """An operator's backend and its requests. `left` finds what remains of them."""

    def __init__(self, image: str, port: int, folder: Path, engine: Engine) -> None:
        self.image, self.port, self.folder, self.engine = image, port, folder, engine
        self.ids: list[str] = []
        self.backend = self.another()

    def another(self) -> DockerBackend:
        """Returns the backend of a later operator, which has only the state on disk and on the engine."""
        self.listeners = EgressListeners(local)
        return DockerBackend(self.engine, self.listeners, UsageStore(self.folder / "egress"))

    def asking(self, source: str, *rules: Egress, limits: Limits = Limits(), **rest: Any) -> AttemptRequest:  # noqa: B008
        self.ids.append(f"{uuid.uuid4()}-1")
        env = {"REMIT_TASK_NAME": "t", "REMIT_TASK_NAMESPACE": "ns", "LD_PRELOAD": "", **rest.pop("env", {})}
        command = Command((pythonimage.PYTHON, "-I", "-c", PRELUDE + WAIT + source), "", env)
        confinement = Confinement(limits, network=rest.pop("network", "restricted"), require=frozenset())
        request = AttemptRequest(self.ids[-1], command, confinement, 60, 0.5, image=self.image)
        return replace(request, egress=rules or (egress(self.port),), **rest)

    async def run(self, request: AttemptRequest, heard: Heard, cancel: asyncio.Event | None = None) -> Outcome:
        told = heard.handles.append
        async with asyncio.timeout(PATIENCE):
            return await self.backend.run(request, heard, cancel=cancel or asyncio.Event(), on_started=told)

    async def __call__(self, source: str, *rules: Egress, **rest: Any) -> tuple[Outcome, Any]:
        heard = Heard()
        outcome = await self.run(self.asking(source, *rules, **rest), heard)
        assert outcome.exit_code == 0, (outcome, heard.err)
        return outcome, json.loads(heard.out)

    @contextlib.asynccontextmanager
    async def running(self, request: AttemptRequest, cancel: asyncio.Event | None = None) -> AsyncIterator[Any]:
        """Runs the request, and yields the run and its output once there is some."""
        heard = Heard()
        going = asyncio.create_task(self.run(request, heard, cancel))
        said = asyncio.create_task(heard.came.wait())
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({going, said}, return_when=asyncio.FIRST_COMPLETED)
        assert not going.done(), (going.result(), heard.err)
        yield going, heard

    async def let_go(self, request: AttemptRequest) -> None:
        """Releases the attempt as a stopping operator does."""
        async with self.running(request) as (going, _):
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        assert not going.done() or going.cancelled()

    async def adopt(self, request: AttemptRequest, heard: Heard) -> Outcome | None:
        self.backend = self.another()
        async with asyncio.timeout(PATIENCE):
            return await self.backend.adopt(request, heard, cancel=asyncio.Event(), on_found=heard.handles.append)

    def go(self, request: AttemptRequest) -> None:
        """Creates the file that the program waits for."""
        assert docker("exec", "-u", "65534", f"remit-{request.id}", *_touch("/workspace/go")).returncode == 0

    def left(self) -> list[str]:
        """Returns the containers, volumes and records that remain of all requests."""
        ids = ",".join(self.ids)
        containers = docker("ps", "-a", "--filter", "label=remit.dev/attempt", "--format", "{{.Names}}").stdout.decode()
        found = [name for name in containers.split() if name.removeprefix("remit-").removesuffix("-network") in ids]
        return found + [path.name for path in self.folder.glob("egress/*")]


def _touch(path: str) -> tuple[str, ...]:
    return pythonimage.PYTHON, "-I", "-c", f"open({path!r}, 'x')"


def holder(request: AttemptRequest) -> dict[str, Any]:
    (found,) = json.loads(docker("inspect", f"remit-{request.id}-network").stdout)
    return dict(found)


def bridge_address() -> str:
    """Returns the host's address on the engine's bridge. Not every engine reports a gateway in the bridge's
    configuration."""
    (network,) = json.loads(docker("network", "inspect", "bridge").stdout)
    name = network["Options"]["com.docker.network.bridge.name"]
    return next(each.address for each in psutil.net_if_addrs()[name] if each.family == socket.AF_INET)


@pytest.fixture
async def stage(image: str, port: int, tmp_path: Path) -> AsyncIterator[Stage]:
    engine = Engine()
    stage = Stage(image, port, tmp_path, engine)
    yield stage
    await engine.close()
    assert stage.left() == [], "something was left"


async def test_an_allowed_host_is_reached_through_the_proxy(stage: Stage) -> None:
    outcome, said = await stage(f"print(json.dumps(fetch('http://api.test:{stage.port}/x?y')))")
    assert said == "GET /x?y HTTP/1.1"
    assert outcome.network is not None
    assert (outcome.network.connections, outcome.network.denied) == (1, 0)
    assert [use.destination for use in outcome.network.destinations] == [f"api.test:{stage.port}"]
    assert outcome.network.sent_bytes
    assert outcome.network.received_bytes


async def test_a_host_that_is_not_allowed_is_named_with_the_field_that_would(stage: Stage) -> None:
    outcome, said = await stage(f"print(json.dumps(fetch('http://evil.test:{stage.port}/')))")
    assert said.startswith("403 remit: evil.test")
    assert "spec.egress.allow[].hosts of policy data/p" in said
    assert outcome.network is not None
    assert (outcome.network.connections, outcome.network.denied) == (0, 1)
    assert "evil.test" in outcome.network.last_denied


async def test_nothing_is_reached_without_the_proxy(stage: Stage) -> None:
    """Neither the host's loopback interface nor its addresses, the engine's bridge, the Internet, a name server or a
    cloud's metadata can be reached."""
    own = socket.gethostbyname(socket.gethostname())
    bridge = bridge_address()
    with socket.create_server((bridge, 0)) as listening:
        bridged = listening.getsockname()[1]
        _, said = await stage(f"""
for name in list(os.environ):
    if "proxy" in name.lower(): del os.environ[name]
print(json.dumps([
    tries("127.0.0.1", {stage.port}), tries({own!r}, {stage.port}), tries({bridge!r}, {bridged}), tries("10.0.0.1", 80),
    tries("1.1.1.1", 443), tries("169.254.169.254", 80), tries("1.1.1.1", 53, kind=socket.SOCK_DGRAM),
    tries({bridge!r}, 53, kind=socket.SOCK_DGRAM), tries("2606:4700::1111", 443, family=socket.AF_INET6),
    tries("fd00:ec2::254", 80, family=socket.AF_INET6), tries("\\0abstract", family=socket.AF_UNIX),
    tries("/var/run/docker.sock", family=socket.AF_UNIX), fetch("http://api.test:{stage.port}/"),
]))
""")
    assert said[:-1] == ["stopped"] * 12
    assert said[-1].startswith("failed:")


async def test_no_packets_of_its_own_making(stage: Stage) -> None:
    _, said = await stage("""
def makes(family, kind, protocol):
    try:
        socket.socket(family, kind, protocol)
        return "made"
    except OSError as error:
        return error.strerror
try:
    socket.sethostname("other"); renamed = True
except OSError:
    renamed = False
print(json.dumps([
    makes(socket.AF_INET, socket.SOCK_RAW, 1), makes(socket.AF_INET6, socket.SOCK_RAW, 58),
    makes(socket.AF_PACKET, socket.SOCK_RAW, 0x0300), makes(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0608), renamed,
]))
""")
    assert said == ["Operation not permitted"] * 4 + [False]


async def test_only_loopback_is_there(stage: Stage) -> None:
    _, said = await stage("""
routes = open("/proc/net/route").read().splitlines()[1:]
listening = [line.split()[1] for line in open("/proc/net/tcp").read().splitlines()[1:]]
print(json.dumps([[name for _, name in socket.if_nameindex()], routes, listening]))
""")
    assert said == [["lo"], [], ["0100007F:0C38"]]


async def test_the_proxy_cannot_be_taken_over(stage: Stage) -> None:
    """The proxy's port is occupied before the program runs, and proxy variables of the task have no effect."""
    outcome, said = await stage(
        f"""
try:
    socket.create_server(("127.0.0.1", 3128)); bound = True
except OSError:
    bound = False
print(json.dumps([bound, os.environ["http_proxy"], fetch("http://api.test:{stage.port}/")]))
""",
        env={"http_proxy": "http://127.0.0.1:1", "NO_PROXY": "*"},
    )
    assert said == [False, "http://127.0.0.1:3128", "GET / HTTP/1.1"]
    assert outcome.network is not None
    assert outcome.network.connections == 1


async def test_the_holder_is_out_of_reach(stage: Stage) -> None:
    """The holder is in a separate pid namespace, in which there is no other process to kill."""
    _, said = await stage(f"""
import signal
seen = [open(f"/proc/{{pid}}/cmdline").read() for pid in os.listdir("/proc") if pid.isdigit()]
try:
    os.kill(-1, signal.SIGKILL); found = "somebody"
except ProcessLookupError:
    found = "nobody"
print(json.dumps([[line for line in seen if line.startswith("/remit-")], found, fetch("http://api.test:{stage.port}/")]))
""")
    assert said == [[], "nobody", "GET / HTTP/1.1"]


async def test_the_holder_has_no_rights_and_little_room(stage: Stage) -> None:
    request = stage.asking("until('/workspace/go')")
    async with stage.running(request) as (going, _):
        found = holder(request)
        status = dict(
            line.split(":\t") for line in Path(f"/proc/{found['State']['Pid']}/status").read_text().splitlines()
        )
        volumes = json.loads(docker("volume", "inspect", *(m["Name"] for m in found["Mounts"])).stdout or b"[]")
        stage.go(request)
        assert (await going).exit_code == 0
    none = "0000000000000000"
    assert [status[name] for name in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")] == [*[none] * 3, "1", "2"]
    assert status["Uid"].split() == ["65534"] * 4
    host = found["HostConfig"]
    assert (host["NetworkMode"], host["Privileged"], host["Binds"]) == ("none", False, None)
    assert 0 < host["Memory"] == host["MemorySwap"] <= 32 << 20
    assert 0 < host["PidsLimit"] <= 32
    assert found["Config"]["Labels"]["remit.dev/attempt"] == request.id
    assert {volume["Options"]["type"] for volume in volumes} <= {"tmpfs"}


ODD = (
    "USER root", 'ENTRYPOINT ["/bin/false"]', "VOLUME /data /etc/odd", "WORKDIR /odd", "EXPOSE 3128",
    "HEALTHCHECK --interval=1s CMD false", "ENV LD_PRELOAD=/nowhere http_proxy=http://127.0.0.1:1 PATH=/nowhere",
)  # fmt: skip


async def test_an_odd_image_is_no_different(stage: Stage) -> None:
    source = f"print(json.dumps([os.getuid(), fetch('http://api.test:{stage.port}/')]))"
    with imported(*ODD) as stage.image:
        _, said = await stage(source)
    assert said == [65534, "GET / HTTP/1.1"]


async def test_a_limit_of_bandwidth(stage: Stage) -> None:
    """Data that arrives too early would mean that the limit is not enforced. How late it arrives depends on the
    machine."""
    outcome, said = await stage(
        f"""
import time
begin = time.monotonic()
count = len(fetch("http://api.test:{stage.port}/bytes/400000"))
print(json.dumps([count, time.monotonic() - begin]))
""",
        limits=Limits(network_bytes_per_second=200_000),
    )
    assert said[0] == 400_000
    assert said[1] > 1.5
    assert outcome.enforced_by == {"network_bytes_per_second": "the egress proxy"}
    assert outcome.network is not None
    assert outcome.network.received_bytes > 400_000


async def test_attempts_have_a_network_each(stage: Stage) -> None:
    source = f"print(json.dumps(fetch('http://api.test:{stage.port}/')))"
    others = [stage(source, egress(stage.port, hosts=["b.test"])) for _ in range(3)]
    (_, first), *rest = await asyncio.gather(stage(source), *others)
    assert first == "GET / HTTP/1.1"
    assert [said.startswith("403 ") for _, said in rest] == [True] * 3


async def test_a_container_without_a_network_has_no_proxy(stage: Stage) -> None:
    outcome, said = await stage(
        "print(json.dumps([tries('127.0.0.1', 3128), os.environ.get('HTTPS_PROXY')]))", network="none"
    )
    assert said == ["stopped", None]
    assert outcome.network is None


@pytest.mark.parametrize("how", ["failed", "late", "cancelled", "nosuch"])
async def test_nothing_is_left_however_it_ends(stage: Stage, how: str) -> None:
    cancel = asyncio.Event()
    request = stage.asking("until('/workspace/go')" if how in {"late", "cancelled"} else "raise SystemExit(4)")
    if how == "nosuch":
        request = replace(request, command=replace(request.command, argv=("/nosuch",)))
    if how == "cancelled":
        async with stage.running(request, cancel) as (going, _):
            cancel.set()
            outcome = await going
    else:
        outcome = await stage.run(replace(request, timeout_seconds=2 if how == "late" else 60), Heard())
    assert outcome.reason is {
        "failed": ExitReason.EXIT_CODE, "late": ExitReason.TIMED_OUT,
        "cancelled": ExitReason.CANCELLED, "nosuch": ExitReason.START_FAILED,
    }[how]  # fmt: skip
    assert stage.left() == []
    assert stage.listeners.connections is not None
    assert stage.listeners.connections.now == 0


async def test_a_holder_that_is_killed_ends_the_attempt(stage: Stage) -> None:
    request = stage.asking("until('/workspace/go')")
    async with stage.running(request) as (going, _):
        assert docker("kill", f"remit-{request.id}-network").returncode == 0
        with pytest.raises(BackendError, match="holds its restricted network was ended from outside"):
            await going
    assert stage.left() == []


FETCH_TWICE = """
first = fetch("http://api.test:{port}/bytes/5000")
until("/workspace/go")
print(json.dumps([len(first), fetch("http://api.test:{port}/2"), fetch("http://evil.test:{port}/")]))
"""


async def test_a_new_operator_listens_again(stage: Stage) -> None:
    """Data that was transferred before is included: there is one count for each attempt."""
    request = stage.asking(FETCH_TWICE.format(port=stage.port))
    await stage.let_go(request)
    assert len(stage.left()) == 3
    heard = Heard()
    adopting = asyncio.create_task(stage.adopt(request, heard))
    await heard.begun(adopting)
    await open_listener(f"remit-{request.id}-network")
    stage.go(request)
    outcome = await adopting
    assert outcome is not None
    count, second, refused = json.loads(heard.out.removeprefix(b"begun\n"))
    assert (outcome.exit_code, count, second, refused[:4]) == (0, 5000, "GET /2 HTTP/1.1", "403 ")
    assert outcome.network is not None
    assert (outcome.network.connections, outcome.network.denied) == (2, 1)
    assert outcome.network.received_bytes > 5000


async def test_what_ended_while_no_operator_was_there_tells_its_use(stage: Stage) -> None:
    request = stage.asking(FETCH_TWICE.format(port=stage.port))
    await stage.let_go(request)
    stage.go(request)
    assert docker("wait", f"remit-{request.id}").stdout == b"0\n"
    heard = Heard()
    outcome = await stage.adopt(request, heard)
    assert outcome is not None
    assert outcome.network is not None
    assert (outcome.network.connections, outcome.network.denied) == (1, 0)
    assert b"failed: " in heard.out


@pytest.mark.parametrize("how", ["holder gone", "port taken", "namespace of another"])
async def test_what_cannot_be_taken_up_is_ended(stage: Stage, how: str) -> None:
    """If the listener is in another namespace, or there is none, the attempt fails instead of continuing without a
    proxy."""
    request = stage.asking(
        """
until("/tmp/take")
held = socket.create_server(("127.0.0.1", 3128))
print("taken", flush=True)
until("/workspace/go")
"""
    )
    await stage.let_go(request)
    name, says = f"remit-{request.id}", "ended from outside"
    if how == "holder gone":
        docker("rm", "-f", f"{name}-network")
    elif how == "port taken":
        says = "could not listen in the restricted network: .*Address already in use"
        assert docker("exec", "-u", "65534", name, *_touch("/tmp/take")).returncode == 0
        async with asyncio.timeout(PATIENCE):
            while b"taken" not in docker("logs", name).stdout:
                await asyncio.sleep(0.05)
    else:
        docker("rm", "-f", f"{name}-network")
        decoy = docker("run", "-d", "--name", f"{name}-network", "--entrypoint", pythonimage.PYTHON, stage.image,
                       "-c", "import time; time.sleep(600)")  # fmt: skip
        assert decoy.returncode == 0, decoy.stderr
    heard = Heard()
    with pytest.raises(BackendError, match=says) as raised:
        await stage.adopt(request, heard)
    # Nothing outside ended the attempt: it was running until the operator could not open a listener.
    assert isinstance(raised.value, OutcomeUnknown) is (how == "port taken")
    assert heard.out.startswith(b"begun\n")
    assert stage.left() == []


async def test_a_holder_alone_is_cleared_away(stage: Stage) -> None:
    """This is the state after an operator was killed before it created the container itself."""
    request = stage.asking("until('/workspace/go')")
    await stage.let_go(request)
    docker("rm", "-fv", f"remit-{request.id}")
    assert await stage.adopt(request, Heard()) is None
    assert stage.left() == []


async def test_recover_leaves_nothing(stage: Stage) -> None:
    request = stage.asking("until('/workspace/go')")
    await stage.let_go(request)
    assert await stage.another().recover(Handle(0, 0, "", container=f"remit-{request.id}"))
    assert stage.left() == []


ELSEWHERE = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = {path!r}
from test_restricted_network import Heard, Stage
from remit.backends.docker.engine import Engine
from remit.errors import SandboxUnavailable
async def main():
    engine, heard = Engine(), Heard()
    stage = Stage({image!r}, {port}, Path({folder!r}), engine)
    request = stage.asking({source!r})
    try:
        print(await stage.run(replace(request, id={id!r} or request.id), heard))
    except SandboxUnavailable as error:
        print(error)
    print(heard.out, stage.left())
    await engine.close()
asyncio.run(main())
"""


def another_operator(stage: Stage, folder: Path, source: str, id_: str = "") -> list[str]:
    """Returns the command of an operator that runs `source` as a separate program."""
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2]), *(p for p in sys.path if p)]
    filled = ELSEWHERE.format(path=path, image=stage.image, port=stage.port, folder=str(folder), source=source, id=id_)
    return [sys.executable, "-c", filled]


@pytest.mark.no_cover
async def test_an_operator_that_is_killed_leaves_its_account(stage: Stage) -> None:
    source = FETCH_TWICE.format(port=stage.port)
    request, book = stage.asking(source), stage.folder / "egress"
    with subprocess.Popen(another_operator(stage, stage.folder, source, request.id)) as operator:
        try:
            async with asyncio.timeout(PATIENCE):
                while not (book.is_dir() and list(book.glob("*.json"))):
                    await asyncio.sleep(0.05)
        finally:
            operator.kill()
    heard = Heard()
    adopting = asyncio.create_task(stage.adopt(request, heard))
    await open_listener(f"remit-{request.id}-network")
    stage.go(request)
    outcome = await adopting
    assert outcome is not None
    assert outcome.network is not None
    assert (outcome.exit_code, outcome.network.connections, outcome.network.denied) == (0, 2, 1)


@pytest.mark.parametrize(
    ("confined", "says"),
    [
        (["unshare", "--pid", "--fork", "--mount-proc"], "no process that this operator sees. Run"),
        (["setpriv", "--bounding-set=-sys_admin", "--"], "CAP_SYS_ADMIN"),
        (["setpriv", "--reuid=65534", "--regid={socket_group}", "--clear-groups", "--"], "CAP_SYS_ADMIN"),
    ],
    ids=["another pid namespace", "root without the capability", "nobody"],
)
@pytest.mark.no_cover
async def test_an_operator_that_cannot_open_a_listener_refuses_the_attempt(
    stage: Stage, confined: list[str], says: str
) -> None:
    argv = [word.format(socket_group=Path("/var/run/docker.sock").stat().st_gid) for word in confined]
    operator = another_operator(stage, Path("/nowhere"), "print('it ran')")
    done = await asyncio.to_thread(subprocess.run, [*argv, *operator], capture_output=True, timeout=PATIENCE, cwd="/")
    assert done.returncode == 0, done.stderr
    refused, left = done.stdout.decode().splitlines()
    assert says in refused, (refused, left)
    assert left == "b'' []"
