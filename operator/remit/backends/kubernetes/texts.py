"""Gives the files that an attempt left, which are in its log, to the collector."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from remit.backends.filetree import FoundFile
from remit.backends.kubernetes.spool import Spool


@dataclass(frozen=True, slots=True)
class _Text:
    path: str
    content: bytes | int
    executable: bool = False

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else 0

    def open(self) -> BinaryIO:
        if isinstance(self.content, int):
            raise OSError(self.content, os.strerror(self.content))
        return io.BytesIO(self.content)


class LogTree:
    """A `FileTree` of what is in `spool`, and of the files at `paths` alone, of which `found` has the beginning by
    their places there."""

    def __init__(self, paths: Sequence[str], found: Mapping[int, bytes | int], spool: Spool) -> None:
        self._spool = spool
        self._texts = {path: _Text(path, found[number]) for number, path in enumerate(paths) if number in found}

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """See `FileTree.find`. Raises OSError for what did not arrive."""
        if pattern in self._texts and not self._spool.knows(pattern):
            yield self._texts[pattern]
        else:
            yield from self._spool.find(pattern)
