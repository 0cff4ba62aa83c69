"""Tests the probe for ports without HTTP, to which it only connects."""

from __future__ import annotations

import asyncio

import pytest

from ports import free_port
from remit.controllers.probing import ProbeRun
from remit.release.traffic.probe import Probe


async def _accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_connections_are_counted_and_refused_ones_fail() -> None:
    server = await asyncio.start_server(_accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Probe(f"tcp://127.0.0.1:{port}", rate=100) as probe:
        pass
    assert (probe.report().failed, probe.report().requests > 0) == (0, True)
    async with Probe(f"tcp://127.0.0.1:{free_port()}", rate=100) as probe:
        pass
    report = probe.report()
    assert report.failed == report.requests > 0
    assert "refused" in report.errors[0] or "Connect call failed" in report.errors[0]


async def test_a_side_that_does_not_answer_holds_no_step_up() -> None:
    """The first response never arrives. A step that waits for it continues nevertheless, and so does the end of the
    probe."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        probe_run = ProbeRun(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", ended.set, "")
        async with asyncio.timeout(60):
            await probe_run.began()
            assert not probe_run.over
            await probe_run.end()
            await ended.wait()
    assert probe_run.over
    assert {request.error != "" for request in probe_run.requests} == {True}


async def test_a_burst_goes_on_for_a_while_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.controllers.probing._AFTER_SECONDS", 0.2)
    ended = asyncio.Event()
    server = await asyncio.start_server(_accept, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        probe_run = ProbeRun(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", ended.set, "")
        await probe_run.began()
        probe_run.go_on()
        await ended.wait()
    assert probe_run.over
    assert len(probe_run.requests) >= 2


async def test_a_probe_whose_end_is_cancelled_leaves_nothing_open() -> None:
    """This happens if an event loop ends while requests are in progress."""
    answered, held = asyncio.Event(), asyncio.Event()

    async def answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if answered.is_set():
            held.set()
        else:
            answered.set()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answers_once, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        probe = Probe(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", rate=100)

        async def run() -> None:
            async with probe:
                await asyncio.Event().wait()

        running = asyncio.create_task(run())
        await held.wait()
        running.cancel()
        for _ in range(10):  # the probe now waits for the requests in progress
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert probe._session.closed
