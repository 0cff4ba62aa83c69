"""Tests a container whose output arrives byte by byte from its engine: the attempt's own timeout still ends it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockers import LEAKING, Heard, docker, make_image, needs_docker, remove_image, sdk_leaves_sockets  # noqa: F401
from engines import Relay
from remit.backends.base import AttemptRequest, Command
from remit.backends.docker import container
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.outcome import ExitReason
from remit.sandbox import Confinement, Limits

pytestmark = pytest.mark.timeout(180)
PATIENCE = 60
FLOOD = "echo begun; i=0; while test $i -lt 1000; do echo more and more; i=$((i+1)); done; while true; do sleep 1; done"


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    needs_docker()
    tag = make_image()
    yield tag
    remove_image(tag)


@LEAKING
@pytest.mark.parametrize("word", [b"/attach", b"/logs"])
async def test_output_that_trickles(image: str, word: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_KILL_SECONDS", 0.5)
    confinement = Confinement(Limits(), network="none", require=frozenset())
    command = Command(("sh", "-c", FLOOD), "")
    request = AttemptRequest(f"{uuid.uuid4()}-1", command, confinement, 4, grace_seconds=0.1, image=image)
    relay, heard, never = Relay(word), Heard(), asyncio.Event()
    engine = Engine(await relay.open_unix(tmp_path / "d.sock"))
    try:
        async with asyncio.timeout(PATIENCE):
            running = asyncio.ensure_future(DockerBackend(engine).run(request, heard, cancel=never))
            if word == b"/logs":
                await heard.begun(running)
                running.cancel()
                await asyncio.wait({running})
                taken_up = DockerBackend(engine).adopt(request, Heard(), cancel=never, on_found=lambda handle: None)
                running = asyncio.ensure_future(taken_up)
            outcome = await running
        assert outcome is not None
        assert outcome.reason is ExitReason.TIMED_OUT
        assert docker("ps", "-aq", "--filter", f"name={request.id}").stdout == b""
    finally:
        await engine.close()
        await relay.shut()
