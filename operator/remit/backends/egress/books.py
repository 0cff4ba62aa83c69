"""Ledgers on disk, for an operator that takes up what another one started."""

from __future__ import annotations

import contextlib
from pathlib import Path

import orjson

from remit.backends.egress.ledger import NetworkUse
from remit.privatefiles import replace_private


class Books:
    """One file for each attempt in `folder`, which is made when it is needed; for the operator's user alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> NetworkUse | None:
        """What was kept of `name`; None if nothing was, or it cannot be read."""
        try:
            return NetworkUse.restored(orjson.loads(self._path(name).read_bytes()))
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def write(self, name: str, use: NetworkUse) -> None:
        """Whole or not at all. Not synced: if the machine goes down, so does the attempt. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(self._path(name), orjson.dumps(use), sync=False)

    def forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
