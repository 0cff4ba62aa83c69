"""Tests the proxy with clients that lie, stall and flood, over plain sockets, and with honest ones."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from policies import policy
from remit.backends.egress import dialing
from remit.backends.egress.client import Patience
from remit.backends.egress.dialing import LOOKUPS, system_resolver
from remit.backends.egress.proxy import Connections, EgressProxy, ProxyLimits
from remit.policy.egress import Egress
from remit.policy.hosts import Address

LOOPBACK = ["127.0.0.0/8"]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def rules(*allow: dict[str, Any], name: str = "p", namespace: str = "data") -> Egress:
    compiled = policy(name, namespace, networks=["restricted"], egress={"allow": list(allow)})
    assert not compiled.problems
    return compiled.egress


@dataclass
class Names:
    """A name server with successive answers for each name; the last one is repeated."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, name: str, port: int) -> Sequence[Address]:
        self.asked.append(name)
        if name not in self.answers:
            raise OSError(-2, "Name or service not known")
        answers = self.answers[name]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(address) for address in found]


@dataclass
class Origin:
    """A server that answers each connection with the same bytes once it has received `until`, and records what it
    received."""

    answer: bytes = OK
    until: bytes = b"\r\n\r\n"
    port: int = 0
    seen: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen.append(b"")
        with contextlib.suppress(ConnectionError):
            while self.until not in self.seen[-1] and (data := await reader.read(65536)):
                self.seen[-1] += data
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@dataclass
class Net:
    """Proxies and origins, closed at the end of the test."""

    stack: contextlib.AsyncExitStack
    names: Names = field(default_factory=Names)

    async def origin(self, answer: bytes = OK, *, host: str = "127.0.0.1", until: bytes = b"\r\n\r\n") -> Origin:
        origin = Origin(answer, until)
        await self.serve(origin.serve, host, origin)
        return origin

    async def serve(
        self,
        handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        host: str = "127.0.0.1",
        origin: Origin | None = None,
    ) -> int:
        server = await asyncio.start_server(handler, host, 0)
        self.stack.push_async_callback(_stopped, server)
        port = int(server.sockets[0].getsockname()[1])
        if origin:
            origin.port = port
        return port

    async def proxy(self, *egress: Egress, **options: Any) -> Proxy:
        listener = socket.create_server(("127.0.0.1", 0))
        proxy = EgressProxy(egress, resolve=options.pop("resolve", self.names), **options)
        await proxy.start(listener)
        self.stack.push_async_callback(proxy.close)
        return Proxy(proxy, listener.getsockname()[1])

    async def for_(self, origin: Origin, *hosts: str, **options: Any) -> Proxy:
        """Returns a proxy that allows `hosts` on the origin's port. All of them resolve to the origin."""
        for host in hosts:
            self.names.answers.setdefault(host, [["127.0.0.1"]])
        rule = {"hosts": list(hosts), "ports": [origin.port], "addresses": LOOPBACK}
        return await self.proxy(rules(rule), **options)


