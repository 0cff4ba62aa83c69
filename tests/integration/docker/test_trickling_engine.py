"""Tests a Docker engine whose responses never end: each call has a time limit, even if data arrives byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dockers import LEAKING, Heard, during, sdk_leaves_sockets  # noqa: F401
from remit.backends.docker.archives import EngineArchives, path_stat
from remit.backends.docker.container import Container, State
from remit.backends.docker.engine import Engine, create, inspect_image
from remit.backends.failure import OperationFailed

pytestmark = pytest.mark.timeout(120)
PATIENCE = 30
PACE = 0.05
VERSION = b'{"ApiVersion": "1.41", "Version": "1"}'
KINDS = {
    "the first line": b"",
    "headers": b"HTTP/1.1 200 OK\r\nX-Some: ",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
    "body without a length": b"HTTP/1.0 200 OK\r\n\r\n",
    "chunks": b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{"a": [\r\n',
    "a refusal": b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n",
}
BEFORE_BODIES = ("the first line", "headers")
CALLS: dict[str, Callable[[Any], Any]] = {
    "info": lambda client: client.info(),
    "inspect": lambda client: client.inspect_container("c"),
    "image": lambda client: inspect_image(client, "i"),
    "create": lambda client: create(client, "c", {"Labels": {}}),
    "archive": lambda client: client.put_archive("c", "/", b"x"),
    "start": lambda client: client.start("c"),
    "kill": lambda client: client.kill("c"),
    "stats": lambda client: client.stats("c", stream=False, one_shot=True),
    "logs": lambda client: client.logs("c", tail=1),
    "wait": lambda client: client.wait("c", timeout=1),
    "mode": lambda client: path_stat(client, "c", "/x"),
    "remove": lambda client: client.remove_container("c", force=True),
}
OPENINGS: dict[str, Callable[[Any], Any]] = {
    "attach": lambda client: client.attach("c", stream=True, demux=True),
    "follow": lambda client: client.logs("c", stream=True, follow=True),
    "events": lambda client: client.events(decode=True),
}


@contextlib.asynccontextmanager
async def trickling(start: bytes) -> AsyncIterator[str]:
    """Starts an engine that responds with `start` and then with one byte at a time, and yields its address. It answers
    queries about its version immediately."""
    going: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        going.add(task)
        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/version" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(VERSION), VERSION))
                elif b"/containers/c/json" in head and (b"chunked" in start or b"101" in start):
                    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{"Config":{"Tty": false}}')
                else:
                    break
            writer.write(start)
            while True:
                writer.write(b"1")
                await writer.drain()
                await asyncio.sleep(PACE)

    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        server = await asyncio.start_unix_server(serve, Path(folder) / "d.sock")
        try:
            yield f"unix://{folder}/d.sock"
        finally:
            server.close()
            for task in (left := list(going)):
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


@contextlib.asynccontextmanager
async def engine(start: bytes, at_once: int = 8, answer_seconds: int = 1) -> AsyncIterator[Engine]:
    """Provides a client. If a response may stop later, its start may take its time, as on a busy machine."""
    async with trickling(start) as address:
        engine = Engine(address, at_once=at_once, answer_seconds=answer_seconds)
        try:
            yield engine
        finally:
            async with asyncio.timeout(PATIENCE):
                await engine.close()


def kept_waiting(asked: asyncio.Task[Any]) -> bool:
    """Returns whether the call waits, without a response and within its time limit."""
    error = asked.exception()
    return not (isinstance(error, OperationFailed) and error.reason == "EngineTimeout" and error.retryable)


@LEAKING
@pytest.mark.parametrize("kind", KINDS)
async def test_each_answer_has_a_time_limit(kind: str) -> None:
    left_out = {"chunks": {"inspect"}}.get(kind, set()) | (set() if kind in BEFORE_BODIES else {"mode"})
    calls = {name: ask for name, ask in CALLS.items() if name not in left_out}
    async with engine(KINDS[kind], len(calls)) as asked:
        doing = {name: asyncio.create_task(asked.call(ask)) for name, ask in calls.items()}
        _, late = await asyncio.wait(doing.values(), timeout=PATIENCE)
        assert [name for name, task in doing.items() if task in late or kept_waiting(task)] == []


@LEAKING
@pytest.mark.parametrize("kind", [*BEFORE_BODIES, "a refusal"])
async def test_a_stream_begins_in_time(kind: str) -> None:
    async with engine(KINDS[kind]) as asked:
        for ask in OPENINGS.values():
            with pytest.raises(OperationFailed, match="did not answer within"):
                async with asyncio.timeout(PATIENCE), asked.opened(ask):
                    pass


@LEAKING
@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_stream_is_left_in_the_middle(opening: str) -> None:
    async with engine(KINDS["chunks"], answer_seconds=PATIENCE) as asked, asyncio.timeout(PATIENCE):
        async with asked.opened(OPENINGS[opening]):
            await asyncio.sleep(0)
        assert [thread.name for thread in threading.enumerate() if thread.name == "docker stream"] == []


@LEAKING
@pytest.mark.parametrize("opening", OPENINGS)
async def test_a_stream_that_opens_once_nobody_wants_it_is_closed(opening: str) -> None:
    sources: list[Any] = []
    is_open, may_return = threading.Event(), threading.Event()

    def ask(client: Any) -> Any:
        sources.append(source := OPENINGS[opening](client))
        is_open.set()
        may_return.wait(PATIENCE)
        return source

    async def use(asked: Engine) -> None:
        async with asked.opened(ask):
            raise AssertionError("it was cancelled before")

    async with engine(KINDS["chunks"], answer_seconds=PATIENCE) as asked, asyncio.timeout(PATIENCE):
        using = asyncio.create_task(use(asked))
        await asyncio.to_thread(is_open.wait, PATIENCE)
        using.cancel()
        await asyncio.sleep(0)
        may_return.set()
        with pytest.raises(asyncio.CancelledError):
            await using
        (source,) = sources
        assert source._response.raw.closed


@LEAKING
@pytest.mark.parametrize("kind", [*BEFORE_BODIES, "chunks"])
async def test_a_pull_that_was_left_has_no_connection(kind: str) -> None:
    def streams() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "docker stream"]

    async with engine(KINDS[kind], answer_seconds=PATIENCE) as asked, asyncio.timeout(PATIENCE):
        await asked.call(lambda client: None)  # establishes the connection
        pulling = asyncio.create_task(asked.pull("i:t"))
        while not streams():
            await asyncio.sleep(0.01)
        pulling.cancel()
        await asyncio.wait({pulling})
        while streams():
            await asyncio.sleep(0.01)


@LEAKING
async def test_events_of_the_past_have_an_end() -> None:
    async with engine(KINDS["chunks"]) as asked, asyncio.timeout(PATIENCE):
        now = datetime.now(UTC)
        assert await Container(asked, "c", Heard()).was_ended_from_outside(State(137, False, now, now))


@LEAKING
async def test_an_archive_is_left_in_the_middle() -> None:
    """This happens when the time for collecting artifacts is over."""
    async with trickling(KINDS["body"]) as address:
        asked = Engine(address, answer_seconds=PATIENCE)
        archives = EngineArchives(asked, "c", PATIENCE * 10)
        archives._check_runs = lambda: None  # type: ignore[method-assign]
        reading = threading.Event()

        def read() -> bytes:
            with archives.open("/x") as body:
                reading.set()
                return body.read(1 << 20)

        doing = asyncio.create_task(asyncio.to_thread(read))
        async with asyncio.timeout(PATIENCE):
            await during(doing, asyncio.to_thread(reading.wait))
            archives.stop()
            with pytest.raises(OSError, match="being stopped"):
                await doing
        await asked.close()
