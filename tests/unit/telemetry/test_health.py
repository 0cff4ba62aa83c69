import asyncio

import aiohttp
import pytest

from remit.telemetry import health
from remit.telemetry.health import Checks, HealthServer
from remit.telemetry.metrics import Metrics


async def get(server, path):
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as answer:
        return answer.status, await answer.text(), answer.headers["Content-Type"]


async def test_health_readiness_and_metrics():
    trouble: list[str] = []
    checks = Checks()
    checks.live["loop"] = lambda: None
    checks.ready["store"] = lambda: trouble[0] if trouble else None
    async with HealthServer(Metrics(), checks) as server:
        assert await get(server, "/healthz") == (200, "ok", "text/plain; charset=utf-8")
        assert (await get(server, "/readyz"))[:2] == (200, "ok")
        assert (await get(server, "/readyz?verbose"))[:2] == (200, "[+]store ok\nreadyz check passed\n")
        trouble.append("disk full")
        assert (await get(server, "/readyz"))[:2] == (503, "[-]store failed: disk full\nreadyz check failed\n")
        assert (await get(server, "/healthz"))[0] == 200
        status, body, content_type = await get(server, "/metrics")
        assert (status, content_type.split(";")[0]) == (200, "text/plain")
        assert "# TYPE remit_tasks_queued gauge" in body


async def test_a_check_that_breaks_or_hangs_is_a_check_that_fails(monkeypatch):
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.01)

    def broken() -> None:
        raise RuntimeError("boom")

    async def hanging() -> None:
        await asyncio.Event().wait()

    async def fine() -> None:
        return None

    async with HealthServer(Metrics(), Checks(live={"a": broken, "b": hanging, "c": fine})) as server:
        status, text, _ = await get(server, "/healthz")
    assert status == 503
    assert text == (
        "[-]a failed: RuntimeError: boom\n[-]b failed: no answer within 0.01 s\n[+]c ok\nhealthz check failed\n"
    )


async def test_an_address_in_use_is_an_error_and_leaves_nothing_behind():
    async with HealthServer(Metrics(), Checks()) as server:
        second = HealthServer(Metrics(), Checks(), port=server.port)
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        assert second.port == server.port