@dataclass
class Proxy:
    proxy: EgressProxy
    port: int

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *chunks: bytes) -> bytes:
        """Sends the chunks, and returns everything that comes back until the proxy closes the connection."""
        reader, writer = await self.open()
        try:
            for chunk in chunks:
                writer.write(chunk)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            heard = b""
            with contextlib.suppress(ConnectionError):
                while data := await asyncio.wait_for(reader.read(65536), 20):
                    heard += data
            return heard
        finally:
            writer.close()

    async def connect(self, authority: str, *headers: str) -> bytes:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *headers]
        return await self.say("\r\n".join([*lines, "", ""]).encode())

    async def get(self, url: str, host: str) -> bytes:
        return await self.say(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with contextlib.AsyncExitStack() as stack:
        yield Net(stack)


async def _stopped(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


# --- honest clients


async def test_a_request_goes_to_the_host_that_is_allowed(net: Net) -> None:
    origin = await net.origin()
    proxy = await net.for_(origin, "api.test")
    answer = await proxy.get(f"http://API.test.:{origin.port}/a?b=c", f"api.test:{origin.port}")
    assert status(answer) == 200
    assert answer.endswith(b"ok")
    assert b"Connection: close" in answer
    assert origin.seen[0].startswith(f"GET /a?b=c HTTP/1.1\r\nHost: api.test:{origin.port}\r\n".encode())
    use = proxy.proxy.use
    assert (use.connections, use.denied, use.last_denied) == (1, 0, "")
    assert use.sent_bytes == len(origin.seen[0])
    assert use.received_bytes == len(OK)
    assert [destination.destination for destination in use.destinations] == [f"api.test:{origin.port}"]


async def test_what_is_meant_for_the_proxy_does_not_go_on(net: Net) -> None:
    origin = await net.origin()
    proxy = await net.for_(origin, "api.test")
    head = (
        f"GET http://api.test:{origin.port} HTTP/1.1\r\nHost: api.test:{origin.port}\r\nProxy-Authorization: x\r\n"
        "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nUpgrade: h2c\r\nX-Yours: 2\r\n\r\n"
    )
    await proxy.say(head.encode())
    seen = origin.seen[0].lower()
    assert seen.startswith(b"get / http/1.1\r\n")
    assert b"x-yours: 2" in seen
    assert not [name for name in (b"proxy-", b"x-mine", b"upgrade", b"keep-alive") if name in seen]


async def test_a_body_goes_along_whole(net: Net) -> None:
    body = b"x" * 300_000 + b"END"
    origin = await net.origin(until=b"END")
    proxy = await net.for_(origin, "api.test")
    head = f"POST http://api.test:{origin.port}/ HTTP/1.1\r\nHost: api.test:{origin.port}\r\nExpect: 100-continue\r\n"
    answer = await proxy.say(f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body)
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert answer.endswith(b"ok")
    assert origin.seen[0].endswith(body)


async def test_a_chunked_body_goes_along(net: Net) -> None:
    origin = await net.origin(until=b"0\r\n\r\n")
    proxy = await net.for_(origin, "api.test")
    head = f"POST http://api.test:{origin.port}/ HTTP/1.1\r\nHost: api.test:{origin.port}\r\n"
    answer = await proxy.say(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode())
    assert status(answer) == 200
    assert origin.seen[0].endswith(b"3\r\nabc\r\n0\r\n\r\n")


async def test_an_answer_without_a_length_comes_back_whole(net: Net) -> None:
    origin = await net.origin(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 200_000)
    proxy = await net.for_(origin, "api.test")
    answer = await proxy.say(f"GET http://api.test:{origin.port}/ HTTP/1.0\r\n\r\n".encode())
    assert answer.endswith(b"y" * 200_000)


async def test_connect_is_a_tunnel_both_ways(net: Net) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.close()

    port = await net.serve(echo)
    proxy = await net.for_(Origin(port=port), "api.test")
    reader, writer = await proxy.open()
    writer.write(f"CONNECT api.test:{port} HTTP/1.1\r\nHost: api.test:{port}\r\n\r\nearly ".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert await reader.readexactly(6) == b"early "
    writer.write(b"\0" * 1_000_000)
    assert await reader.readexactly(1_000_000) == b"\0" * 1_000_000
    writer.write_eof()
    assert await reader.read() == b"bye"
    writer.close()
    assert proxy.proxy.use.sent_bytes == 1_000_006
    assert proxy.proxy.use.received_bytes == 1_000_009


async def test_a_unix_socket_serves_as_well(net: Net, tmp_path: Any) -> None:
    origin = await net.origin()
    net.names.answers["api.test"] = [["127.0.0.1"]]
    rule = {"hosts": ["api.test"], "ports": [origin.port], "addresses": LOOPBACK}
    proxy = EgressProxy([rules(rule)], resolve=net.names)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "egress.sock"))
    listener.listen()
    await proxy.start(listener)
    net.stack.push_async_callback(proxy.close)
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "egress.sock"))
    writer.write(f"GET http://api.test:{origin.port}/ HTTP/1.1\r\nHost: api.test:{origin.port}\r\n\r\n".encode())
    assert (await reader.read()).endswith(b"ok")
    writer.close()


