"""Tests the watches of an operator that is asked to stop while kopf starts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest

from remit.controllers.watching import Watcher
from remit.kube.access import Access

NOBODY = Access("http://127.0.0.1:1")


@pytest.mark.parametrize("turns", range(12))
def test_a_watch_that_is_stopped_as_it_begins_leaves_no_session_open(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`turns` is the number of turns of the event loop. kopf was cancelled before it waited for its tasks, which then
    logged in later."""
    sessions: list[aiohttp.ClientSession] = []
    begin = aiohttp.ClientSession.__init__

    def beginning(self: aiohttp.ClientSession, *arguments: Any, **options: Any) -> None:
        sessions.append(self)
        begin(self, *arguments, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", beginning)

    async def watching() -> None:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        assert me is not None

        def stop_after(turns: int) -> None:
            if turns:
                loop.call_soon(stop_after, turns - 1)
            else:
                me.cancel()

        loop.call_soon(stop_after, turns)
        await Watcher(NOBODY, [], lambda *_: None, lambda *_: None)._watch(loop)

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(watching())
    assert [session.closed for session in sessions] == [True] * len(sessions)
