"""Tests reads of the audit trail: one at a time, for a limited time, and no thread that continues without a client."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from remit.describe import observedruns
from remit.describe.audittrail import Selection
from remit.telemetry.chain import GENESIS, AuditEvent, encode
from remit.telemetry.redact import Redactor
from remit.telemetry.trail import Filter, ReadCancelled, read
from remit.telemetry.verifying import verify
from remit.web.pages import audit


@pytest.fixture(autouse=True)
def _of_this_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_reading", asyncio.Semaphore(1))


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    path, head, lines = tmp_path / "audit.jsonl", GENESIS, []
    for number in range(20):
        event = AuditEvent(kind="execution", namespace="default", task=f"t{number}", network=[{"destination": "a:1"}])
        line, head = encode(event, head, datetime.datetime.now(datetime.UTC), Redactor())
        lines.append(line)
    path.write_bytes(b"".join(lines))
    return path


READERS: dict[str, Callable[[Path, threading.Event], object]] = {
    "lines": lambda path, stop: list(read(path, stop)),
    "search": lambda path, stop: list(Selection(path, Filter(task="none"), 5, stop)),
    "check": lambda path, stop: verify(path, stop=stop),
    "destinations": lambda path, stop: observedruns.reached_by(path, "default", stop),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_every_read_ends_when_it_is_asked_to(trail: Path, reader: Callable[[Path, threading.Event], object]) -> None:
    stop = threading.Event()
    assert reader(trail, stop) is not None
    stop.set()
    with pytest.raises(ReadCancelled):
        reader(trail, stop)


async def test_a_reading_that_takes_too_long_leaves_no_thread(trail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_SECONDS", 0.1)
    ended = threading.Event()

    def endless(stop: threading.Event) -> None:
        try:
            while True:
                list(read(trail, stop))
        finally:
            ended.set()

    with pytest.raises(web.HTTPGatewayTimeout, match="Gateway Timeout") as told:
        await audit.in_turn(endless)
    assert "'remit audit" in str(told.value.text)
    assert await asyncio.to_thread(ended.wait, 60)
    monkeypatch.setattr(audit, "_SECONDS", 60)
    assert await audit.in_turn(lambda stop: len(list(read(trail, stop)))) == 20


async def test_a_reader_that_hangs_holds_one_thread_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk does not answer, and no event can end the read."""
    monkeypatch.setattr(audit, "_SECONDS", 0.1)
    answered, begun = threading.Event(), list[int]()

    def hanging(stop: threading.Event) -> bool:
        begun.append(1)
        return answered.wait(60)

    for _ in range(5):
        with pytest.raises(web.HTTPGatewayTimeout):
            await audit.in_turn(hanging)
    assert len(begun) == 1
    answered.set()
    monkeypatch.setattr(audit, "_SECONDS", 60)
    assert await audit.in_turn(hanging)


async def test_errors_of_a_reading_are_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await audit.in_turn(lambda stop: list(read(tmp_path / "none", stop)))
