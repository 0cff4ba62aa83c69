"""Creates tasks and waits for their ends: `python -m bench.flood` reads a JSON job and prints JSON times.

A process of its own, like `bench.loadgenerator`, whose connections it uses: requests are rendered beforehand, and the
watch asks the server for finished tasks only, so there is one short text to search for each task.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator

from bench.loadgenerator import TASKS, Connection, Server
from bench.task import task

PATIENCE = 300.0


class FinishedTasks(asyncio.Protocol):
    """A watch of the tasks that have succeeded. Calls `on_finished` with the name of each, once."""

    def __init__(self, request: bytes, on_finished: Callable[[str], None]) -> None:
        self._request, self._on_finished = request, on_finished
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b'{"type":"ADDED"'):
                metadata = json.loads(line)["object"]["metadata"]
                self._on_finished(metadata["name"])


async def flood(server: Server, names: list[str], clients: int) -> tuple[dict[str, float], dict[str, float]]:
    """Returns when each task was sent and when it was seen to have succeeded, in seconds of one clock."""
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    finished = asyncio.Event()

    def on_finished(name: str) -> None:
        seen.setdefault(name, time.perf_counter())
        if seen.keys() >= wanted:
            finished.set()

    wanted = set(names)
    connections = [await server.connect() for _ in range(clients)]
    answer = await connections[0].ask(server.request("GET", f"{TASKS}?limit=1"))
    version = json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])["metadata"]["resourceVersion"]
    query = f"watch=true&resourceVersion={version}&fieldSelector=status.phase%3DSucceeded"
    watch = server.request("GET", f"{TASKS}?{query}")
    requests = iter([(name, server.request("POST", TASKS, task(name))) for name in names])
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        lambda: FinishedTasks(watch, on_finished), server.host, server.port, ssl=server.tls
    )
    try:
        await asyncio.gather(*(_create_all(connection, requests, sent) for connection in connections))
        async with asyncio.timeout(PATIENCE):
            await finished.wait()
    except TimeoutError:
        raise RuntimeError(f"{len(wanted - seen.keys())} of {len(names)} tasks have not succeeded") from None
    finally:
        for one in (transport, *(connection.transport for connection in connections)):
            one.close()
    return sent, seen


async def _create_all(connection: Connection, requests: Iterator[tuple[str, bytes]], sent: dict[str, float]) -> None:
    for name, request in requests:
        sent[name] = time.perf_counter()
        await connection.ask(request)


async def main() -> None:
    job = json.load(sys.stdin)
    server = Server(job["url"], job["token"], job["ca"])
    sent, seen = await flood(server, job["names"], job["clients"])
    json.dump({"sent": sent, "seen": seen, "cpu": time.process_time()}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
