"""Reads and writes Remit's own data in kubeconfigs.

A cluster entry may carry extensions, which every client passes over. Remit's tells which directory of this machine the
cluster's operator keeps its state in, so that `remit logs` finds the whole output.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from remit import safeyaml
from remit.errors import InvalidInput
from remit.kube.access import Access
from remit.regularfile import read_text
from remit.userpaths import home

EXTENSION = "remit.dev"


def state_dir_of(kubeconfig: Path | None, context: str | None = None) -> Path | None:
    """The state directory that the kubeconfig in use speaks of, if any. Of several files, the first that has an entry
    counts, as for kubectl."""
    documents = []
    for path in [kubeconfig] if kubeconfig else _usual():
        with contextlib.suppress(OSError, InvalidInput):
            documents.append(_read(path))
    with contextlib.suppress(KeyError, TypeError, StopIteration):
        name = context or next(found for document in documents if (found := document.get("current-context")))
        active = _named(_entries(documents, "contexts"), name)["context"]
        cluster = _named(_entries(documents, "clusters"), active["cluster"])["cluster"]
        return Path(_named(cluster["extensions"], EXTENSION)["extension"]["stateDir"])
    return None


def _entries(documents: Sequence[dict[str, Any]], section: str) -> list[dict[str, Any]]:
    return [entry for document in documents for entry in document.get(section) or []]


def is_of_server(state_dir: Path, server: str) -> bool:
    """Whether the state directory may be that of an operator of the API server `server`: `remit up` writes its own
    address into it, and `remit operator` writes none."""
    path = state_dir / "kubeconfig"
    try:
        clusters = _read(path)["clusters"]
        return any(entry["cluster"]["server"].rstrip("/") == server.rstrip("/") for entry in clusters)
    except FileNotFoundError:
        return True
    except (OSError, InvalidInput, KeyError, TypeError, AttributeError):
        return False


def access_of_up(kubeconfig: Path) -> Access:
    """Read the access from the kubeconfig that `remit up` wrote. For that one the official client's loader, which takes
    a second to import, is not needed. Raises `InvalidInput`, and OSError."""
    document = _read(kubeconfig)
    try:
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return Access(server=cluster["server"], ca_data=authority, token=f"Bearer {user['token']}")
    except (KeyError, IndexError, TypeError, ValueError):
        raise InvalidInput(f"{kubeconfig} is not the kubeconfig that remit up writes; start it again") from None


def context_names(kubeconfig: Path | None) -> list[str]:
    """The contexts that `--context` may name. Files that cannot be read have none."""
    names: list[str] = []
    for path in [kubeconfig] if kubeconfig else _usual():
        with contextlib.suppress(OSError, InvalidInput, KeyError, TypeError):
            names += [str(entry["name"]) for entry in _read(path)["contexts"]]
    return list(dict.fromkeys(names))


def extension(state_dir: Path) -> dict[str, Any]:
    """The extension of a cluster's entry that says where the state of its operator is."""
    return {"name": EXTENSION, "extension": {"stateDir": str(state_dir)}}


def merge(source: Path, target: Path) -> None:
    """Put what is in `source` into `target` too and make it the current context, as kind and minikube do.

    Entries of the same names are replaced; all others stay. Raises `InvalidInput` when `target` is no kubeconfig.
    """
    document = _read(source)
    if target.exists():
        existing = _read(target)
        for section in ("clusters", "users", "contexts"):
            new = document.get(section) or []
            names = {entry["name"] for entry in new}
            document[section] = [*(e for e in existing.get(section) or [] if e["name"] not in names), *new]
        document = {**existing, **document}
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(target, document)


def _usual() -> list[Path]:
    named = os.environ.get("KUBECONFIG")
    return [Path(part) for part in named.split(os.pathsep) if part] if named else [home() / ".kube" / "config"]


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    try:
        return next(entry for entry in entries if entry["name"] == name)
    except StopIteration:
        raise KeyError(name) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = safeyaml.load_documents(read_text(path))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    document = found[0] if len(found) == 1 else None
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} is not a kubeconfig; name another file, or remove this one")
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write the file atomically, and readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # the name can be guessed, and another user may be able to write to the folder
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.dump(document, file, safeyaml.Dumper, sort_keys=False)
    temporary.replace(path)
