"""Tests a Docker engine that keeps containers running while it restarts (`live-restore`); their network also
continues."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from dockers import LEAKING, Heard, docker, during, make_image, needs_docker, own_engine, sdk_leaves_sockets  # noqa: F401
from outgoing import egress, local, web_server
from remit.backends import breaker
from remit.backends.base import AttemptRequest, Command
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.egress.listeners import EgressListeners
from remit.backends.outcome import ExitReason
from remit.sandbox import Confinement, Limits

PATIENCE = 60


async def until_missed(engine: Engine) -> None:
    """Waits until more calls have failed than the one for resource usage."""
    while (missed := engine.breaker._circuits.get(engine.host)) is None or missed.failures < 3:
        await asyncio.sleep(0.05)


@LEAKING
@pytest.mark.timeout(180)
async def test_a_restricted_network_outlives_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_docker()
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 1.0)
    with own_engine(live_restore=True) as own:
        engine = Engine(own.host)
        try:
            async with web_server() as port:
                fetch = f"busybox wget -qO- http://api.test:{port}"
                script = f"{fetch}/1; echo; while ! test -e /workspace/go; do sleep 0.1; done; {fetch}/2"
                command = Command(("sh", "-c", script), "")
                restricted = Confinement(Limits(), network="restricted", require=frozenset())
                id_, heard = f"{uuid.uuid4()}-1", Heard()
                image = make_image(own.host)
                request = AttemptRequest(id_, command, restricted, 60, image=image, egress=(egress(port),))
                backend = DockerBackend(engine, EgressListeners(local))
                running = asyncio.create_task(backend.run(request, heard, cancel=asyncio.Event()))
                await heard.begun(running)
                await asyncio.to_thread(own.stop)
                await during(running, until_missed(engine))
                await asyncio.to_thread(own.start)
                touch = ("exec", "-u", "65534", f"remit-{id_}", "touch", "/workspace/go")
                assert docker(*touch, host=own.host).returncode == 0
                outcome = await asyncio.wait_for(running, PATIENCE)
            assert (outcome.reason, outcome.exit_code) == (ExitReason.COMPLETED, 0), outcome
            assert (heard.out, heard.err) == (b"GET /1 HTTP/1.1\nGET /2 HTTP/1.1", b"")
            assert outcome.network is not None
            assert outcome.network.connections == 2
            assert docker("ps", "-aq", host=own.host).stdout == b""
        finally:
            await engine.close()
