"""The listening socket: how many connections there are, and how long one may stay without the token.

A connection is unauthenticated until a request on it has carried the token. Such connections are few and have little
time, so that nobody without the token can keep clients out or use up the descriptors that work needs.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import web

from remit.requestlog import RequestLogger

MOST_CONNECTIONS = 1024
UNAUTHENTICATED_SECONDS = 10.0
"""How long a connection may take from accept, TLS included, to the end of its first authenticated request."""
IDLE_SECONDS = 90.0
"""An idle connection is closed after this time, as kube-apiserver does."""
_ACCEPT_PAUSE = 0.2
_FULL_PAUSE = 0.01
_LOG_SECONDS = 60.0

log = structlog.get_logger(__name__)


class _Connection:
    """An accepted socket, from its TLS handshake on."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.handshake: asyncio.Task[None] | None = None
        self.protocol: Any = None
        self.expiry: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        if self.handshake is not None and not self.handshake.done():
            self.handshake.cancel()
        elif self.protocol is not None and self.protocol.transport is not None:
            self.protocol.transport.abort()


class Listener(web.Server):
    """Serves HTTP over TLS with `handler`, within a budget of connections.

    At most half of the descriptors that the process may open are connections, and at most a quarter of those are
    unauthenticated. When there are too many, the oldest unauthenticated one is closed: a client needs only a moment to
    send its token.
    """

    def __init__(self, handler: Any, tls: ssl.SSLContext, *, descriptors: int) -> None:
        logger = RequestLogger(__name__, lambda: self._log_limited("malformed_request"))
        # Compressed bodies are not decompressed, as in kube-apiserver.
        super().__init__(handler, access_log=None, keepalive_timeout=IDLE_SECONDS, auto_decompress=False, logger=logger)
        self._tls = tls
        self._most = max(16, min(MOST_CONNECTIONS, descriptors // 2))
        self._most_unauthenticated = max(8, self._most // 4)
        self._unauthenticated: dict[_Connection, None] = {}
        self._authenticated: set[_Connection] = set()
        self._by_protocol: dict[Any, _Connection] = {}
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._not_logged: Counter[str] = Counter()
        self._log_at: dict[str, float] = {}

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept. The sockets, which listen already, are closed by `stop`."""
        self._sockets = [*sockets]
        for sock in sockets:
            sock.setblocking(False)
        self._accepting = [asyncio.create_task(self._accept(sock), name="accept") for sock in sockets]

    async def stop(self, grace: float) -> None:
        """Accept nothing more, and give requests under way `grace` seconds."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        handshakes = [c.handshake for c in self._unauthenticated if c.handshake is not None and not c.handshake.done()]
        for handshake in handshakes:
            handshake.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)
        self.pre_shutdown()
        await self.shutdown(grace)
        for connection in [*self._unauthenticated, *self._authenticated]:
            self._release(connection)

    def authenticated(self, protocol: Any) -> None:
        """A request on the connection has carried the token."""
        connection = self._by_protocol.get(protocol)
        if connection in self._unauthenticated:
            del self._unauthenticated[connection]
            self._authenticated.add(connection)
            if connection.expiry is not None:
                connection.expiry.cancel()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        connection = self._by_protocol.get(handler)
        if connection is not None:
            self._release(connection)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._log_limited("accept_failed", error=str(error))
                self._drop_oldest_unauthenticated()
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if len(self._unauthenticated) >= self._most_unauthenticated:
                await asyncio.sleep(_FULL_PAUSE)  # other clients finish their handshakes meanwhile
            self._admit(_Connection(sock))

    def _admit(self, connection: _Connection) -> None:
        full = len(self._unauthenticated) + len(self._authenticated) >= self._most
        if full or len(self._unauthenticated) >= self._most_unauthenticated:
            self._log_limited(
                "connections_dropped", connections=len(self._authenticated), unauthenticated=len(self._unauthenticated)
            )
            if not self._drop_oldest_unauthenticated():
                connection.sock.close()
                return
        self._unauthenticated[connection] = None
        connection.expiry = asyncio.get_running_loop().call_later(UNAUTHENTICATED_SECONDS, self._expire, connection)
        connection.handshake = asyncio.create_task(self._handshake(connection), name="tls-handshake")
        connection.handshake.add_done_callback(lambda task: self._on_handshake_done(connection, task))

    async def _handshake(self, connection: _Connection) -> None:
        def protocol() -> Any:
            connection.protocol = self()
            self._by_protocol[connection.protocol] = connection
            return connection.protocol

        await asyncio.get_running_loop().connect_accepted_socket(
            protocol, connection.sock, ssl=self._tls, ssl_handshake_timeout=UNAUTHENTICATED_SECONDS
        )

    def _on_handshake_done(self, connection: _Connection, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._release(connection)
            asyncio.get_running_loop().call_soon(connection.sock.close)  # after the transport, if there was one

    def _expire(self, connection: _Connection) -> None:
        if connection in self._unauthenticated:
            connection.abort()

    def _drop_oldest_unauthenticated(self) -> bool:
        oldest = next(iter(self._unauthenticated), None)
        if oldest is None:
            return False
        self._release(oldest)
        oldest.abort()
        return True

    def _release(self, connection: _Connection) -> None:
        self._unauthenticated.pop(connection, None)
        self._authenticated.discard(connection)
        self._by_protocol.pop(connection.protocol, None)
        if connection.expiry is not None:
            connection.expiry.cancel()

    def _log_limited(self, event: str, **facts: Any) -> None:
        """Log the first event of a kind at once, and after that how many there were, once a minute at most."""
        now = asyncio.get_running_loop().time()
        self._not_logged[event] += 1
        if now >= self._log_at.get(event, 0.0):
            self._log_at[event] = now + _LOG_SECONDS
            log.warning(event, times=self._not_logged.pop(event), **facts)
