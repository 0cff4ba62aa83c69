"""A replica's files, as the archive that the engine takes. Pure."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Final

_KEEPER: Final = 65533
"""Owns them and their folders. Nobody runs as it, and root in a container, without capabilities, has no way around."""


def folders(files: Mapping[str, bytes]) -> list[str]:
    """The folders of the files, outer ones first."""
    return sorted({path.rpartition("/")[0] for path in files})


def sealed(files: Mapping[str, bytes]) -> bytes:
    """All of them below `/`, for everybody to read and nobody to change, add to or take away."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in folders(files):
            tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o555))
        for path, content in files.items():
            tar.addfile(_entry(path, tarfile.REGTYPE, 0o444, len(content)), io.BytesIO(content))
    return archive.getvalue()


def _entry(path: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.removeprefix("/"))
    entry.type, entry.mode, entry.size = kind, mode, size
    entry.uid = entry.gid = _KEEPER
    return entry
