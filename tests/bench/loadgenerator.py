"""Sends requests to an API server as fast as it answers: `python -m bench.loadgenerator` reads a JSON job and prints
JSON figures.

A process of its own, and a client that does as little as can be: requests are rendered beforehand, and of an answer
only status and length are read. So what is measured is the server.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from bench.task import task

NAMESPACE = "default"
TASKS = f"/apis/remit.dev/v1alpha1/namespaces/{NAMESPACE}/executiontasks"


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] | None = None
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        if head < 0 or self._answer is None:
            return
        at = self._read.find(b"ontent-Length: ", 0, head)
        if at >= 0:
            length = int(self._read[at + 15 : self._read.find(b"\r\n", at)])
            complete = len(self._read) >= head + 4 + length
        else:
            complete = self._read.endswith(b"\r\n0\r\n\r\n")
        if complete:
            answer, self._read = bytes(self._read), bytearray()
            self._answer.set_result(answer)

    async def ask(self, request: bytes) -> bytes:
        """Sends a request and returns the response. Raises `RuntimeError` for any refusal, which would count as a fast
        response."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        answer = await self._answer
        if answer[9:10] != b"2":
            raise RuntimeError(answer[:2000].decode(errors="replace"))
        return answer


class Server:
    """Where to connect, and the beginning of requests."""

    def __init__(self, url: str, token: str, ca: str) -> None:
        address = urlsplit(url)
        self.host, self.port, self.token = address.hostname, address.port, token
        self.tls = ssl.create_default_context(cafile=ca)

    async def connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.host, self.port, ssl=self.tls)
        return connection

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> bytes:
        data = json.dumps(body).encode() if body is not None else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Accept: application/json\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


async def rates(server: Server, clients: int, objects: int) -> dict[str, float]:
    """Returns responses per second, by verb. Every client works on its own objects."""
    connections = [await server.connect() for _ in range(clients)]
    names = [f"bench-{number:06}" for number in range(objects)]
    verbs: dict[str, list[bytes]] = {
        "create": [server.request("POST", TASKS, task(name)) for name in names],
        "get": [server.request("GET", f"{TASKS}/{name}") for name in names] * 4,
        "list of 100": [server.request("GET", f"{TASKS}?limit=100")] * (objects // 5),
        "merge patch": [_patch(server, name, turn) for turn in (1, 2) for name in names],
        "status patch": [_patch(server, name, turn, "status") for turn in (1, 2) for name in names],
    }
    figures = {}
    for verb, requests in verbs.items():
        work = iter(requests)
        start = time.perf_counter()
        await asyncio.gather(*(_ask_all(connection, work) for connection in connections))
        figures[verb] = len(requests) / (time.perf_counter() - start)
    for connection in connections:
        connection.transport.close()
    return figures


async def _ask_all(connection: Connection, work: Iterator[bytes]) -> None:
    for request in work:
        await connection.ask(request)


def _patch(server: Server, name: str, turn: int, subresource: str = "") -> bytes:
    path = f"{TASKS}/{name}/{subresource}".rstrip("/")
    change = (
        {"status": {"phase": "Running", "message": f"turn {turn}"}}
        if subresource
        else {"spec": {"ttlSecondsAfterFinished": turn}}
    )
    return server.request("PATCH", path, change, "application/merge-patch+json")


class Watcher(asyncio.Protocol):
    """Counts the received change events."""

    def __init__(self, told: asyncio.Semaphore, request: bytes) -> None:
        self._told, self._request, self._rest = told, request, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        seen = self._rest + data
        for _ in range(seen.count(b'"MODIFIED"')):
            self._told.release()
        self._rest = seen[-9:] if b'"MODIFIED"' not in seen[-9:] else b""


async def fan_out(server: Server, watchers: int, changes: int) -> list[float]:
    """Returns the seconds from sending a change until the last of `watchers` has received it."""
    loop = asyncio.get_running_loop()
    connection = await server.connect()
    name = "watched"
    answer = await connection.ask(server.request("POST", TASKS, task(name)))
    version = json.loads(answer[answer.index(b"{") :])["metadata"]["resourceVersion"]
    told = asyncio.Semaphore(0)
    watch = server.request("GET", f"{TASKS}?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3D{name}")
    transports = [
        (await loop.create_connection(lambda: Watcher(told, watch), server.host, server.port, ssl=server.tls))[0]
        for _ in range(watchers)
    ]
    seconds = []
    for turn in range(changes + 1):
        start = time.perf_counter()
        await connection.ask(_patch(server, name, turn + 10))
        for _ in range(watchers):
            await told.acquire()
        seconds.append(time.perf_counter() - start)
    for transport in transports:
        transport.close()
    return seconds[1:]  # during the first change, watches are still being set up


async def main() -> None:
    job = json.load(sys.stdin)
    server = Server(job["url"], job["token"], job["ca"])
    figures = await rates(server, job["clients"], job["objects"])
    json.dump({"rates": figures, "fan out": await fan_out(server, job["watchers"], job["changes"])}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
