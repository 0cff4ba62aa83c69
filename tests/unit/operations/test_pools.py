"""Tests connection pools whose servers do not answer: users of other servers do not wait, and the shutdown is not
delayed."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from remit.operations.database import pools, postgres
from remit.operations.database.connection import DatabaseServer
from remit.operations.database.pools import Pools
from remit.operations.database.rows import _Relay
from remit.operations.tls import TlsMaterial
from simulatedtime import simulate


def at(name: str, url: str = "redis://one") -> DatabaseServer:
    return DatabaseServer(f"ns/{name}/url", url, TlsMaterial())


class Silent:
    """Pools whose closing never completes."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.pools: Pools[str] = Pools(self._make, self._close)

    async def _make(self, target: DatabaseServer) -> str:
        return target.url

    async def _close(self, pool: str) -> None:
        self.closed.append(pool)
        await asyncio.get_running_loop().create_future()


async def finishes(work: Any, within: float) -> None:
    async with asyncio.timeout(within):
        await work


def test_a_pool_that_does_not_close_holds_up_no_other_task() -> None:
    async def scenario() -> None:
        silent, now = Silent(), asyncio.get_running_loop().time
        async with silent.pools.lease(at("db")):
            pass
        async with silent.pools.lease(at("db", "redis://two")) as pool:  # the Secret was changed
            assert pool == "redis://two"
        async with silent.pools.lease(at("other")):
            pass
        assert now() == 0, "nothing waited"
        await asyncio.sleep(0)
        assert silent.closed == ["redis://one"]

    simulate(scenario())


def test_a_task_whose_pool_was_retired_meanwhile_does_not_wait_for_it_to_close() -> None:
    async def scenario() -> None:
        silent, now = Silent(), asyncio.get_running_loop().time
        async with silent.pools.lease(at("db")), silent.pools.lease(at("db", "redis://two")):
            assert not silent.closed
        assert now() == 0
        await asyncio.sleep(0)
        assert silent.closed == ["redis://one"]

    simulate(scenario())


def test_the_end_waits_for_all_at_once_and_not_for_ever() -> None:
    async def scenario() -> None:
        silent, now = Silent(), asyncio.get_running_loop().time
        for name in ("a", "b", "c"):
            async with silent.pools.lease(at(name, f"redis://{name}")):
                pass
        await finishes(silent.pools.close(), 10 * pools.CLOSE_SECONDS)
        assert now() == pools.CLOSE_SECONDS
        assert sorted(silent.closed) == ["redis://a", "redis://b", "redis://c"]

    simulate(scenario())


async def test_a_relay_ends_though_its_server_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.operations.database.rows._LAST_SECONDS", 0.05)
    libpq, server = socket.socketpair()
    with server:
        relay = _Relay(SimpleNamespace(pgconn=SimpleNamespace(socket=libpq.fileno())))  # type: ignore[arg-type]
        libpq.setblocking(False)
        async with asyncio.timeout(30):
            with libpq:
                while relay._client.fileno() >= 0:  # until the buffers on the way are full
                    try:
                        libpq.send(b"x" * 65536)
                        await asyncio.sleep(0)
                    except BlockingIOError:
                        break
            await relay.close()
    assert relay.carrying.done()


@pytest.mark.parametrize("step", ["_check", "_configure", "_forget"])
async def test_a_worker_of_a_pool_does_not_wait_for_ever(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        async def set_autocommit(self, value: bool) -> None:
            pass

        async def execute(self, statement: str) -> None:
            await asyncio.get_running_loop().create_future()

        autocommit = True

    monkeypatch.setattr(postgres, "_CONNECT_SECONDS", 0.05)
    async with asyncio.timeout(30) as patience:
        with pytest.raises(TimeoutError):
            await getattr(postgres, step)(Stuck())
    assert not patience.expired()
