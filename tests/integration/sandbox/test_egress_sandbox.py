"""Tests programs in a sandbox with `network: restricted`: the proxy is the only way out, and it is available from the
start."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from outgoing import PRELUDE, egress, local, web_server
from remit.backends.base import AttemptRequest, Command
from remit.backends.egress.listeners import EgressListeners
from remit.backends.outcome import Outcome
from remit.backends.process import ProcessBackend
from remit.policy.egress import Egress
from remit.sandbox import Confinement, Host

_ids = itertools.count()
PYTHON = "/usr/bin/python3"


class Collected:
    def __init__(self) -> None:
        self.stdout = self.stderr = b""

    def write(self, stream: str, chunk: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + chunk)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with web_server() as port:
        yield port


class Sandbox:
    def __init__(self, host: Host, port: int) -> None:
        self.listeners = EgressListeners(local)
        self.backend = ProcessBackend(host, listeners=self.listeners)
        self.port = port

    def egress(self, **rule: Any) -> Egress:
        return egress(self.port, **rule)

    async def __call__(self, source: str, *rules: Egress, **env: str) -> tuple[Outcome, Any]:
        sink = Collected()
        request = AttemptRequest(
            id=f"egress-{next(_ids)}",
            command=Command((PYTHON, "-I", "-c", PRELUDE + source), PYTHON, env),
            confinement=Confinement(network="restricted"),
            timeout_seconds=60,
            egress=rules or (self.egress(),),
        )
        outcome = await self.backend.run(request, sink, cancel=asyncio.Event())
        assert outcome.exit_code == 0, sink.stderr
        return outcome, json.loads(sink.stdout)


@pytest.fixture(params=["cgroup", "rlimits"])
def sandbox(request: pytest.FixtureRequest, host: Host, port: int) -> Sandbox:
    return Sandbox(host if request.param == "cgroup" else replace(host, cgroups=None), port)


async def test_an_allowed_host_is_reached_through_the_proxy(sandbox: Sandbox) -> None:
    outcome, said = await sandbox(f"print(json.dumps(fetch('http://api.test:{sandbox.port}/x?y')))")
    assert said == "GET /x?y HTTP/1.1"
    assert outcome.network is not None
    assert (outcome.network.connections, outcome.network.denied) == (1, 0)
    assert [use.destination for use in outcome.network.destinations] == [f"api.test:{sandbox.port}"]
    assert outcome.network.sent_bytes
    assert outcome.network.received_bytes


async def test_a_host_that_is_not_allowed_is_named_with_the_field_that_would(sandbox: Sandbox) -> None:
    outcome, said = await sandbox(f"print(json.dumps(fetch('http://evil.test:{sandbox.port}/')))")
    assert said.startswith("403 remit: evil.test")
    assert "spec.egress.allow[].hosts of policy data/p" in said
    assert outcome.network is not None
    assert (outcome.network.connections, outcome.network.denied) == (0, 1)
    assert "evil.test" in outcome.network.last_denied


async def test_nothing_is_reached_without_the_proxy(sandbox: Sandbox) -> None:
    """Neither the host's loopback interface nor its addresses, a neighbour, the Internet, a name server or a cloud's
    metadata can be reached."""
    own = socket.gethostbyname(socket.gethostname())
    _, said = await sandbox(f"""
for name in list(os.environ):
    if "proxy" in name.lower(): del os.environ[name]
