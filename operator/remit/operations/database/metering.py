"""Connections to Redis that stop reading a reply which is too large.

A reply is parsed whole before anybody sees it, and takes a multiple of its size while it is: a few words of a task
could otherwise have the operator hold gigabytes.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from redis.asyncio import Connection, SSLConnection

from remit.backends.failure import OperationFailed

MOST_BYTES: Final = 8 << 20
"""Of all replies to what is sent at once."""


class _Meter:
    """A StreamReader that gives so many bytes, until it is told to begin again."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self.left = MOST_BYTES

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, size: int = -1) -> bytes:
        return self._counted(await self._stream.read(size))

    async def readline(self) -> bytes:
        return self._counted(await self._stream.readline())

    async def readexactly(self, size: int) -> bytes:
        if size > self.left:  # before a byte of it is held
            raise _too_large()
        return self._counted(await self._stream.readexactly(size))

    def _counted(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise _too_large()
        return data


class MeteredConnection(Connection):
    """In the clear."""

    _reader: Any

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]
        self._reader = _Meter(self._reader)

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        if isinstance(self._reader, _Meter):
            self._reader.left = MOST_BYTES
        await super().send_packed_command(*arguments, **options)


class MeteredSSLConnection(MeteredConnection, SSLConnection):
    """Encrypted."""


def _too_large() -> OperationFailed:
    message = (
        f"the replies are larger than {MOST_BYTES >> 20} MiB, which is the most that is read;"
        " the commands took place; ask for less at once, such as with GETRANGE or HSCAN"
    )
    return OperationFailed("ReplyTooLarge", message, retryable=False)