# --- destinations


async def test_a_host_that_no_rule_names_is_not_even_resolved(net: Net) -> None:
    origin = await net.origin()
    proxy = await net.for_(origin, "api.test")
    answer = await proxy.connect(f"secret-data.evil.test:{origin.port}")
    assert status(answer) == 403
    assert b"no spec.egress.allow[].hosts of policy data/p names secret-data.evil.test" in answer.split(b"\r\n")[0]
    assert net.names.asked == []
    assert proxy.proxy.use.denied == 1
    assert "secret-data.evil.test" in proxy.proxy.use.last_denied


async def test_a_port_that_is_not_listed_is_refused(net: Net) -> None:
    origin, other = await net.origin(), await net.origin()
    proxy = await net.for_(origin, "api.test")
    for answer in (
        await proxy.connect(f"api.test:{other.port}"),
        await proxy.get(f"http://api.test:{other.port}/", f"api.test:{other.port}"),
        await proxy.get("http://api.test/", "api.test"),
    ):
        assert status(answer) == 403
        assert b"spec.egress.allow[0].ports of policy data/p" in answer
    assert other.seen == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fe80::1",
        "fd00:ec2::254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    ],
)  # fmt: skip
async def test_a_name_that_leads_inwards_is_refused(net: Net, address: str) -> None:
    net.names.answers["api.test"] = [[address]]
    proxy = await net.proxy(rules({"hosts": ["api.test"]}))
    answer = await proxy.connect("api.test:443")
    assert status(answer) == 403
    assert b"spec.egress.allow[0].addresses" in answer


@pytest.mark.parametrize(
    "spelling",
    ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0", "[::]"],
)
async def test_an_address_is_judged_in_every_spelling(net: Net, spelling: str) -> None:
    proxy = await net.proxy(rules({"hosts": ["*"]}))
    assert status(await proxy.connect(f"{spelling}:443")) == 403
    assert status(await proxy.get(f"http://{spelling}:443/", f"{spelling}:443")) == 403
    assert net.names.asked == []


async def test_rebinding_gains_nothing(net: Net) -> None:
    """The first answer of the name server is checked and used; the name is not resolved again."""
    origin = await net.origin()
    inner = await net.origin(host="127.0.0.2")
    net.names.answers["api.test"] = [["127.0.0.1"], ["127.0.0.2"]]
    rule = {"hosts": ["api.test"], "ports": [origin.port, inner.port], "addresses": ["127.0.0.1/32"]}
    proxy = await net.proxy(rules(rule))
    assert status(await proxy.get(f"http://api.test:{origin.port}/", f"api.test:{origin.port}")) == 200
    assert net.names.asked == ["api.test"]
    assert status(await proxy.get(f"http://api.test:{inner.port}/", f"api.test:{inner.port}")) == 403
    assert inner.seen == []


async def test_of_several_addresses_only_those_that_may_be_are_tried(net: Net) -> None:
    origin = await net.origin()
    net.names.answers["api.test"] = [["10.0.0.1", "127.0.0.1"]]
    rule = {"hosts": ["api.test"], "ports": [origin.port], "addresses": LOOPBACK}
    proxy = await net.proxy(rules(rule))
    assert status(await proxy.get(f"http://api.test:{origin.port}/", f"api.test:{origin.port}")) == 200


async def test_the_next_address_is_tried_when_one_does_not_answer(net: Net) -> None:
    origin = await net.origin()
    net.names.answers["api.test"] = [["127.0.0.9", "127.0.0.1"]]
    rule = {"hosts": ["api.test"], "ports": [origin.port], "addresses": LOOPBACK}
    proxy = await net.proxy(rules(rule))
    assert status(await proxy.get(f"http://api.test:{origin.port}/", f"api.test:{origin.port}")) == 200


