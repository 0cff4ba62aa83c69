"""Measures releases by a whole operator under load: the duration of a switch, of a rollback, and from `apply` to live.

Beside them what each cannot be quicker than: the proxy's own switch, and the start of the program alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.figures import Figures, milliseconds, percentile, ratio
from bench.proxies import HAProxy
from bench.system import remit_up
from httpload import load
from httpsides import side
from ports import free_port
from remit.kube.access import Access
from remit.kube.client import DEPLOYMENTS, Kube
from shops import GROUNDS, PATIENCE, PROGRAM, Ground, Shop, open_shop

SWITCHES = 20
ROLLBACKS = 5
RATE = 600
"""Requests per second during the whole measurement, half of them on kept connections."""


@dataclass
class Timings:
    """Durations in seconds."""

    switches: list[float] = field(default_factory=list)
    releases: list[float] = field(default_factory=list)
    rollbacks: list[float] = field(default_factory=list)
    requests: int = 0
    failed: int = 0


async def measure() -> Figures:
    switch, start = await _bare_switch(), await _bare_start()
    rows = [
        ("HAProxy alone, by its runtime API", *_both(switch, switch), *("–",) * 7),
        ("the program alone, until it answers", *("–",) * 3, *_both(start, start), *("–",) * 4),
    ]
    missing = ""
    for ground in GROUNDS:
        try:
            took = await _released(ground)
        except pytest.skip.Exception as reason:
            missing = f" Not measured: {ground.name} ({reason})."
            continue
        rows.append(
            (
                f"Remit, on {ground.name}",
                *_both(took.switches, switch),
                *_both(took.releases, start),
                *_both(took.rollbacks, start)[:2],
                f"{took.requests}",
                f"{took.failed}",
            )
        )
    columns = (
        *("", "switch p50 ms", "p95 ms", "to bare", "release p50 ms", "p95 ms", "to bare"),
        *("rollback p50 ms", "p95 ms", "requests", "failed"),
    )
    note = f"{SWITCHES} releases and {ROLLBACKS} rollbacks of one replica, no hooks, no bake, at {RATE} requests/s."
    return Figures("Releases", columns, rows, note + missing)


def _both(values: list[float], baseline: list[float]) -> tuple[str, str, str]:
    return (
        milliseconds(statistics.median(values)),
        milliseconds(percentile(values, 95)),
        ratio(statistics.median(values), statistics.median(baseline)),
    )


async def _released(ground: Ground) -> Timings:
    """Measures a release by `remit up` from a client of its API server."""
    took = Timings()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remit-bench-")))
        (folder / "versions").mkdir()
        remit = await stack.enter_async_context(remit_up(folder))
        kube = await stack.enter_async_context(Kube(await Access.load(remit.kubeconfig)))
        shop = await stack.enter_async_context(open_shop(ground, kube, folder / "state", folder / "versions"))
        shop.defaults = {"strategy": {"blueGreen": {"scaleDownDelaySeconds": 600}}, "revisionHistoryLimit": 100}
        await shop.create("v1")
        await shop.live("v1")
        versions = [f"v{number}" for number in range(2, SWITCHES + 2)]
        async with _under_load(shop, took):
            for version in versions:
                took.releases.append(await _timed(shop.change(version), shop.live(version)))
            took.switches = await _switches(shop)
            for number in itertools.islice(itertools.cycle((SWITCHES, SWITCHES + 1)), ROLLBACKS):
                asked = shop.ask(f'{{"rollback": {{"revision": {number}}}}}')
                took.rollbacks.append(await _timed(asked, shop.live(f"v{number}")))
        await kube.delete(DEPLOYMENTS, "default", "shop")
        await _gone(kube)
    return took


async def _timed(*steps: Awaitable[object]) -> float:
    began = time.perf_counter()
    for step in steps:
        await step
    return time.perf_counter() - began


async def _switches(shop: Shop) -> list[float]:
    """Returns the durations from the reports of the revisions, once the last one is written. The first switch had no
    previous side."""

    def told(status: dict[str, Any]) -> list[float]:
        reports = [each.get("report", {}) for each in status["history"] if each["revision"] > 1]
        return [each["switchMilliseconds"] / 1000 for each in reports if "switchMilliseconds" in each]

    return told(await shop.until(lambda status: len(told(status)) == SWITCHES, "as to tell of each switch"))


async def _gone(kube: Kube) -> None:
    async with asyncio.timeout(PATIENCE):
        while await kube.list(DEPLOYMENTS, "default"):
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _under_load(shop: Shop, took: Timings) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        loads = [await stack.enter_async_context(load(shop.port, kind, RATE // 2)) for kind in ("keep", "new")]
        yield
    took.requests = sum(len(each.answers) for each in loads)
    took.failed = sum(len(each.failed) for each in loads)


async def _bare_switch() -> list[float]:
    took = []
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder, side("blue") as blue, side("green") as green:
        proxy = HAProxy(Path(folder), {"blue": blue.port, "green": green.port})
        await proxy.switch("blue")
        async with load(proxy.port, "keep", RATE // 2), load(proxy.port, "new", RATE // 2):
            for number in range(SWITCHES):
                began = time.perf_counter()
                await proxy.switch(("green", "blue")[number % 2])
                took.append(time.perf_counter() - began)
        await proxy.traffic.remove("bench/shop")
    return took


async def _bare_start() -> list[float]:
    took = []
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        (Path(folder) / "version").write_text("v1")
        (Path(folder) / "app.py").write_text(PROGRAM)
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        for _ in range(SWITCHES):
            port, began = free_port(), time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                python, "app.py", cwd=folder, env={**os.environ, "PORT": str(port)}
            )
            async with httpx.AsyncClient() as client:
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        (await client.get(f"http://127.0.0.1:{port}/healthz")).raise_for_status()
                        break
                    await asyncio.sleep(0.002)
            took.append(time.perf_counter() - began)
            process.kill()
            await process.wait()
    return took
