"""Tests the messages about an unusable kubeconfig: which file or server, what is wrong, and what to do."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from remit.controllers.operator import running_operator
from remit.controllers.settings import Settings
from remit.controlplane.certificates import ensure_tls
from remit.errors import ApiError, RemitError
from remit.kube.access import Access
from remit.kube.client import TASKS, Kube
from remit.telemetry.redact import Redactor
from webserver import answering


def kubeconfig(path: Path, server: str = "https://127.0.0.1:1", authority: bytes = b"", **user: str) -> Path:
    cluster: dict[str, Any] = {"server": server}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": cluster}],
        "users": [{"name": "one", "user": {"token": "t", **user}}],
        "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one", "namespace": "team"}}],
        "current-context": "one",
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def test_of_several_files_those_that_are_there_count_and_the_others_are_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{kubeconfig(tmp_path / 'config')}")
    assert (await Access.load()).namespace == "team"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{tmp_path / 'gone'}")
    with pytest.raises(RemitError, match=r"there is no kubeconfig .*missing:.*gone. Start one with 'remit up'"):
        await Access.load()
    assert capfd.readouterr() == ("", "")


async def test_impersonation_of_a_kubeconfig_is_requested(tmp_path: Path) -> None:
    """kubectl does this too, and administrators who hand out such a kubeconfig rely on it."""
    path = kubeconfig(tmp_path / "config")
    document = yaml.safe_load(path.read_text())
    acting = {
        "as": "somebody",
        "as-uid": "7",
        "as-groups": ["readers", "data"],
        "as-user-extra": {"example/Team": ["a"]},
    }
    document["users"][0]["user"] |= acting
    path.write_text(yaml.safe_dump(document))
    asked: list[tuple[str, str]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.extend((name.lower(), value) for name, value in request.headers.items())
        return web.json_response({"items": [], "metadata": {}})

    async with answering(answer) as port:
        document["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{port}"
        path.write_text(yaml.safe_dump(document))
        async with Kube(await Access.load(path)) as kube:
            await kube.list(TASKS)
    assert [each for each in asked if each[0].startswith(("impersonate", "authorization"))] == [
        ("authorization", "Bearer t"),
        ("impersonate-user", "somebody"),
        ("impersonate-uid", "7"),
        ("impersonate-group", "readers"),
        ("impersonate-group", "data"),
        ("impersonate-extra-example%2fteam", "a"),
    ]


@pytest.mark.parametrize("acting", [{"as": "somebody", "as-groups": "one"}, {"as": "somebody", "as-user-extra": ["x"]}])
async def test_who_is_to_be_acted_as_is_read_or_nothing_is_done(tmp_path: Path, acting: dict[str, Any]) -> None:
    with pytest.raises(RemitError, match="is not a kubeconfig"):
        await Access.load(kubeconfig(tmp_path / "config", **acting))


async def test_a_context_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RemitError, match=r"config has no context 'two'; it has one$"):
        await Access.load(kubeconfig(tmp_path / "config"), "two")


async def test_an_authority_that_is_no_certificate(tmp_path: Path) -> None:
    access = await Access.load(kubeconfig(tmp_path / "config", authority=b"hello"))
    with pytest.raises(
        RemitError, match=r"certificates for https://127.0.0.1:1 in the kubeconfig cannot be used: NO_CERT"
    ):
        access.ssl_context()


@pytest.mark.parametrize(
    ("age", "why"),
    [
        (datetime.timedelta(0), "unable to get local issuer"),
        (datetime.timedelta(days=800), "certificate has expired"),
    ],
    ids=["of another authority", "expired"],
)
async def test_a_server_whose_certificate_is_not_trusted(tmp_path: Path, age: datetime.timedelta, why: str) -> None:
    made = datetime.datetime.now(datetime.UTC) - age
    served = ensure_tls(tmp_path / "served", ["127.0.0.1"], made)
    known = served if age else ensure_tls(tmp_path / "known", ["127.0.0.1"])

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"items": []})

    async with answering(answer, served.server_context()) as port:
        config = kubeconfig(tmp_path / "config", f"https://127.0.0.1:{port}", known.authority.read_bytes())
        async with Kube(await Access.load(config)) as kube:
            with pytest.raises(ApiError, match=f"is not trusted: .*{why}.*; use the kubeconfig that belongs") as caught:
                await kube.list(TASKS, "team")
    assert (caught.value.status, caught.value.reason) == (503, "CertificateNotTrusted")


@pytest.fixture
def strict_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the default of Python 3.13 on every Python that the tests run on."""
    made_by_library = ssl.create_default_context

    def strict(*args: Any, **options: Any) -> ssl.SSLContext:
        context = made_by_library(*args, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


def certificate_without_extensions(
    name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Returns an authority without keyUsage and key identifiers, or a certificate that it signs for 127.0.0.1."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_name, issuer_key = issuer or (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer_name, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
    if issuer:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(issuer_key, hashes.SHA256()), key


@pytest.mark.usefixtures("strict_by_default")
@pytest.mark.parametrize("trusted", ["authority", "server"])
async def test_certificates_that_kubectl_accepts_are_accepted(tmp_path: Path, trusted: str) -> None:
    pem = serialization.Encoding.PEM
    authority, authority_key = certificate_without_extensions("an authority")
    server, key = certificate_without_extensions("a server", (authority.subject, authority_key))
    (tmp_path / "server.crt").write_bytes(server.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.key").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"items": []})

    anchor = {"authority": authority, "server": server}[trusted].public_bytes(pem)
    async with answering(answer, context) as port:
        config = kubeconfig(tmp_path / "config", f"https://127.0.0.1:{port}", anchor)
        async with Kube(await Access.load(config)) as kube:
            assert await kube.list(TASKS, "team") == []


async def test_an_operator_that_does_not_trust_the_server_reports_it_and_does_not_wait(tmp_path: Path) -> None:
    served, known = (ensure_tls(tmp_path / name, ["127.0.0.1"]) for name in ("served", "known"))
    asked = 0

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.json_response({"items": []})

    async with answering(answer, served.server_context()) as port:
        config = kubeconfig(tmp_path / "config", f"https://127.0.0.1:{port}", known.authority.read_bytes())
        settings = Settings(state_dir=tmp_path / "state")
        with pytest.raises(ApiError, match="is not trusted"):
            async with running_operator(await Access.load(config), settings, Redactor()):
                pytest.fail("it started")
    assert asked == 0


async def test_a_login_by_a_certificate_that_is_written_in_the_kubeconfig(tmp_path: Path) -> None:
    served = ensure_tls(tmp_path / "served", ["127.0.0.1"])
    pem = serialization.Encoding.PEM
    authority, authority_key = certificate_without_extensions("an authority")
    client, key = certificate_without_extensions("me", (authority.subject, authority_key))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = served.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.public_bytes(pem).decode())

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"items": []})

    async with answering(answer, context) as port:
        login = {"client-certificate-data": client.public_bytes(pem), "client-key-data": private}
        config = kubeconfig(
            tmp_path / "config",
            f"https://127.0.0.1:{port}",
            served.authority.read_bytes(),
            **{name: base64.b64encode(data).decode() for name, data in login.items()},
        )
        access = await Access.load(config)
        assert access.configuration is None, "the official client was not needed"
        async with Kube(access) as kube:
            assert await kube.list(TASKS, "team") == []
