"""Tests the egress gateway as the program that a separate pod runs: who may use it, for what, and what its log
reports."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from outgoing import web_server
from policies import policy
from ports import free_port
from remit.backends.egress.gatewayconfig import GatewayConfig
from remit.backends.egress.gatewayrecords import GatewayRecord
from remit.backends.egress.usage import NetworkUse

TOKEN = "5a1f"
SECONDS = 60


@dataclass
class Gateway:
    process: asyncio.subprocess.Process
    port: int
    records: list[GatewayRecord] = field(default_factory=list)

    async def told(self) -> GatewayRecord:
        """Returns the next record."""
        assert self.process.stdout
        async with asyncio.timeout(SECONDS):
            line = await self.process.stdout.readline()
        record = GatewayRecord.read(line)
        assert record is not None, (line, await self.stderr())
        self.records.append(record)
        return record

    async def stderr(self) -> bytes:
        assert self.process.stderr
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        return await self.process.stderr.read()

    async def ended(self) -> NetworkUse:
        """Asks the gateway to end, and returns the total traffic."""
        self.process.send_signal(signal.SIGTERM)
        while not (record := await self.told()).over:
            pass
        assert await asyncio.wait_for(self.process.wait(), SECONDS) == 0
        return record.use

    async def say(self, head: str, *, token: str | None = TOKEN, host: str = "127.0.0.1") -> str:
        """Returns the response to a request. `token` None: without credentials."""
        credentials = base64.b64encode(f"attempt:{token}".encode()).decode()
        presented = "" if token is None else f"Proxy-Authorization: Basic {credentials}\r\n"
        reader, writer = await asyncio.open_connection(host, self.port)
        try:
            writer.write(f"{head}\r\n{presented}\r\n".encode())
            async with asyncio.timeout(SECONDS):
                first = await reader.readuntil(b"\r\n\r\n")
                return (first + (b"" if b" 200 Conn" in first else await reader.read())).decode()
        finally:
            writer.close()


@dataclass
class Gateways:
    folder: Path
    stack: contextlib.AsyncExitStack

    async def start(self, *rules: dict[str, Any]) -> Gateway:
        compiled = policy("p", "data", networks=["restricted"], egress={"allow": list(rules)})
        assert not compiled.problems
        config, port = self.folder / "config.json", free_port()
        config.write_bytes(GatewayConfig((compiled.egress,), TOKEN).dumped())
        gateway = Gateway(await self.launch(str(config), str(port)), port)
        assert await gateway.told() == GatewayRecord(NetworkUse())
        return gateway

    async def launch(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "remit.backends.egress.gateway", *arguments), stdout=pipe, stderr=pipe
        )
        self.stack.push_async_callback(_gone, process)
        return process


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[Gateways]:
    async with contextlib.AsyncExitStack() as stack:
        yield Gateways(tmp_path, stack)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with web_server() as port:
        yield port


async def _gone(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def here(port: int, **changes: Any) -> dict[str, Any]:
    return {"hosts": ["localhost"], "ports": [port], "addresses": ["127.0.0.0/8", "::1/128"]} | changes


def connect(destination: str) -> str:
    return f"CONNECT {destination} HTTP/1.1\r\nHost: {destination}"


def get(url: str) -> str:
    return f"GET {url} HTTP/1.1\r\nHost: {url.split('/')[2]}"


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


async def test_the_attempt_gets_out_and_all_of_it_is_reported(gateways: Gateways, port: int) -> None:
    gateway = await gateways.start(here(port))
    answer = await gateway.say(get(f"http://localhost:{port}/bytes/2000"))
    assert answer.startswith("HTTP/1.1 200 OK")
    assert answer.endswith("x" * 2000)
    assert (await gateway.say(connect(f"localhost:{port}"))).startswith("HTTP/1.1 200 Connection established")
    while (await gateway.told()).use.connections < 2:  # while the gateway runs
        pass
    use = await gateway.ended()
    assert [each.destination for each in use.destinations] == [f"localhost:{port}"]
    assert (use.connections, use.denied, use.received_bytes > 2000, use.sent_bytes > 0) == (2, 0, True, True)


async def test_it_listens_on_every_address_of_its_pod(gateways: Gateways, port: int) -> None:
    gateway = await gateways.start(here(port))
    hosts = ["127.0.0.2", "::1"] if has_ipv6() else ["127.0.0.2"]
    for host in hosts:
        assert (await gateway.say(get(f"http://localhost:{port}/"), host=host)).startswith("HTTP/1.1 200"), host
    assert (await gateway.ended()).connections == len(hosts)


async def test_other_clients_are_refused(gateways: Gateways, port: int) -> None:
    """Another pod that found the gateway is refused, and does not affect the attempt's counters."""
    gateway = await gateways.start(here(port))
    heads = (get(f"http://localhost:{port}/"), connect(f"localhost:{port}"), connect("evil.test:1"))
    for head, token in itertools.product(heads, (None, "", "5a1", "5a1f1", "other")):
        answer = await gateway.say(head, token=token)
        assert answer.startswith("HTTP/1.1 407 "), token
        assert 'Proxy-Authenticate: Basic realm="remit"' in answer
        assert TOKEN not in answer
    head = heads[0] + "\r\nProxy-Authorization: Basic eDp5"
    assert (await gateway.say(head)).startswith("HTTP/1.1 407 "), "two of them are none"
    assert await gateway.ended() == NetworkUse()


