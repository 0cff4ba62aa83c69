"""Keeps the network use of attempts on disk, for an operator that adopts running attempts of an earlier one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import orjson

from remit.backends.egress.usage import NetworkUse
from remit.privatefiles import replace_private


class UsageStore:
    """Keeps a file for each attempt in `folder`, created on first use. Only the operator's user can read it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> NetworkUse | None:
        """The use of the attempt `name`; None if none is kept or it cannot be read."""
        try:
            return NetworkUse.restored(orjson.loads(self._path(name).read_bytes()))
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def write(self, name: str, use: NetworkUse) -> None:
        """Write atomically, without fsync, because a crash of the machine ends the attempt, too. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(self._path(name), orjson.dumps(use), sync=False)

    def forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
