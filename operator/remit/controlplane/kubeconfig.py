"""The bearer token, and the kubeconfig that hands it to kubectl and the clients."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from remit import safeyaml
from remit.privatefiles import read_private, replace_private


def ensure_token(path: Path) -> str:
    """The token in the file, made when there is none. 256 bits, so guessing is hopeless.

    Raises `InvalidInput` for a file of somebody else, who would know the token.
    """
    try:
        token = read_private(path).decode().strip()
    except FileNotFoundError:
        token = ""
    if not token:
        token = secrets.token_urlsafe(32)
        replace_private(path, token.encode() + b"\n")
    return token


def write_kubeconfig(
    path: Path, url: str, authority: Path, token: str, extensions: Sequence[Mapping[str, Any]] = ()
) -> None:
    """A complete kubeconfig: the authority's certificate and the token are inside it.

    `extensions` are those of the cluster, each with `name` and `extension`.
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "remit",
                "cluster": {
                    "server": url,
                    "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode(),
                    **({"extensions": [*extensions]} if extensions else {}),
                },
            }
        ],
        "users": [{"name": "remit-admin", "user": {"token": token}}],
        "contexts": [{"name": "remit", "context": {"cluster": "remit", "user": "remit-admin", "namespace": "default"}}],
        "current-context": "remit",
    }
    replace_private(path, yaml.dump(config, Dumper=safeyaml.Dumper, sort_keys=False).encode())
