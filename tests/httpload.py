"""An HTTP load generator that never retries or hides a failed request, and records the time of each request.

    python -m httpload HOST PORT {keep|new} RATE

sends RATE requests per second until its stdin is closed, and then prints the result of each as a line of JSON:
`[sent, answered, body, error]`. The times are those of `time.monotonic()`, which is the same clock in all processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

WORKERS = 16
PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    sent: float
    answered: float
    body: str
    error: str


@dataclass
class Load:
    """The results of a load generator, complete when its block has ended."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.error]

    @property
    def rate(self) -> float:
        return len(self.answers) / (self.answers[-1].sent - self.answers[0].sent)


@asynccontextmanager
async def load(port: int, connections: str, rate: int = 100, host: str = "127.0.0.1") -> AsyncIterator[Load]:
    """Generates load from a separate process while the block runs. The load has begun when the block is entered."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, host, str(port), connections, str(rate)),
        cwd=Path(__file__).parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin
    assert child.stdout
    result = Load()
    try:
        assert await child.stdout.readline() == b"began\n"
        yield result
    finally:
        child.stdin.close()
        said, _ = await child.communicate()
    result.answers = sorted((Answer(*json.loads(line)) for line in said.splitlines()), key=lambda each: each.sent)


class Client:
    """A client with one connection at a time, which it keeps open or not."""

    def __init__(self, host: str, port: int, *, keep: bool) -> None:
        self._host, self._port = host, port
        self._keep = keep
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._streams:
            self._streams[1].close()

    async def get(self) -> str:
        """Returns the body of a response with status 200. Raises OSError, EOFError or ValueError for anything else."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        kept = False
        try:
            close = "" if self._keep else "Connection: close\r\n"
            writer.write(f"GET / HTTP/1.1\r\nHost: test\r\n{close}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            body = (await reader.readexactly(length)).decode()
            if " 200 " not in head.partition("\r\n")[0]:
                raise ValueError(head.partition("\r\n")[0])
            kept = self._keep and "connection: close" not in head
        finally:
            if not kept:
                writer.close()
                self._streams = None
        return body


async def main(host: str, port: int, connections: str, rate: int) -> None:
    answers: list[Answer] = []
    over = asyncio.Event()
    began = time.monotonic()

    async def work(number: int) -> None:
        client = Client(host, port, keep=connections == "keep")
        turn = number
        while not over.is_set():
            await asyncio.sleep(began + turn / rate - time.monotonic())
            turn = max(turn + WORKERS, int((time.monotonic() - began) * rate) - 50 * WORKERS)
            sent, body, error = time.monotonic(), "", ""
            try:
                async with asyncio.timeout(PATIENCE):
                    body = await client.get()
            except (OSError, EOFError, ValueError) as exception:
                error = repr(exception)
            answers.append(Answer(sent, time.monotonic(), body, error))

    print("began", flush=True)
    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(work(number))
        await asyncio.to_thread(sys.stdin.read)
        over.set()
    for each in answers:
        print(json.dumps([each.sent, each.answered, each.body, each.error]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
