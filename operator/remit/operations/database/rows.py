"""Connections to PostgreSQL that stop reading a row which is too large.

libpq holds a row whole before anybody sees it, and copies of it are made on the way to JSON: one word of a statement
could otherwise have the operator hold gigabytes.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Generator
from typing import Any, Final

import psycopg

from remit.operations.failure import OperationFailed

MOST_BYTES: Final = 8 << 20
"""Of a row that is read for certain."""
_MOST_TAKEN: Final = 2 * MOST_BYTES
"""Of the connection for one row: libpq takes as much as it has room for, and doubles its room."""
_RECEIVED: Final = struct.Struct("128xQ")
"""Where `tcpi_bytes_received` is in Linux' `struct tcp_info`."""


class MeteredConnection(psycopg.AsyncConnection[Any]):
    """Closed, and so undone, where more comes for one answer than may."""

    async def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        return await super().wait(self._metered(gen), *arguments, **options)

    def _metered(self, answer: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Asked only when more has to come: most rows are in libpq's hands already."""
        try:
            wanted = next(answer)
            begun = self._taken()
            while True:
                ready = yield wanted
                if self._taken() - begun > _MOST_TAKEN:
                    self.pgconn.finish()
                    raise _too_large()
                wanted = answer.send(ready)
        except StopIteration as end:
            return end.value

    def _taken(self) -> int:
        """Bytes that libpq has taken from the network so far; 0 where the kernel does not count them."""
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as connection:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            if len(told) < _RECEIVED.size:
                return 0
            waiting = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]
        return int(_RECEIVED.unpack(told)[0]) - int(waiting)


def _too_large() -> OperationFailed:
    message = (
        f"a row is larger than {MOST_BYTES >> 20} MiB, which is the most that is read; nothing was committed; ask for"
        " less of it, such as with left(), or for its parts one by one"
    )
    return OperationFailed("RowTooLarge", message, retryable=False)
