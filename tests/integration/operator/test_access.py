"""What is said of a kubeconfig that leads nowhere: which file or server, what is wrong with it, and what to do."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from remit.controlplane.certificates import ensure_tls
from remit.errors import ApiError, RemitError
from remit.reconcilers.access import Access
from remit.reconcilers.kube import TASKS, Kube
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


async def test_a_context_that_is_not_there(tmp_path: Path) -> None:
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
