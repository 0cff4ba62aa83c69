"""Tests databases over TLS: a task trusts what it refers to, and nothing of the operator's home and environment."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from remit.backends.failure import OperationFailed
from remit.controlplane.certificates import ensure_tls
from remit.operations.database.postgres import PostgresExecutor
from remit.operations.database.redis import RedisExecutor
from servers import postgres, valkey

from .conftest import Desk

CONNECTION = {"name": "db", "key": "url"}
POLICY = {
    "databases": {
        "postgres": {"secrets": ["db"], "statements": ["select"]},
        "redis": {"secrets": ["db"], "commands": ["GET"]},
    }
}


@dataclass(frozen=True)
class Certificates:
    authority: bytes
    certificate: Path
    key: Path
    client: bytes
    client_key: bytes
    other_authority: bytes


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    material = ensure_tls(folder / "a", ["localhost"])
    other = ensure_tls(folder / "b", ["localhost"])
    signer = serialization.load_pem_private_key((folder / "a" / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    authority = x509.load_pem_x509_certificate(material.authority.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    client = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(authority.not_valid_before_utc)
        .not_valid_after(authority.not_valid_after_utc)
        .sign(signer, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificates(
        material.authority.read_bytes(),
        material.certificate,
        material.key,
        client.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(*form),
        other.authority.read_bytes(),
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("postgres")
    server, url = postgres(folder, encrypted=True)
    data = folder / "data"
    (data / "ca.crt").write_bytes(certificates.authority)
    for name, source in (("server.crt", certificates.certificate), ("server.key", certificates.key)):
        (data / name).write_bytes(source.read_bytes())
        (data / name).chmod(0o600)
    (data / "pg_hba.conf").write_text(
        "hostssl all shop 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
    )
    server.argv += ["-c", "ssl=on", "-c", "ssl_ca_file=ca.crt"]
    server.start()
    with psycopg.connect(url, sslmode="require", autocommit=True) as connection:
        connection.execute("CREATE ROLE shop LOGIN")
    yield url.replace("127.0.0.1", "localhost")
    server.stop()


@pytest.fixture
async def postgres_desk() -> AsyncIterator[Desk]:
    desk = Desk(PostgresExecutor(), [POLICY])
    yield desk
    await desk.executor.close()


def references(**values: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns fields of an operation, and the values that they refer to."""
    fields = {name: {"secretKeyRef": {"name": "tls", "key": name}} for name in values}
    return fields, {f"{name}.secretKeyRef": value for name, value in values.items()}


async def select(desk: Desk, url: str, **values: bytes) -> Any:
    fields, found = references(**values)
    sql = "SELECT current_user::text AS who, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    operation = {"connection": CONNECTION, "statements": [{"sql": sql}], **fields}
    await desk.do({"connection": url.encode(), **found}, postgres=operation)
    return orjson.loads(desk.output.stdout)["rows"][0]


async def test_an_authority_is_what_the_certificate_is_held_to(
    postgres_desk: Desk, database: str, certificates: Certificates
) -> None:
    for mode in ("", "?sslmode=verify-full", "?sslmode=verify-ca"):
        row = await select(postgres_desk, database + mode, caFrom=certificates.authority)
        assert row == {"who": "admin", "ssl": True}
    for url, values in (
        (database, {"caFrom": certificates.other_authority}),
        (database.replace("localhost", "127.0.0.1"), {"caFrom": certificates.authority}),
        (f"{database}?sslmode=verify-full", {}),
    ):
        with pytest.raises(OperationFailed) as caught:
            await select(postgres_desk, url, **values)
        assert (caught.value.reason, caught.value.retryable) == ("TlsFailed", False), caught.value


async def test_a_client_certificate_is_shown(postgres_desk: Desk, database: str, certificates: Certificates) -> None:
    shop = database.replace("admin:canary-password", "shop")
    pair = {"certFrom": certificates.client, "keyFrom": certificates.client_key}
    assert await select(postgres_desk, shop, caFrom=certificates.authority, **pair) == {"who": "shop", "ssl": True}
    with pytest.raises(OperationFailed, match="certificate") as caught:
        await select(postgres_desk, shop, caFrom=certificates.authority)
    assert caught.value.reason == "ConnectFailed"


