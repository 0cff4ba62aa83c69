"""Tests that the benchmark of starts builds its own sandboxes from the parts of `remit.sandbox`."""

from __future__ import annotations

import pytest

from bench import startup


async def test_every_contestant_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "RUNS", startup.AT_ONCE)
    monkeypatch.setattr(startup, "docker_image", lambda: None)
    figures = await startup.measure()
    assert len(figures.rows) > 4
