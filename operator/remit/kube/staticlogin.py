"""Kubeconfigs whose login is written in them: a token or a certificate that nothing has to renew.

Most are like that. The official client reads every kind, and takes longer to import than most commands run.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any, Final, TypedDict

import yaml

from remit import safeyaml
from remit.errors import InvalidInput
from remit.regularfile import read_text

_CLUSTER: Final = {
    "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "extensions",
}  # fmt: skip
_USER: Final = {
    "token", "client-certificate", "client-certificate-data", "client-key", "client-key-data", "extensions",
}  # fmt: skip
_CONTEXT: Final = {"cluster", "user", "namespace", "extensions"}


class StaticLogin(TypedDict, total=False):
    """Fields of `Access`."""

    server: str
    namespace: str
    verify: bool
    token: str
    ca_file: str
    ca_data: str
    cert_file: str
    key_file: str
    login_data: str


class _OtherLogin(Exception):
    """The kubeconfig has something that the official client is needed for."""


def static_login(path: Path, context: str | None) -> StaticLogin | None:
    """Read the access from the kubeconfig at `path`, in the context of that name or in its current one.

    None for a kubeconfig with anything else than a server and a static login, mistakes included: the official client
    reads it, or tells what is wrong with it.
    """
    try:
        documents = safeyaml.load_all(read_text(path))
        return _login(_mapping(documents[0]), context, path.absolute().parent) if len(documents) == 1 else None
    except (_OtherLogin, InvalidInput, OSError, ValueError, yaml.YAMLError):
        return None


def _login(document: dict[str, Any], context: str | None, folder: Path) -> StaticLogin:
    chosen = _entry(document, "context", context if context is not None else _text(document, "current-context"))
    cluster = _entry(document, "cluster", _text(chosen, "cluster"))
    user = _entry(document, "user", _text(chosen, "user"))
    if chosen.keys() - _CONTEXT or cluster.keys() - _CLUSTER or user.keys() - _USER:
        raise _OtherLogin
    login: StaticLogin = {
        "server": _text(cluster, "server").rstrip("/"),
        "namespace": _text(chosen, "namespace") if "namespace" in chosen else "default",
    }
    if "token" in user:
        login["token"] = f"Bearer {_text(user, 'token')}"
    if "insecure-skip-tls-verify" in cluster:
        login["verify"] = not _flag(cluster, "insecure-skip-tls-verify")
    if login["server"].startswith("https"):
        _add_certificates(login, cluster, user, folder)
    return login


def _add_certificates(login: StaticLogin, cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> None:
    """As with kubectl, data counts before a file."""
    if "certificate-authority-data" in cluster:
        login["ca_data"] = _pem(cluster, "certificate-authority-data", "CERTIFICATE")
    elif "certificate-authority" in cluster:
        login["ca_file"] = _file(cluster, "certificate-authority", folder)
    if "client-certificate-data" in user and "client-key-data" in user:
        certificate = _pem(user, "client-certificate-data", "CERTIFICATE")
        login["login_data"] = f"{certificate}\n{_pem(user, 'client-key-data', 'PRIVATE KEY')}"
    elif user.keys() & {"client-certificate-data", "client-key-data"}:
        raise _OtherLogin
    elif "client-certificate" in user:
        login["cert_file"] = _file(user, "client-certificate", folder)
        login["key_file"] = _file(user, "client-key", folder)


def _entry(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """The only entry of that name in the document's list of that kind."""
    entries = document.get(f"{kind}s")
    found = [entry for entry in entries if _mapping(entry).get("name") == name] if isinstance(entries, list) else []
    if len(found) != 1:
        raise _OtherLogin
    return _mapping(found[0].get(kind))


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _OtherLogin
    return value


def _text(mapping: dict[str, Any], key: str) -> str:
    value = mapping.get(key)
    if not isinstance(value, str) or not value:
        raise _OtherLogin
    return value


def _flag(mapping: dict[str, Any], key: str) -> bool:
    value = mapping[key]
    if not isinstance(value, bool):
        raise _OtherLogin
    return value


def _file(mapping: dict[str, Any], key: str, folder: Path) -> str:
    path = os.path.normpath(folder / _text(mapping, key))
    if not Path(path).is_file():
        raise _OtherLogin
    return path


def _pem(mapping: dict[str, Any], key: str, label: str) -> str:
    text = base64.b64decode(_text(mapping, key)).decode("ascii")
    if "-----BEGIN " not in text or f"{label}-----" not in text:
        raise _OtherLogin
    return text