async def test_every_policy_must_allow_it(net: Net) -> None:
    origin = await net.origin()
    net.names.answers |= {"a.test": [["127.0.0.1"]], "b.test": [["127.0.0.1"]]}
    own = rules({"hosts": ["*.test"], "ports": [origin.port], "addresses": LOOPBACK})
    ceiling = rules({"hosts": ["a.test"], "ports": [origin.port], "addresses": LOOPBACK}, name="top")
    proxy = await net.proxy(own, ceiling)
    assert status(await proxy.connect(f"b.test:{origin.port}")) == 403
    assert status(await proxy.get(f"http://a.test:{origin.port}/", f"a.test:{origin.port}")) == 200


async def test_a_wildcard_is_not_its_apex_and_a_look_alike_is_another_name(net: Net) -> None:
    proxy = await net.proxy(rules({"hosts": ["*.example.test", "api.test"]}))
    for host in ("example.test", "xexample.test", "example.test.evil.test", "xn--pi-6kc.test"):
        assert status(await proxy.connect(f"{host}:443")) == 403
    assert status(await proxy.say("CONNECT аpi.test:443 HTTP/1.1\r\n\r\n".encode())) == 400
    assert net.names.asked == []


async def test_nothing_is_reached_without_rules(net: Net) -> None:
    for proxy in (await net.proxy(), await net.proxy(rules())):
        assert status(await proxy.connect("api.test:443")) == 403


async def test_a_name_that_nobody_knows_and_a_host_that_does_not_answer(net: Net) -> None:
    net.names.answers["dead.test"] = [["127.0.0.9"]]
    closed = Origin(port=9)
    proxy = await net.for_(closed, "dead.test", "unknown.test")
    del net.names.answers["unknown.test"]
    assert status(await proxy.connect("unknown.test:9")) == 502
    assert status(await proxy.connect("dead.test:9")) == 502
    assert proxy.proxy.use.denied == 0