print(json.dumps([
    tries("127.0.0.1", {sandbox.port}), tries({own!r}, {sandbox.port}), tries("10.0.0.1", 80), tries("1.1.1.1", 443),
    tries("169.254.169.254", 80), tries("1.1.1.1", 53, kind=socket.SOCK_DGRAM),
    tries("2606:4700::1111", 443, family=socket.AF_INET6), tries("\\0abstract", family=socket.AF_UNIX),
    fetch("http://api.test:{sandbox.port}/"),
]))
""")
    assert said[:-1] == ["stopped"] * 8
    assert said[-1].startswith("failed:")


async def test_only_loopback_is_there(sandbox: Sandbox) -> None:
    _, said = await sandbox("print(json.dumps([name for _, name in socket.if_nameindex()]))")
    assert said == ["lo"]


async def test_the_proxy_cannot_be_taken_over(sandbox: Sandbox) -> None:
    """The proxy's port is occupied before the program runs, and proxy variables of the task have no effect."""
    outcome, said = await sandbox(
        f"""
try:
    socket.create_server(("127.0.0.1", 3128)); bound = True
except OSError:
    bound = False
print(json.dumps([bound, os.environ["http_proxy"], fetch("http://api.test:{sandbox.port}/")]))
""",
        http_proxy="http://127.0.0.1:1",
        NO_PROXY="*",
    )
    assert said == [False, "http://127.0.0.1:3128", "GET / HTTP/1.1"]
    assert outcome.network is not None
    assert outcome.network.connections == 1


async def test_a_name_that_leads_to_the_host_is_refused(sandbox: Sandbox) -> None:
    _, said = await sandbox(
        f"print(json.dumps(fetch('http://api.test:{sandbox.port}/')))", sandbox.egress(addresses=[])
    )
    assert said.startswith("403 ")
    assert "api.test leads to 127.0.0.1, a loopback address" in said
    assert "spec.egress.allow[0].addresses" in said


async def test_a_host_on_loopback_is_reached_as_it_is_listed(sandbox: Sandbox) -> None:
    """A listed name is sent to the proxy; every other name for loopback means the sandbox itself."""
    source = f"""
import http.server, threading
own = http.server.HTTPServer(("127.0.0.1", {sandbox.port}), type("Own", (http.server.BaseHTTPRequestHandler,), dict(
    do_GET=lambda self: self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nits own"), log_message=lambda *_: None)))
threading.Thread(target=own.serve_forever, daemon=True).start()
print(json.dumps([fetch(f"http://{{host}}:{sandbox.port}/x") for host in ("127.0.0.1", "localhost")]))
"""
    for hosts, proxied in (
        (["127.0.0.1"], [True, False]),
        (["localhost"], [False, True]),
        (["*"], [True, True]),
        (["api.test"], [False, False]),
    ):
        outcome, said = await sandbox(source, sandbox.egress(hosts=hosts))
        assert [answer == "GET /x HTTP/1.1" for answer in said] == proxied
        assert (said[0] == "its own") is not proxied[0]
        assert outcome.network is not None
        assert outcome.network.connections == sum(proxied)


async def test_attempts_have_a_proxy_each(sandbox: Sandbox) -> None:
    source = f"print(json.dumps(fetch('http://api.test:{sandbox.port}/')))"
    (_, first), (_, second) = await asyncio.gather(sandbox(source), sandbox(source, sandbox.egress(hosts=["b.test"])))
    assert first == "GET / HTTP/1.1"
    assert second.startswith("403 ")


async def test_a_flood_of_connections_ends_with_the_attempt(sandbox: Sandbox) -> None:
    outcome, said = await sandbox("""
held = []
for _ in range(300):
    s = socket.socket(); s.settimeout(5)
    try:
        s.connect(("127.0.0.1", 3128)); held.append(s)
    except OSError: break
print(json.dumps(len(held)))
""")
    assert said > 0
    assert outcome.network is not None
    assert outcome.network.connections == 0
    assert sandbox.listeners.connections.now == 0


async def test_certificates_are_there(sandbox: Sandbox) -> None:
    _, said = await sandbox("print(json.dumps(os.path.isdir('/etc/ssl/certs')))")
    assert said


async def test_a_sandbox_without_network_has_no_proxy(host: Host) -> None:
    sink = Collected()
    source = PRELUDE + "print(json.dumps([tries('127.0.0.1', 3128), [n for n in os.environ if 'proxy' in n.lower()]]))"
    request = AttemptRequest("none", Command((PYTHON, "-I", "-c", source), PYTHON), Confinement(), 60)
    outcome = await ProcessBackend(host).run(request, sink, cancel=asyncio.Event())
    assert json.loads(sink.stdout) == ["stopped", []]
    assert outcome.network is None