REFUSED = [
    ("169.254.169.254:80", "a cloud's metadata address"),
    ("[fd00:ec2::254]:80", "a cloud's metadata address"),
    ("[::ffff:169.254.169.254]:80", "a cloud's metadata address"),
    ("0xA9FEA9FE:80", "a cloud's metadata address"),
    ("10.96.0.1:443", "a private address"),  # the API server's Service
    ("100.64.0.10:443", "a shared (carrier-grade NAT) address"),
    ("localhost:443", "a loopback address"),
    ("0.0.0.0:80", "an unspecified address"),
    ("93.184.216.34:22", "port 22 of 93.184.216.34 is not in spec.egress.allow[0].ports"),
]


async def test_a_policy_that_allows_every_host_opens_nothing_of_the_cluster(gateways: Gateways) -> None:
    gateway = await gateways.start({"hosts": ["*"], "ports": [80, 443]})
    for destination, why in REFUSED:
        for head in (connect(destination), get(f"http://{destination}/")):
            answer = await gateway.say(head)
            assert answer.startswith("HTTP/1.1 403 "), destination
            assert why in answer.splitlines()[0]
    use = await gateway.ended()
    assert (use.connections, use.denied, REFUSED[-1][1] in use.last_denied) == (0, 2 * len(REFUSED), True)


async def test_a_request_cannot_forge_a_record(gateways: Gateways) -> None:
    """Both streams are in the log of a container."""
    gateway = await gateways.start({"hosts": ["a.test"]})
    forged = GatewayRecord(NetworkUse(), over=True).line().decode()
    for text in (forged, f"\n{forged}", f"\r{forged}", f"\u2028{forged}"):
        await gateway.say(f"CONNECT {text} HTTP/1.1\r\nHost: x")
        await gateway.say(f"GET http://a.test/ HTTP/1.1\r\nHost: {text}")
        await gateway.say(f"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: {text}")
        await gateway.say(f"CONNECT {text}")
    assert (await gateway.ended()).denied > 0
    said = await gateway.stderr()
    assert b"egress denied" in said
    assert [line for line in said.splitlines() if GatewayRecord.read(line)] == []


async def test_without_a_token_it_does_not_begin(gateways: Gateways) -> None:
    config = gateways.folder / "config.json"
    config.write_text('{"egress": [], "token": "", "bytesPerSecond": null}')
    process = await gateways.launch(str(config), str(free_port()))
    out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"the egress gateway cannot begin: ")
    assert b"Traceback" not in err
