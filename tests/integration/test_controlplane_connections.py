"""Tests hostile connections: clients with the token are served at the same time."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplanes import CONFIGMAPS, PATIENCE, client_of, configmap
from remit.controlplane.http import listener
from remit.controlplane.server import ControlPlane


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits the server to 32 connections, 8 of them unauthenticated."""
    monkeypatch.setattr("remit.controlplane.server.raise_descriptor_limit", lambda: 64)


@asynccontextmanager
async def connections(server: ControlPlane, count: int, *, tls: bool = True, head: bytes = b"") -> AsyncIterator[Any]:
    """Opens `count` connections one after another, each with the beginning of a request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opened = []
    try:
        for _ in range(count):
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(server.host, server.port, ssl=context if tls else None)
            writer.write(head)
            opened.append((reader, writer))
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Waits until the server has closed the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            while await reader.read(4096):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
    return True


@pytest.mark.parametrize(
    ("tls", "head"),
    [
        pytest.param(False, b"", id="no handshake"),
        pytest.param(False, b"\x16\x03\x01\x00\xa5\x01", id="half a handshake"),
        pytest.param(True, b"", id="no request"),
        pytest.param(True, b"GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nX-A: ", id="half a header"),
        pytest.param(True, b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", id="half a body"),
    ],
)
async def test_clients_are_served_beside_connections_without_a_token(
    tmp_path: Path, small_budget: None, tls: bool, head: bytes
) -> None:
    with capture_logs() as logs:
        async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
            async with connections(server, 60, tls=tls, head=head) as opened:
                oldest = [reader for reader, _ in opened[:50]]
                assert all(await asyncio.gather(*(closed(reader) for reader in oldest)))
                for number in range(10):
                    await client.create(CONFIGMAPS, configmap(f"c{number}"))
            assert len(await client.names(CONFIGMAPS)) == 10
    assert len([entry for entry in logs if entry["event"] == "connections_dropped"]) <= 2


async def test_a_connection_that_shows_no_token_in_time_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "UNAUTHENTICATED_SECONDS", 2.0)
    async with (
        ControlPlane(tmp_path) as server,
        client_of(server.kubeconfig) as client,
        client.watch(CONFIGMAPS) as events,
    ):
        async with connections(server, 1, head=b"GET /api HTTP/1.1\r\n") as [(slow, _)]:
            assert await closed(slow)
        async with connections(server, 1, tls=False) as [(silent, _)]:
            assert await closed(silent)
        await client.create(CONFIGMAPS, configmap("a"))
        assert await events.take(1) == [("ADDED", "a")], "a connection with the token stays"


async def test_a_refused_request_does_not_keep_its_connection(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path) as server:
        for path, status in ((b"/api", b"401"), (b"/healthz", b"200")):
            async with connections(server, 1, head=b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n") as [(reader, _)]:
                async with asyncio.timeout(PATIENCE):
                    answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 " + status), answer


async def test_no_descriptors_left_is_logged_once_and_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, 0

    async def failing(sock: Any) -> Any:
        nonlocal failures
        if failures < 5:
            failures += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(sock)

    with capture_logs() as logs:
        async with ControlPlane(tmp_path) as server:
            monkeypatch.setattr(loop, "sock_accept", failing)
            for number in range(3):
                async with client_of(server.kubeconfig) as client:
                    await client.create(CONFIGMAPS, configmap(f"c{number}"))
            assert failures == 5
    (told,) = [entry for entry in logs if entry["event"] == "accept_failed"]
    assert "Too many open files" in told["error"]


async def test_a_watcher_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.controlplane.http.front.WRITE_SECONDS", 0.5)
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        token = (tmp_path / "token").read_bytes().strip()
        head = b"GET /api/v1/configmaps?watch=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
        async with connections(server, 1, head=head) as [(reader, writer)]:
            async with asyncio.timeout(PATIENCE):
                await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()
            name = 0
            async with asyncio.timeout(PATIENCE):
                while server._front is not None and server._front._watches:
                    name += 1
                    await client.create(CONFIGMAPS, {**configmap(f"c{name}"), "data": {"a": "x" * 500_000}})


@pytest.mark.parametrize(
    "request_with_token",
    [
        pytest.param("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization:\r\n Bearer {token}\r\n\r\n", id="a folded header"),
        pytest.param("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \0{token}\r\n\r\n", id="a NUL"),
        pytest.param("GET /api?token={token} HTTP/9.x\r\n\r\n", id="an unknown version"),
        pytest.param(
            "POST /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: z\r\n\r\n", id="a length"
        ),
        pytest.param("GET /api HTTP/1.1\r\nX: {token}" + "a" * 20_000 + "\r\n\r\n", id="a long header"),
    ],
)
async def test_what_is_not_http_is_refused_and_not_logged(
    tmp_path: Path, request_with_token: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with ControlPlane(tmp_path) as server:
        token = (tmp_path / "token").read_text().strip()
        with capture_logs() as logs:
            head = request_with_token.format(token=token).encode()
            async with connections(server, 1, head=head) as [(reader, _)], asyncio.timeout(PATIENCE):
                assert (await reader.readline()).split()[1] == b"400"
    assert [entry["event"] for entry in logs if entry["log_level"] != "debug"] == ["malformed_request"]
    assert token not in f"{logs}{caplog.text}"