@pytest.mark.parametrize(
    ("mode", "values", "told"),
    [
        ("?sslmode=require", {"caFrom": b"AUTHORITY"}, "sslmode=require does not look at the authority"),
        ("?sslmode=disable", {"caFrom": b"AUTHORITY"}, "sslmode=disable does not look at the authority"),
        ("?sslmode=verify-ca", {}, "verify-ca needs an authority"),
        ("", {"caFrom": b"junk"}, r"^spec.postgres.caFrom: .*no certificate"),
        ("", {"certFrom": b"junk", "keyFrom": b"junk"}, r"^spec.postgres.certFrom and .*unencrypted key"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    postgres_desk: Desk, database: str, certificates: Certificates, mode: str, values: dict[str, bytes], told: str
) -> None:
    given = {name: certificates.authority if value == b"AUTHORITY" else value for name, value in values.items()}
    with pytest.raises(OperationFailed, match=told) as caught:
        await select(postgres_desk, database + mode, **given)
    assert (caught.value.retryable, caught.value.category) == (False, "Invalid")


async def test_nothing_of_the_operators_own_is_read(
    postgres_desk: Desk,
    database: str,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of these settings would change the server, the user or the trusted authorities."""
    home = tmp_path / ".postgresql"
    home.mkdir()
    (home / "root.crt").write_bytes(certificates.other_authority)
    (home / "root.crl").write_text("junk")
    (home / "postgresql.crt").write_bytes(certificates.client)
    (home / "postgresql.key").write_bytes(certificates.client_key)
    (home / "postgresql.key").chmod(0o600)
    (tmp_path / ".pgpass").write_text("*:*:*:*:canary-password\n")
    (tmp_path / ".pgpass").chmod(0o600)
    (tmp_path / ".pg_service.conf").write_text("[any]\nhost=nobody.invalid\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for option in psycopg.pq.Conninfo.get_defaults():
        if option.envvar not in {None, b"PGSERVICE"}:
            monkeypatch.setenv(str(option.envvar, "ascii") if option.envvar else "", "canary-password")
    monkeypatch.setenv("PGOPTIONS", "-c role=pg_monitor")
    assert await select(postgres_desk, f"{database}?sslmode=require") == {"who": "admin", "ssl": True}
    for url in (database.replace("admin:canary-password", "admin"), database.replace("admin:canary-password", "shop")):
        with pytest.raises(OperationFailed) as caught:
            await select(postgres_desk, f"{url}?sslmode=require")
        assert caught.value.reason == "ConnectFailed"
    monkeypatch.setenv("PGSERVICE", "any")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / ".pg_service.conf"))
    with pytest.raises(OperationFailed, match="environment has PGSERVICE") as caught:
        await select(postgres_desk, f"{database}?sslmode=prefer")
    assert not caught.value.retryable


@contextlib.asynccontextmanager
async def encrypted(port: int, certificates: Certificates) -> AsyncIterator[int]:
    """Starts a TLS proxy that requires a client certificate, in front of the server at `port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=certificates.authority.decode())
    context.load_cert_chain(certificates.certificate, certificates.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # in TLS 1.2 the handshake itself reports a refused client

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_forward(reader, onward), _forward(there, writer), return_exceptions=True)

    server = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _forward(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        to.write(data)
        await to.drain()
    to.close()


async def test_redis_over_tls(tmp_path: Path, certificates: Certificates) -> None:
    server, plain = valkey(tmp_path)
    server.start()
    desk = Desk(RedisExecutor(), [POLICY])

    async def get(url: str, **values: bytes) -> Any:
        fields, found = references(**values)
        operation = {"connection": CONNECTION, "commands": [["GET", "a"]], **fields}
        await desk.do({"connection": url.encode(), **found}, redis=operation)
        return orjson.loads(desk.output.stdout)["reply"]

    pair = {"certFrom": certificates.client, "keyFrom": certificates.client_key}
    try:
        async with encrypted(server.port, certificates) as port:
            url = f"rediss://:canary-password@localhost:{port}/0"
            assert await get(url, caFrom=certificates.authority, **pair) is None
            for wrong, values in (
                (url, {"caFrom": certificates.other_authority, **pair}),
                (url, pair),
                (url.replace("localhost", "127.0.0.1"), {"caFrom": certificates.authority, **pair}),
            ):
                with pytest.raises(OperationFailed, match="not trusted") as caught:
                    await get(wrong, **values)
                assert (caught.value.reason, caught.value.retryable) == ("TlsFailed", False)
            with pytest.raises(OperationFailed) as caught:
                await get(url, caFrom=certificates.authority)
            assert caught.value.reason == "ConnectFailed"
        with pytest.raises(OperationFailed, match="rediss://") as caught:
            await get(plain, caFrom=certificates.authority)
        assert caught.value.reason == "InvalidConnection"
    finally:
        await desk.executor.close()
        server.stop()