async def test_a_name_server_that_does_not_answer_is_not_waited_for(net: Net) -> None:
    async def silent(name: str, port: int) -> Sequence[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    proxy = await net.proxy(rules({"hosts": ["*"]}), resolve=silent, limits=ProxyLimits(resolve_seconds=0.1))
    assert status(await proxy.connect("api.test:443")) == 504


async def test_the_machines_own_address_is_not_the_internet(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    local, away = (ipaddress.ip_address(text) for text in ("127.9.9.9", "192.0.2.1"))
    mapped = ipaddress.ip_address("::ffff:127.0.0.1")
    assert dialing.own_addresses([local, away, mapped]) == {local, ipaddress.ip_address("127.0.0.1")}
    public = ipaddress.ip_address("8.8.8.8")
    monkeypatch.setattr(dialing, "own_addresses", lambda addresses: frozenset(addresses))
    net.names.answers["api.test"] = [[str(public)]]
    answer = await (await net.proxy(rules({"hosts": ["api.test"]}))).connect("api.test:443")
    assert status(answer) == 403
    assert b"8.8.8.8, an address of the operator's own machine" in answer


async def test_one_namespace_cannot_use_up_all_look_ups(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked = threading.Event(), []
    real = socket.getaddrinfo

    def slow(name: str, *rest: Any, **more: Any) -> Any:
        if name.endswith(".slow.test"):
            asked.append(name)
            answered.wait(30)
            raise OSError(-3, "Temporary failure in name resolution")
        return real("127.0.0.1" if name == "api.test" else name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    origin, shared = await net.origin(), Connections()
    rule = {"hosts": ["*"], "ports": [origin.port], "addresses": LOOPBACK}
    options = {"resolve": system_resolver, "connections": shared, "limits": ProxyLimits(resolve_seconds=0.5)}
    hostile = [await net.proxy(rules(rule, namespace="hostile"), **options) for _ in range(2)]
    calm = await net.proxy(rules(rule, namespace="calm"), **{**options, "limits": ProxyLimits(resolve_seconds=20)})
    names = [f"{number}.slow.test:{origin.port}" for number in range(60)]
    try:
        refused = await asyncio.gather(*[proxy.connect(name) for proxy in hostile for name in names])
        assert {status(answer) for answer in refused} == {504}
        assert 0 < len(asked) <= LOOKUPS
        assert status(await calm.get(f"http://api.test:{origin.port}/", f"api.test:{origin.port}")) == 200
    finally:
        answered.set()


async def test_the_operators_own_resolver() -> None:
    assert ipaddress.ip_address("127.0.0.1") in await system_resolver("localhost", 443)
    with pytest.raises(OSError, match=r"known|resolution|address"):
        await system_resolver("nowhere.invalid", 443)


# --- requests that lie


@pytest.mark.parametrize(
    "request_",
    [
        "GET http://api.test@evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://user:pw@api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://evil.test\\@api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://evil.test#@api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://api.test%00.evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://api.test:80:443/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://api.test:0/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://api.test:99999/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://api.test:+80/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET ://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET https://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET ftp://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: api.test:8080\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: api.test, evil.test\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nHost: evil.test\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\n\r\n",
        "CONNECT api.test HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:22\r\n\r\n",
        "CONNECT x@api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        "CONNECT api.test:443/x HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        "CONNECT http://api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        "CONNECT ::1:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nContent-Length: 4\r\n\r\nabcd",
        "POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        "POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nContent-Length: +4\r\n\r\n",
        "POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding : chunked\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n X: folded\r\n: nameless\r\n\r\n",
        "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nX: a\0b\r\n\r\n",
        "GET http://api.test/\x01 HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "GET http://api.test/ HTTP/2.0\r\nHost: api.test\r\n\r\n",
        "\x05\x01\x00\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\r\n\r\n",
        "nonsense\r\n\r\n",
    ],
)  # fmt: skip
async def test_a_request_that_can_be_read_in_two_ways_is_refused(net: Net, request_: str) -> None:
    proxy = await net.proxy(rules({"hosts": ["api.test"], "ports": [80, 443], "addresses": LOOPBACK}))
    answer = await proxy.say(request_.encode("latin-1"))
    assert status(answer) in {400, 501, 505}, answer
    assert net.names.asked == []
    assert proxy.proxy.use.connections == 0
    assert proxy.proxy.use.denied == 1


async def test_a_second_request_on_the_same_connection_goes_nowhere(net: Net) -> None:
    """It is sent neither to the first request's host nor to its own."""
    origin = await net.origin()
    proxy = await net.for_(origin, "api.test", "other.test")
    first = f"GET http://api.test:{origin.port}/1 HTTP/1.1\r\nHost: api.test:{origin.port}\r\n\r\n"
    second = f"GET http://other.test:{origin.port}/2 HTTP/1.1\r\nHost: other.test:{origin.port}\r\n\r\n"
    answer = await proxy.say((first + second).encode())
    assert answer.count(b"HTTP/1.1 200") == 1
    assert len(origin.seen) == 1
    assert b"/2" not in origin.seen[0]


async def test_a_body_that_ends_early_is_not_taken_for_whole(net: Net) -> None:
    origin = await net.origin(until=b"never")
    proxy = await net.for_(origin, "api.test")
    reader, writer = await proxy.open()
    writer.write(f"POST http://api.test:{origin.port}/ HTTP/1.1\r\nHost: api.test:{origin.port}\r\n".encode())
    writer.write(b"Content-Length: 1000\r\n\r\nshort")
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    assert status(answer) in {0, 502}


async def test_an_answer_that_is_not_http_is_a_bad_gateway(net: Net) -> None:
    origin = await net.origin(b"SSH-2.0-OpenSSH\r\n")
    proxy = await net.for_(origin, "api.test")
    answer = await proxy.get(f"http://api.test:{origin.port}/", f"api.test:{origin.port}")
    assert status(answer) == 502


# --- floods


async def test_a_header_bomb_is_cut_off(net: Net) -> None:
    proxy = await net.proxy(rules({"hosts": ["api.test"]}))
    bomb = b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n" + b"X: y\r\n" * 50_000
    assert status(await proxy.say(bomb)) == 431
    assert status(await proxy.say(b"GET http://api.test/" + b"a" * 200_000)) == 431


async def test_a_slow_head_is_not_waited_for(net: Net) -> None:
    proxy = await net.proxy(limits=ProxyLimits(patience=Patience(head_seconds=0.1)))
    assert status(await proxy.say(b"GET http://api.test/ HTTP/1.1\r\nX: ")) == 408


async def test_an_idle_tunnel_is_closed(net: Net) -> None:
    origin = await net.origin(until=b"never")
    proxy = await net.for_(origin, "api.test", limits=ProxyLimits(patience=Patience(idle_seconds=0.1)))
    answer = await proxy.connect(f"api.test:{origin.port}")
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"


async def test_only_so_many_connections_at_once(net: Net) -> None:
    shared = Connections(3)
    first = await net.proxy(limits=ProxyLimits(connections=2), connections=shared)
    second = await net.proxy(limits=ProxyLimits(connections=2), connections=shared)
    held = [await proxy.open() for proxy in (first, first, second)]
    await _until(lambda: shared.now == 3)
    assert status(await first.say()) == 503
    assert status(await second.say()) == 503  # its own limit is not reached, but that of all proxies is
    for _, writer in held:
        writer.close()
    await _until(lambda: shared.now == 0)
    assert status(await first.connect("api.test:443")) == 403


async def test_many_destinations_are_counted_together(net: Net) -> None:
    proxy = await net.proxy(rules({"hosts": ["api.test"]}))
    for number in range(70):
        await proxy.connect(f"h{number}.test:443")
    use = proxy.proxy.use
    assert use.denied == 70
    assert len(use.destinations) == 65
    assert use.destinations[-1].destination == "(others)"
    assert use.destinations[-1].denied == 6


async def test_close_cuts_every_connection(net: Net) -> None:
    origin = await net.origin(until=b"never")
    proxy = await net.for_(origin, "api.test")
    reader, writer = await proxy.open()
    writer.write(f"CONNECT api.test:{origin.port} HTTP/1.1\r\n\r\n".replace("1.1", "1.0").encode())
    await reader.readuntil(b"\r\n\r\n")
    await proxy.proxy.close()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError):  # the errno depends on the kernel
        await proxy.open()


async def test_a_client_that_does_not_read_does_not_delay_others(net: Net) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        writer.close()

    port = await net.serve(endless)
    proxy = await net.for_(Origin(port=port), "api.test")
    _, deaf = await proxy.open()
    deaf.transport.pause_reading()
    deaf.write(f"CONNECT api.test:{port} HTTP/1.0\r\n\r\n".encode())
    await _until(lambda: proxy.proxy.use.received_bytes > 0)
    assert status(await proxy.connect("other.test:443")) == 403
    await proxy.proxy.close()
    deaf.transport.abort()


async def test_everything_arrives_at_a_pace(net: Net) -> None:
    origin = await net.origin(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"z" * 50_000)
    proxy = await net.for_(origin, "api.test", bytes_per_second=500_000)
    answer = await proxy.get(f"http://api.test:{origin.port}/", f"api.test:{origin.port}")
    assert answer.endswith(b"z" * 50_000)


async def _until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not reached():
            await asyncio.sleep(0.01)


async def test_a_start_that_is_given_up_at_any_wait_leaves_no_listener() -> None:
    for waits in range(1, 10):
        listener = socket.create_server(("127.0.0.1", 0))
        proxy = EgressProxy([])
        starting = proxy.start(listener)
        try:
            for _ in range(waits):
                starting.send(None)
            with pytest.raises(asyncio.CancelledError):
                starting.throw(asyncio.CancelledError())
        except StopIteration:
            assert waits > 1, "it never waits"
            return
        finally:
            starting.close()
            await proxy.close()
        assert listener.fileno() == -1
    raise AssertionError("it never ends")
