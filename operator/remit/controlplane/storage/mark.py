"""How far the journal has come, noted beside the database, so that the loss of its end is seen.

SQLite recovers a damaged write-ahead log by forgetting all from the damage on, without a word, and an empty file is a
new database to it. What an operator keeps outside, such as an audit trail, must not be taken for orphaned then.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from remit.privatefiles import open_private

_LENGTH: Final = 57
_FORM: Final = re.compile(rb"([0-9a-f-]{36}) ([0-9]{19})\n")


class Position(NamedTuple):
    """The store's identity, and the newest revision that it has acknowledged."""

    identity: str
    revision: int


class Mark:
    """The file. It is written after each commit and not synced: after a power cut it may lag, but never lead."""

    def __init__(self, path: Path) -> None:
        """Raises `InvalidInput` where somebody else has put something there, and OSError."""
        self._file = open_private(path)

    def read(self) -> Position | None:
        """None where there is none yet, or none that can be read."""
        found = _FORM.fullmatch(os.pread(self._file, _LENGTH, 0))
        return Position(found[1].decode(), int(found[2])) if found else None

    def write(self, position: Position) -> None:
        os.pwrite(self._file, b"%s %019d\n" % (position.identity.encode(), position.revision), 0)

    def close(self) -> None:
        """May be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
