"""One client's connection to the proxy: one request, of which CONNECT becomes a tunnel and any other is passed on."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

import h11

from remit.backends.egress.dialing import Dialer, EgressRefused
from remit.backends.egress.relay import Downstream, exchange, tunnel
from remit.backends.egress.targets import BadRequest, RequestTarget, is_authorized, onward, refusal, target_of

_CHUNK: Final = 16384
_LINGER_SECONDS: Final = 1.0
_WHO_IS_SERVED: Final = "this proxy serves one attempt, which finds the user and the password in its HTTPS_PROXY"
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Patience:
    """The time that a client may take, and the bytes that it may send before its request is complete."""

    head_bytes: int = 16384
    head_seconds: float = 10.0
    idle_seconds: float = 300.0
    """How long nothing may move in either direction."""


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dialer: Dialer, patience: Patience, token: str = ""
) -> None:
    """Serve one connection to its end. What goes wrong is told to the client, as far as it still listens. With a
    `token`, only requests that present it are served."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=patience.head_bytes)
    try:
        with contextlib.suppress(ConnectionError):
            request, target = await _request(reader, connection, dialer, patience, token)
            await _perform(reader, writer, connection, request, target, dialer, patience)
    except EgressRefused as refused:
        if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            with contextlib.suppress(ConnectionError):
                await _refuse(reader, writer, refused)


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refused: EgressRefused) -> None:
    """Answer with the refusal, and let the client read it: to close at once could take it back."""
    writer.write(refusal(refused.status, refused.message))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            await writer.drain()
            writer.write_eof()
            while await reader.read(_CHUNK):
                pass


async def _request(
    reader: asyncio.StreamReader, connection: h11.Connection, dialer: Dialer, patience: Patience, token: str
) -> tuple[h11.Request, RequestTarget]:
    """The head of the request, and its target. Raises `EgressRefused`, and `ConnectionError` if none comes."""
    try:
        async with asyncio.timeout(patience.head_seconds):
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(_CHUNK))
        if not isinstance(event, h11.Request):
            raise ConnectionAbortedError
        if token and not is_authorized(event, token):
            # Not counted as a denial: some clients send credentials only after they were asked, and the client may not
            # belong to the task.
            raise EgressRefused(407, _WHO_IS_SERVED)
        return event, target_of(event)
    except TimeoutError:
        raise dialer.denied(None, 408, "the request took too long to come") from None
    except h11.RemoteProtocolError as error:
        raise dialer.denied(None, error.error_status_hint, f"not a request: {error}") from None
    except BadRequest as error:
        raise dialer.denied(None, 400, str(error)) from None


async def _perform(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    connection: h11.Connection,
    request: h11.Request,
    target: RequestTarget,
    dialer: Dialer,
    patience: Patience,
) -> None:
    clock = asyncio.get_running_loop().time
    upstream = await dialer.open(target.destination)
    try:
        async with asyncio.timeout(patience.idle_seconds) as idle:
            client = Downstream(reader, writer, lambda: idle.reschedule(clock() + patience.idle_seconds))
            if request.method == b"CONNECT":
                connection.next_event()  # consumes the end of the request, which has no body
                connection.send(h11.Response(status_code=200, headers=[]))
                await client.write(_ESTABLISHED)
                await tunnel(client, upstream, connection.trailing_data[0])
            else:
                await exchange(client, upstream, connection, onward(request, target))
    except TimeoutError:
        pass  # no data arrived for too long; closing the connections tells both sides
    except h11.ProtocolError:
        pass  # within a message, an error can be signalled only by closing the connection
    finally:
        upstream.close()
