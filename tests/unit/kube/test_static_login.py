"""Tests that kubeconfigs that Remit reads itself have the same result as with the official client, and that all others
are left to it."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.kube import access
from remit.kube.access import Access
from remit.kube.staticlogin import static_login

Document = dict[str, Any]
CA = "-----BEGIN CERTIFICATE-----\nYXV0aG9yaXR5\n-----END CERTIFICATE-----\n"
CERTIFICATE = CA.replace("YXV0aG9yaXR5", "bWU=")
KEY = "-----BEGIN EC PRIVATE KEY-----\na2V5\n-----END EC PRIVATE KEY-----\n"
BASE: Document = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {},
    "clusters": [
        {"name": "one", "cluster": {"server": "https://127.0.0.1:6443/"}},
        {"name": "two", "cluster": {"server": "http://127.0.0.1:8080"}},
    ],
    "users": [{"name": "me", "user": {"token": "t0ken"}}, {"name": "nobody", "user": {"token": "other"}}],
    "contexts": [
        {"name": "first", "context": {"cluster": "one", "user": "me"}},
        {"name": "second", "context": {"cluster": "two", "user": "nobody", "namespace": "team"}},
    ],
    "current-context": "first",
}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def cluster(**fields: object) -> Callable[[Document], None]:
    return lambda document: document["clusters"][0]["cluster"].update(fields)


def user(**fields: object) -> Callable[[Document], None]:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return lambda document: document["users"][0].update(user=named)


def context(**fields: object) -> Callable[[Document], None]:
    return lambda document: document["contexts"][0]["context"].update(fields)


def written(folder: Path, change: Callable[[Document], object]) -> Path:
    document = copy.deepcopy(BASE)
    change(document)
    for name, text in (("ca.crt", CA), ("me.crt", CERTIFICATE), ("me.key", KEY)):
        (folder / name).write_text(text)
    path = folder / "config"
    path.write_text(yaml.safe_dump(document))
    return path


def contents(login: Access) -> dict[str, object]:
    """Returns the result of a reader, with the texts of certificates in place of their files."""

    def text(*files: str | None) -> str:
        return "\n".join(Path(file).read_text() for file in files if file)

    return {
        "server": login.server,
        "token": login.token,
        "verify": login.verify,
        "namespace": login.namespace,
        "authority": login.ca_data or text(login.ca_file),
        "login": login.login_data or text(login.cert_file, login.key_file),
    }


@pytest.mark.parametrize("named", [None, "first", "second"])
@pytest.mark.parametrize(
    "change",
    [
        lambda document: None,
        lambda document: document.update({"current-context": "second"}),
        cluster(**{"certificate-authority-data": encoded(CA)}),
        cluster(**{"certificate-authority": "ca.crt"}),
        cluster(**{"certificate-authority": "./missing/../ca.crt"}),
        cluster(**{"certificate-authority": "missing", "certificate-authority-data": encoded(CA)}),
        cluster(**{"insecure-skip-tls-verify": True}),
        cluster(**{"insecure-skip-tls-verify": False, "extensions": [{"name": "remit.dev", "extension": {}}]}),
        cluster(server="http://127.0.0.1:1", **{"certificate-authority": "missing"}),
        context(namespace="team"),
        user(client_certificate_data=encoded(CERTIFICATE), client_key_data=encoded(KEY)),
        user(client_certificate="me.crt", client_key="me.key"),
        user(client_certificate="me.crt", client_key="me.key", token="t"),
    ],
)
async def test_it_says_the_same_as_the_official_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Document], None], named: str | None
) -> None:
    path = written(tmp_path, change)
    assert static_login(path, named) is not None
    own = await Access.load(path, named)
    monkeypatch.setattr(access, "static_login", lambda *_: None)
    official = await Access.load(path, named)
    assert own.configuration is None
    assert official.configuration is not None
    assert contents(own) == contents(official)
    assert await own.authorization() == await official.authorization()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.clear(),
        lambda document: document.pop("current-context"),
        lambda document: document.update({"current-context": "third"}),
        lambda document: document.update(contexts=None),
        lambda document: document.update(users=["me"]),
        lambda document: document["users"].append(document["users"][0]),
        lambda document: document["users"].pop(0),
        lambda document: document["clusters"][0].pop("cluster"),
        cluster(server=6443),
        cluster(server=""),
        cluster(**{"certificate-authority": "missing"}),
        cluster(**{"certificate-authority-data": "?"}),
        cluster(**{"certificate-authority-data": encoded("no certificate")}),
        cluster(**{"certificate-authority-data": encoded(CA + "é")}),
        cluster(**{"insecure-skip-tls-verify": "true"}),
        cluster(**{"tls-server-name": "api"}),
        cluster(**{"proxy-url": "http://127.0.0.1:3128"}),
        context(namespace=None),
        user(exec={"command": "login"}),
        user(auth_provider={"name": "oidc"}),
        user(token="t", exec={"command": "login"}),
        user(token=7),
        user(token=""),
        user(tokenFile="token"),
        user(username="me", password="secret"),
        user(client_certificate_data=encoded(CERTIFICATE)),
        user(client_certificate_data=encoded(CERTIFICATE), client_key="me.key"),
        user(client_certificate="me.crt"),
        user(client_certificate="me.crt", client_key="missing"),
        user(**{"as": "somebody", "token": "t"}),
    ],
)
def test_anything_else_is_left_to_the_official_client(tmp_path: Path, change: Callable[[Document], object]) -> None:
    assert static_login(written(tmp_path, change), None) is None


@pytest.mark.parametrize("text", ["", "{", "--- {}\n--- {}\n", "[" * 300, "a: &a [*a]\n"])
def test_what_is_no_kubeconfig_is_left_to_the_official_client(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    assert static_login(tmp_path / "config", None) is None


async def test_it_shows_no_secret(tmp_path: Path) -> None:
    data = {"client_certificate_data": encoded(CERTIFICATE), "client_key_data": encoded(KEY)}
    shown = repr(await Access.load(written(tmp_path, user(token="s3cret", **data))))
    assert "s3cret" not in shown
    assert "PRIVATE" not in shown
