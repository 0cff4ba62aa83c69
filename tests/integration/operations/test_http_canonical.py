"""Tests that a server receives exactly the request that the policy checked, and that each hop of a redirect is checked
as it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.operations.file.executor import FileExecutor
from remit.operations.http.executor import HttpExecutor
from remit.policy.deciding import Decision
from remit.policy.hosts import Address
from remit.policy.rules import describe

from .conftest import Desk

pytestmark = pytest.mark.no_cover

DETOURS = [
    "/v1/../admin",
    "/v1/%2e%2e/admin",
    "/v1/%2E./admin",
    "/v1/.%2e/admin",
    "/v1/..%2fadmin",
    "/v1/..%2Fadmin",
    "/v1%2f..%2fadmin",
    "/v1/..;/admin",
    "/v1/..;a=b/admin",
    "/v1/..%3b/admin",
    "/v1/..\\admin",
    "/v1\\..\\admin",
    "/v1/..%5cadmin",
    "/v1/%252e%252e/admin",
    "/v1/..%252fadmin",
    "/v1/%25252e%25252e/admin",
    "/v1/./../admin",
    "/v1/..",
    "/v1/.",
    "/v1/..%20/admin",
    "/v1/%c0%ae%c0%ae/admin",
    "/v1/\uff0e\uff0e/admin",
    "/v1/\u2025/admin",
    "/v1/.%00./admin",
    "/v1/.%0a./admin",
    "/v1/.\t./admin",
    "/v1/.\n./admin",
]


@dataclass
class RawServer:
    """Records the request line and the Host header of each request as they arrived."""

    port: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    location: str = ""
    """The redirect target of requests for /v1/redirect."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            line, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            host = next(header.partition(": ")[2] for header in headers if header.lower().startswith("host:"))
            self.seen.append((line, host))
            status = "200 OK"
            if "/v1/redirect " in line:
                status = f"302 Found\r\nLocation: {self.location}"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def raw_server() -> AsyncIterator[RawServer]:
    recording = RawServer()
    server = await asyncio.start_server(recording.serve, "127.0.0.1", 0)
    recording.port = server.sockets[0].getsockname()[1]
    try:
        yield recording
    finally:
        server.close()
        await server.wait_closed()


async def local(name: str, port: int) -> list[Address]:
    return [ipaddress.ip_address("127.0.0.1")]


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as running:
        yield running


@pytest.fixture
def desk(server: RawServer) -> Desk:
    return judged_desk(server.port)


def judged_desk(port: int, *paths: str) -> Desk:
    rule = {"hosts": ["api.test"], "ports": [port], "paths": list(paths or ["/v1/**"]), "addresses": ["127.0.0.0/8"]}
    return Desk(HttpExecutor(resolve=local), [{"http": {"allow": [rule]}}])


@pytest.mark.parametrize("path", DETOURS)
async def test_a_detour_is_refused_in_every_spelling(desk: Desk, server: RawServer, path: str) -> None:
    decision = desk.decision(http={"url": f"http://api.test:{server.port}{path}"})
    assert (decision.allowed, str(decision.reason)) == (False, "InvalidRequest")
    with pytest.raises(PolicyDenied, match=r"spec\.http\.url: "):
        await desk.do(http={"url": f"http://api.test:{server.port}{path}"})
    assert server.seen == []


@pytest.mark.parametrize("path", DETOURS)
async def test_a_detour_is_refused_in_a_redirect(desk: Desk, server: RawServer, path: str) -> None:
    """A relative redirect may be resolved as RFC 3986 says, but its result is checked."""
    server.location = f"http://api.test:{server.port}{path}"
    for location in (server.location, path):
        server.seen.clear()
        server.location = location.replace("\n", "\\")  # a header consists of one line
        with pytest.raises((PolicyDenied, OperationFailed)):
            await desk.do(http={"url": f"http://api.test:{server.port}/v1/redirect"})
        assert [line for line, _ in server.seen] == ["GET /v1/redirect HTTP/1.1"]


