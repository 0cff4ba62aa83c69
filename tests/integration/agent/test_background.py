"""Tests the event loop of executions at the end of the process."""

from __future__ import annotations

import concurrent.futures

import pytest

from remit.agent.background import Background


def test_what_comes_while_the_loop_ends_is_done_and_what_comes_later_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This happens if the interpreter collects an agent during the shutdown, which ends its engine."""
    where, submitted = Background(), list[concurrent.futures.Future[str]]()

    async def work() -> str:
        return "done"

    join = where._thread.join

    def joined(seconds: float) -> None:
        join(seconds)
        submitted.append(where.submit(work()))

    monkeypatch.setattr(where._thread, "join", joined)
    where._stop()
    assert [each.result(0) for each in submitted] == ["done"]
    with pytest.raises(RuntimeError, match="about to end"):
        where.submit(work())
