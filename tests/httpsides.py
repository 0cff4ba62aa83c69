"""A small HTTP backend in a separate process that answers with its name, fast enough not to affect measurements.

`GET /slow` is answered only after the process received SIGUSR1, and `/headers` returns the request's headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    name: str
    port: int
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answer_slow(self) -> None:
        """Answers waiting and future requests to `/slow`."""
        self.process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def side(name: str, port: int = 0) -> Iterator[Side]:
    process = subprocess.Popen([sys.executable, __file__, name, str(port)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        try:
            yield Side(name, int(process.stdout.readline()), process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


class Connection(asyncio.Protocol):
    waiting: set[Connection] = set()  # noqa: RUF012
    released = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, _, self._head = self._head.partition(b"\r\n\r\n")
            if head.startswith(b"GET /slow ") and not self.released:
                self.waiting.add(self)
            else:
                self.answer(head if head.startswith(b"GET /headers ") else NAME)
                if b"\nconnection: close" in head.lower():
                    self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.discard(self)

    def answer(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def answer_waiting() -> None:
    Connection.released = True
    for connection in list(Connection.waiting):
        connection.answer(NAME)
    Connection.waiting.clear()


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, answer_waiting)
    server = await loop.create_server(Connection, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    NAME = sys.argv[1].encode()
    asyncio.run(main(int(sys.argv[2])))