@pytest.mark.parametrize("path", DETOURS)
async def test_a_detour_is_refused_in_a_download(server: RawServer, folder: Path, path: str) -> None:
    desk = judged_desk(server.port)
    desk.policies[0]["files"] = {"allow": [{"paths": [f"{folder}/**"], "operations": ["write"]}]}
    desk.executor = FileExecutor([], HttpExecutor(local).download)
    file: dict[str, Any] = {"operation": "write", "path": f"{folder}/a"}
    with pytest.raises(PolicyDenied, match=r"spec.file.contentFrom.url: "):
        await desk.do(file=file | {"contentFrom": {"url": f"http://api.test:{server.port}{path}"}})
    server.location = path.replace("\n", "\\")
    with pytest.raises((PolicyDenied, OperationFailed)):
        await desk.do(file=file | {"contentFrom": {"url": f"http://api.test:{server.port}/v1/redirect"}})
    assert [line for line, _ in server.seen] == ["GET /v1/redirect HTTP/1.1"]


async def test_a_policy_that_only_audits_lets_no_ambiguous_request_out(desk: Desk, server: RawServer) -> None:
    desk.policies[0]["enforcement"] = "Audit"
    for url in (f"http://api.test:{server.port}/v1/../admin", f"http://user@api.test:{server.port}/v1/"):
        with pytest.raises(PolicyDenied, match=r"spec\.http\.url"):
            await desk.do(http={"url": url})
    with pytest.raises(PolicyDenied, match="Host is Remit's own"):
        url = f"http://api.test:{server.port}/v1/"
        await desk.do(http={"url": url, "headers": [{"name": "Host", "value": "internal.test"}]})
    assert server.seen == []


async def test_a_relative_redirect_is_resolved_and_then_judged(desk: Desk, server: RawServer) -> None:
    port = server.port
    for location, sent in (
        ("a%2db?c=%7e#part", "/v1/a-b?c=%7e"),
        ("../v1/x", "/v1/x"),
        ("?q", "/v1/redirect?q"),
        (f"//API.test:{port}/v1/y", "/v1/y"),
        (f"HTTP://api.test:{port}/v1/caf\u00e9", "/v1/caf%C3%A9"),
    ):
        server.location = location
        server.seen.clear()
        await desk.do(http={"url": f"http://api.test:{port}/v1/redirect"})
        assert server.seen[1:] == [(f"GET {sent} HTTP/1.1", f"api.test:{port}")]


async def test_what_is_sent_is_what_was_judged_and_recorded(desk: Desk, server: RawServer) -> None:
    url = f"http://API.Test:0{server.port}/v1/%7eme/%c3%a9?a=%41&b[]=|"
    await desk.do(http={"url": url})
    assert server.seen == [("GET /v1/~me/%C3%A9?a=%41&b%5B%5D=%7C HTTP/1.1", f"api.test:{server.port}")]
    assert f'"url":"http://api.test:{server.port}/v1/~me/%C3%A9?a=%41&b%5B%5D=%7C"' in desk.output.stderr.decode()
    recorded = describe(desk.work(http={"url": url}).grant.request)
    assert recorded == f"GET http://api.test:{server.port}/v1/~me/%C3%A9"


TEXT = st.text(
    st.one_of(
        st.sampled_from("abz09-._~%/\\:;=&?#@!$'()*+,[]{}|^`\"<> .%2eEfF5cC"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=24,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.lists(TEXT, min_size=1, max_size=8))
def test_whatever_is_asked_the_server_receives_what_was_judged(paths: list[str]) -> None:
    """The path that the policy checked is the whole path of the request line, for any path that is allowed."""

    async def ask() -> None:
        async with raw_server() as server:
            desk = judged_desk(server.port, "/v1/**")
            for text in paths:
                server.seen.clear()
                url = f"http://api.test:{server.port}/v1/{text}"
                try:
                    await desk.do(http={"url": url})
                except PolicyDenied:
                    assert server.seen == []
                    continue
                (line, host), *more = server.seen
                assert (more, host) == ([], f"api.test:{server.port}")
                method, target, _ = line.split(" ")
                assert judged(desk, url) == f"{method} http://{host}{target.partition('?')[0]}"
                assert target.startswith("/v1/")

    asyncio.run(ask())


def judged(desk: Desk, url: str) -> str:
    decision: Decision = desk.decision(http={"url": url})
    assert decision.allowed
    return describe(desk.work(http={"url": url}).grant.request)
