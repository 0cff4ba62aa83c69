"""Connections to Redis that stop reading a reply which is too large.

A reply is parsed whole before anybody sees it, and takes a multiple of its size while it is: a few words of a task
could otherwise have the operator hold gigabytes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final

from redis._parsers import _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.asyncio import Connection, SSLConnection
from redis.exceptions import AuthenticationWrongNumberOfArgsError, ResponseError

from remit.backends.failure import OperationFailed

MOST_BYTES: Final = 8 << 20
"""Limit of all replies to one batch of requests."""


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
        if size > self.left:  # checked before any byte of it is kept
            raise _too_large()
        return self._counted(await self._stream.readexactly(size))

    def _counted(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise _too_large()
        return data


class ErrorReply(ResponseError):
    """An error that the server sends in place of a reply, in its own words: `code` is the first.

    The driver has classes for some, of which a few pass for lost connections, and are raised in the midst of a reply.
    """

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class _ErrorReplies:
    @classmethod
    def parse_error(cls, response: str) -> Exception:
        known: Exception = super().parse_error(response)  # type: ignore[misc]
        # The driver handles this error itself when it connects.
        if isinstance(known, AuthenticationWrongNumberOfArgsError):
            return known
        return ErrorReply(response)


class _Resp2(_ErrorReplies, _AsyncRESP2Parser):
    pass


class _Resp3(_ErrorReplies, _AsyncRESP3Parser):
    pass


class MeteredConnection(Connection):
    """A metered connection without TLS."""

    def __init__(self, protocol: int = 3, **options: Any) -> None:
        super().__init__(protocol=protocol, parser_class=_Resp2 if protocol == 2 else _Resp3, **options)

    _reader: Any

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]
        self._reader = _Meter(self._reader)

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        if isinstance(self._reader, _Meter):
            self._reader.left = MOST_BYTES
        await super().send_packed_command(*arguments, **options)


class MeteredSSLConnection(MeteredConnection, SSLConnection):
    """Encrypted, as `context` says."""

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._context}


def _too_large() -> OperationFailed:
    message = (
        f"the replies are larger than {MOST_BYTES >> 20} MiB, which is the most that is read;"
        " the commands took place; ask for less at once, such as with GETRANGE or HSCAN"
    )
    return OperationFailed("ReplyTooLarge", message, retryable=False)
