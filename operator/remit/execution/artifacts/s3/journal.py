"""Keeps what could not be done in object storage on the operator's disk, until it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import structlog

from remit.execution.artifacts.store import StoreUnavailable
from remit.privatefiles import replace_private

log = structlog.get_logger(__name__)


class Journal:
    """A journal of idempotent commands, each a name with its arguments."""

    def __init__(self, folder: Path, **commands: Callable[..., None]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._commands = folder, commands
        self._going = threading.Lock()

    def do(self, command: str, *arguments: str) -> None:
        """Now, or later where the store is not available. Raises OSError only where the disk is not, either."""
        try:
            self._commands[command](*arguments)
        except StoreUnavailable as error:
            log.warning(f"{command} of artifacts is put off", error=str(error))
            name = "_".join([command, *arguments])
            replace_private(self._folder / f"{name}.json", orjson.dumps([command, *arguments]))

    def catch_up(self) -> None:
        """Do what was put off. Raises `StoreUnavailable`."""
        if not (waiting := sorted(self._folder.glob("*.json"))):
            return
        with self._going:
            for path in waiting:
                try:
                    command, *arguments = orjson.loads(path.read_bytes())
                    self._commands[command](*arguments)
                except FileNotFoundError:
                    continue
                except (ValueError, KeyError, TypeError):
                    log.warning("what was to be done with artifacts cannot be read", path=str(path))
                path.unlink(missing_ok=True)
