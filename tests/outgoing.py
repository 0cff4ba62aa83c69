"""Shared parts of tests of `network: restricted`: the outgoing connections of a program, a host to reach, and its
address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from dockers import docker
from policies import policy
from remit.policy.egress import Egress
from remit.policy.hosts import Address

PRELUDE = """
import json, os, socket, urllib.request, urllib.error
def fetch(url):
    try:
        return urllib.request.urlopen(url, timeout=20).read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return f"failed: {error}"
def tries(*address, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
    try:
        s = socket.socket(family, kind, protocol); s.settimeout(5)
        s.connect(address[0] if len(address) == 1 else address)
        s.send(b"x")
        return "connected"
    except OSError as error:
        return "stopped"
"""


_PATIENCE = 60
_LISTENING = "0100007F:0C38 00000000:0000 0A"
"""The entry for 127.0.0.1:3128 in /proc/net/tcp."""


async def local(name: str, port: int) -> Sequence[Address]:
    """Resolves every name to this host."""
    return [ipaddress.ip_address("127.0.0.1")]


def egress(port: int, **rule: Any) -> Egress:
    """Returns the egress rules of a policy that lists `api.test`, which is this host."""
    rule = {"hosts": ["api.test"], "ports": [port], "addresses": ["127.0.0.0/8"]} | rule
    return policy(networks=["restricted"], egress={"allow": [rule]}).egress


async def open_listener(holder: str) -> None:
    """Waits until a listener exists at the proxy's address in the network of the container `holder`."""
    found = docker("inspect", "--format", "{{.State.Pid}}", holder)
    assert found.returncode == 0, found.stderr
    listening = Path(f"/proc/{found.stdout.decode().strip()}/net/tcp")
    async with asyncio.timeout(_PATIENCE):
        while _LISTENING not in listening.read_text():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def web_server() -> AsyncIterator[int]:
    """Starts a server on the host's loopback interface that returns the requested path, or as many bytes as the path
    says. Yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]:
            count = line.split()[1].removeprefix(b"/bytes/")
            body = b"x" * int(count) if count.isdigit() else line
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
