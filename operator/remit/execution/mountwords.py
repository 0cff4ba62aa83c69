"""Volumes and artifacts in one word each, as `remit run` and the Python API take them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from remit.errors import InvalidInput

_ACCESS = {"ro": "ReadOnly", "rw": "ReadWrite"}


def volumes(mounts: Sequence[str], workspaces: Sequence[str] = (), stdin_from: str = "") -> dict[str, Any]:
    """`volumes` and `volumeMounts` for `HOST:PATH[:rw]` and `NAME:PATH[:ro]`, and `stdinFrom` for a file of the host. A
    relative path of the host begins in the working directory of this process. Raises `InvalidInput`."""
    made: list[dict[str, Any]] = []
    places: list[dict[str, Any]] = []
    for word in mounts:
        source, path, access = _split(word, "mounts", "./shop:/src or ./shop:/src:rw", "ro")
        name = f"mount-{len(made) + 1}"
        made.append({"name": name, "hostPath": {"path": _on_host(source)}})
        places.append({"name": name, "mountPath": path, "access": access})
    for word in workspaces:
        source, path, access = _split(word, "workspaces", "cache:/cache or cache:/cache:ro", "rw")
        name = f"mount-{len(made) + 1}"
        made.append({"name": name, "workspace": {"name": source}})
        places.append({"name": name, "mountPath": path, "access": access})
    if not stdin_from:
        return {"volumes": made, "volumeMounts": places}
    made.append({"name": "stdin", "hostPath": {"path": _on_host(stdin_from)}})
    return {"volumes": made, "volumeMounts": places, "stdinFrom": {"volume": {"name": "stdin"}}}


def _on_host(path: str) -> str:
    """Links stay."""
    return posixpath.abspath(posixpath.expanduser(path))


def _split(word: str, flag: str, example: str, default: str) -> tuple[str, str, str]:
    source, *rest = word.split(":")
    path, access = (*rest, default)[:2] if 1 <= len(rest) <= 2 else ("", "")
    if not source or not path.startswith("/") or access not in _ACCESS:
        raise InvalidInput(f"{word!r} is not SOURCE:PATH with an absolute path inside, such as {example}", field=flag)
    return source, path, _ACCESS[access]


def artifacts(patterns: Sequence[str]) -> list[dict[str, Any]]:
    """`artifacts` for `PATH` and `NAME=PATH`. Without a name, it is made of the path."""
    made: dict[str, dict[str, Any]] = {}
    for word in patterns:
        name, equals, path = word.partition("=")
        if not equals:
            name, path = _name_for(word, made), word
        made[name] = {"name": name, "path": path}
    return list(made.values())


def _name_for(path: str, taken: dict[str, Any]) -> str:
    """A free name for a path, such as `dist` for `dist/*.whl` and `report-html` for `report.html`."""
    fixed = [part for part in PurePosixPath(path).parts if not re.search(r"[*?/]", part)]
    word = re.sub(r"[^a-z0-9]+", "-", fixed[-1].lower()).strip("-")[:40] if fixed else ""
    name = word or "files"
    number = 2
    while name in taken:
        name, number = f"{word or 'files'}-{number}", number + 1
    return name
