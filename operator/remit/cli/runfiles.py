"""The files of `remit run`: from what is typed to the volumes and artifacts of a task."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from remit.errors import InvalidInput

_ACCESS = {"ro": "ReadOnly", "rw": "ReadWrite"}


def volumes(mounts: list[str], workspaces: list[str]) -> dict[str, Any]:
    """`volumes` and `volumeMounts` for `HOST:PATH[:rw]` and `NAME:PATH[:ro]`. A relative path of the host begins in the
    working directory of this command. Raises `InvalidInput`."""
    made: list[dict[str, Any]] = []
    places: list[dict[str, Any]] = []
    for word in mounts:
        source, path, access = _split(word, "--mount", "./shop:/src or ./shop:/src:rw", "ro")
        name = f"mount-{len(made) + 1}"
        made.append({"name": name, "hostPath": {"path": os.path.abspath(os.path.expanduser(source))}})  # noqa: PTH100, PTH111  # links stay
        places.append({"name": name, "mountPath": path, "access": access})
    for word in workspaces:
        source, path, access = _split(word, "--workspace", "cache:/cache or cache:/cache:ro", "rw")
        name = f"mount-{len(made) + 1}"
        made.append({"name": name, "workspace": {"name": source}})
        places.append({"name": name, "mountPath": path, "access": access})
    return {"volumes": made, "volumeMounts": places}


def _split(word: str, flag: str, example: str, default: str) -> tuple[str, str, str]:
    source, *rest = word.split(":")
    path, access = (*rest, default)[:2] if 1 <= len(rest) <= 2 else ("", "")
    if not source or not path.startswith("/") or access not in _ACCESS:
        raise InvalidInput(f"{word!r} is not SOURCE:PATH with an absolute path inside, such as {example}", field=flag)
    return source, path, _ACCESS[access]


def artifacts(patterns: list[str]) -> list[dict[str, Any]]:
    """`artifacts` for `PATH` and `NAME=PATH`. Without a name, it is made of the path."""
    made: dict[str, dict[str, Any]] = {}
    for word in patterns:
        name, equals, path = word.partition("=")
        if not equals:
            name, path = _name_for(word, made), word
        made[name] = {"name": name, "path": path}
    return list(made.values())


def _name_for(path: str, taken: dict[str, Any]) -> str:
    """Such as `dist` for `dist/*.whl` and `report-html` for `report.html`."""
    fixed = [part for part in PurePosixPath(path).parts if not re.search(r"[*?/]", part)]
    word = re.sub(r"[^a-z0-9]+", "-", fixed[-1].lower()).strip("-")[:40] if fixed else ""
    name = word or "files"
    number = 2
    while name in taken:
        name, number = f"{word or 'files'}-{number}", number + 1
    return name


def secrets(words: list[str]) -> list[dict[str, Any]]:
    """`env` for `NAME=SECRET/KEY`. Raises `InvalidInput`."""
    made = []
    for word in words:
        name, _, source = word.partition("=")
        secret, slash, key = source.partition("/")
        if not (name and secret and slash and key):
            raise InvalidInput(f"{word!r} is not NAME=SECRET/KEY, such as PGPASSWORD=db/password", field="--secret")
        made.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return made


def require_same_machine(state_dir: Path | None, server: str) -> None:
    """Paths of this machine mean something only to an operator of this machine, whose state is in `state_dir`. Raises
    `InvalidInput`."""
    if state_dir is None or not state_dir.exists():
        raise InvalidInput(
            f"the operator behind {server} does not run on this machine, so it cannot mount folders of it; use"
            " --workspace, or 'remit up' here",
            field="--mount",
        )
