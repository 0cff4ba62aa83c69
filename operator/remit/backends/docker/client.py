"""The Docker SDK's client, made to give up an engine that takes for ever. The SDK's time limits are between two bytes:
one that sends a byte now and then would hold a thread, and whoever waits for it, as long as it likes."""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docker
import requests

_FRAME = struct.Struct(">BxxxL")
"""The head of a piece of output: the number of its stream, and its bytes."""
_STDERR = 2
_MOST_READ = 1 << 15


class BoundedClient(docker.APIClient):
    """Each answer is there within the time of its request, whole; of a stream, its beginning. Else it is a
    `requests.ReadTimeout`. What is asked for without a time, as a pull is, has none.

    Trusts whom it was told to trust: `REQUESTS_CA_BUNDLE` and proxies in the environment are about other hosts.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._asking = threading.local()
        super().__init__(*arguments, **options)

    def get(self, url, **options):  # type: ignore[no-untyped-def]
        """See `requests.Session`. The SDK would wait for events for ever."""
        return super().get(url, **{**options, "timeout": options.get("timeout") or self.timeout})

    def send(self, request, **options):  # type: ignore[no-untyped-def]
        """See `requests.Session`."""
        if (seconds := options.get("timeout")) is None:
            self._asking.response = response = super().send(request, **options)
            return response
        streams = options.pop("stream", False)
        with _deadline(self._asking, seconds):
            self._asking.response = response = super().send(request, stream=True, **options)
            if not streams or not response.ok:
                response.content  # noqa: B018  # read now
        return response

    @contextlib.contextmanager
    def cuttable(self) -> Iterator[Callable[[], None]]:
        """Gives what cuts, from any thread, the connection of what this one asks for within without a time. What it was
        answered is closed in the end."""
        noted = self._asking.__dict__
        noted.clear()
        try:
            yield functools.partial(_cut_noted, noted)
        finally:
            response = noted.pop("response", None)
            noted.clear()
            if response is not None:
                response.close()

    def _read_from_socket(self, response, stream, tty=True, demux=False):  # type: ignore[no-untyped-def]
        """The output that follows the head of an answer. The SDK reads it from the socket, and loses what came together
        with the head, which the reader of that has in its buffer: of a short command, all that it said."""
        if tty or not (stream and demux):
            raise NotImplementedError("output is read as a stream, and its streams apart")
        connection = self._get_raw_response_socket(response)  # type: ignore[attr-defined]
        self._disable_socket_timeout(connection)  # type: ignore[attr-defined]  # a program may be silent
        return _output(response.raw._fp.fp)

    def mount(self, prefix, adapter):  # type: ignore[no-untyped-def]
        """See `requests.Session`. Each thread's connection is noted, to be cut when its time is over."""
        connecting = adapter.get_connection_with_tls_context

        def connected(*arguments: Any, **options: Any) -> Any:
            return self._noting(connecting(*arguments, **options))

        adapter.get_connection_with_tls_context = connected
        super().mount(prefix, adapter)

    def merge_environment_settings(  # type: ignore[no-untyped-def, override]
        self, url, proxies, stream, verify, cert
    ) -> dict[str, Any]:
        """See `requests.Session`, where the environment would come first."""
        return {
            "proxies": dict(proxies or {}),
            "stream": bool(stream),
            "verify": self.verify if verify is None else verify,
            "cert": cert or self.cert,
        }

    def _noting(self, pool: Any) -> Any:
        if "_get_conn" not in vars(pool):
            take = pool._get_conn

            def taken(*arguments: Any, **options: Any) -> Any:
                self._asking.connection = take(*arguments, **options)
                return self._asking.connection

            pool._get_conn = taken
        return pool


def _output(reader: io.BufferedReader) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Pieces of standard output, and of standard error, until the connection ends."""
    while len(head := reader.read(_FRAME.size)) == _FRAME.size:
        number, left = _FRAME.unpack(head)
        while left:
            if not (piece := reader.read1(min(left, _MOST_READ))):
                return
            left -= len(piece)
            yield (None, piece) if number == _STDERR else (piece, None)


def cut(response: requests.Response) -> None:
    """Have whoever reads it, in another thread, find its end."""
    raw: Any = response.raw
    # The response was read completely, and its connection was returned to the pool.
    with contextlib.suppress(AttributeError):
        _shut(raw._fp.fp.raw._sock)


@contextlib.contextmanager
def _deadline(asking: Any, seconds: float) -> Iterator[None]:
    """Cuts the connection on which this thread is `asking` when the seconds are over."""
    lock, over, late = threading.Lock(), False, False
    noted = asking.__dict__  # thread-local: this thread's attributes
    noted.clear()

    def end() -> None:
        nonlocal late
        with lock:
            if not over:
                late = True
                _cut_noted(noted)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if late:
            raise requests.ReadTimeout from None
        raise
    finally:
        with lock:
            over = True
        timer.cancel()
        noted.clear()
    if late:  # a body without a length also ends when its connection is cut
        raise requests.ReadTimeout


def _cut_noted(noted: Mapping[str, Any]) -> None:
    if (response := noted.get("response")) is not None:
        cut(response)
    else:
        _shut(getattr(noted.get("connection"), "sock", None))


def _shut(connection: socket.socket | None) -> None:
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
