"""Copies a content to this host's disk, and learns its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO, Final

from remit.diskspace import nearly_full, no_space_left
from remit.execution.artifacts.store import TooLarge

_CHUNK: Final = 1 << 20
_LOOK_BYTES: Final = 64 * _CHUNK


def copied(source: BinaryIO, target: BinaryIO, most: int, folder: Path) -> tuple[int, str]:
    """Copy at most `most` bytes to `target`, which lies in `folder`, in constant memory. Gives how many bytes it was,
    and their SHA-256 in hexadecimal. Raises `TooLarge`, OSError."""
    digest, size, look_at = hashlib.sha256(), 0, 0
    while chunk := source.read(_CHUNK):
        if size >= look_at:
            look_at = size + _LOOK_BYTES
            if nearly_full(folder):
                raise no_space_left()
        size += len(chunk)
        if size > most:
            raise TooLarge
        digest.update(chunk)
        target.write(chunk)
    return size, digest.hexdigest()
