"""The output of a container is read to its end, also where a connection to the engine breaks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from remit.backends.base import Stream
from remit.backends.docker import container as containers
from remit.backends.docker.container import Container
from remit.backends.failure import OperationFailed
from remit.errors import BackendError

LOG = {"stdout": b"one two three", "stderr": b"four"}
PIECE = 4
BROKEN = OperationFailed("EngineUnavailable", "the connection broke")
ENDED = {
    "State": {
        "Running": False,
        "Restarting": False,
        "StartedAt": "2026-01-01T00:00:00Z",
        "FinishedAt": "2026-01-01T00:00:01Z",
        "ExitCode": 0,
        "OOMKilled": False,
    }
}


class Client:
    def inspect_container(self, _: str) -> dict[str, Any]:
        return ENDED

    def logs(self, _: str, *, stdout: bool, stderr: bool, stream: bool, follow: bool) -> list[bytes]:
        assert stdout is not stderr
        log = LOG["stdout" if stdout else "stderr"]
        return [log[at : at + PIECE] for at in range(0, len(log), PIECE)]


class Engine:
    """An engine with one container, which has ended. The first `failures` replays of a stream break after a piece."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.replays = 0

    async def call(self, ask: Callable[[Any], Any]) -> Any:
        return ask(Client())

    async def stream(self, ask: Callable[[Any], Any]) -> AsyncGenerator[Any, None]:
        self.replays += 1
        breaks = self.replays <= self.failures
        for number, piece in enumerate(ask(Client())):
            if breaks and number:
                break
            yield piece
        if breaks:
            raise BROKEN


class Sink:
    def __init__(self) -> None:
        self.written: dict[Stream, bytes] = defaultdict(bytes)

    def write(self, stream: Stream, chunk: bytes) -> None:
        self.written[stream] += chunk


async def attached(*pairs: tuple[bytes | None, bytes | None], breaks: bool = False) -> AsyncIterator[Any]:
    for pair in pairs:
        yield pair
    if breaks:
        raise BROKEN


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_REPLAY_PAUSES", (0.0,) * 3)


def made(engine: Engine) -> tuple[Container, Sink]:
    sink = Sink()
    return Container(engine, "c" * 64, sink), sink  # type: ignore[arg-type]  # as much of both as is needed


async def test_output_that_came_to_its_end_is_not_read_again() -> None:
    engine = Engine()
    container, sink = made(engine)
    await container.carry(attached((LOG["stdout"], None), (None, LOG["stderr"])))
    assert (dict(sink.written), engine.replays) == (LOG, 0)


@pytest.mark.parametrize("failures", [0, 1, 2, 4])
async def test_the_log_has_the_rest_after_a_connection_broke(failures: int) -> None:
    engine = Engine(failures)
    container, sink = made(engine)
    await container.carry(attached((LOG["stdout"][:6], None), breaks=True))
    assert dict(sink.written) == LOG


@pytest.mark.parametrize("failures", [1, 4])
async def test_a_replay_that_broke_is_made_again(failures: int) -> None:
    container, sink = made(Engine(failures))
    await container.carry(None)
    assert dict(sink.written) == LOG


async def test_output_that_cannot_be_read_is_an_error() -> None:
    container, _ = made(Engine(failures=1000))
    with pytest.raises(BackendError, match="does not give the rest of the output of container cccccccccccc"):
        await container.until_over(attached((b"one", None), breaks=True), asyncio.Event(), seconds=60, grace=0)
