"""Measures the cost of monitoring Remit: one `remit up` without monitoring beside one with all kinds of monitoring, in
turns.

Processor time is compared, which does not depend on who else uses the machine as much as time does, and over pairs of
short rounds, so that what slows both down falls out.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from aiohttp import web

from bench.figures import Figures, paired_ratio
from bench.loadgenerator import NAMESPACE, TASKS, Server
from bench.system import CLIENTS, Remit, allow, remit_up, run_flood

PAIRS: Final = int(os.environ.get("REMIT_BENCH_PAIRS") or 40)
"""Number of pairs of rounds; the order within a pair alternates."""
SUCCEEDING, FAILING = 100, 5
"""Number of tasks of each kind in a round."""
SCRAPE_SECONDS = 15
"""Half of the interval of the chart's ServiceMonitor."""
MEANS: Final = frozenset((os.environ.get("REMIT_BENCH_OBSERVING") or "scrapes,log,notifications,otlp").split(","))
"""The kinds of monitoring. With fewer of them, the cost of each can be measured."""
BARE, WATCHED = "by itself", "everything on"
_TOKEN = "a-token-for-the-bench"
_NOTIFICATIONS = """
receivers:
  - {name: hook, apprise: {urls: ["json://127.0.0.1:%(port)s/hook"]}}
  - {name: alertmanager, alertmanager: {url: "http://127.0.0.1:%(port)s"}}
routes: [{receivers: [hook, alertmanager]}]
"""


class Receiver:
    """Receives spans, metrics, messages and alerts, and counts them and scrapes by path."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.port = 0

    def count(self, path: str) -> None:
        self.taken[path] = self.taken.get(path, 0) + 1

    async def take(self, request: web.Request) -> web.Response:
        await request.read()
        self.count(request.path)
        return web.Response(content_type="application/x-protobuf")


async def measure() -> Figures:
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(_receiving())
        remits = {
            BARE: await stack.enter_async_context(_remit(None)),
            WATCHED: await stack.enter_async_context(_remit(receiver)),
        }
        for remit in remits.values():
            await allow(Server(**remit.connection), "echo", "false")
            await _round(remit, "warm-up")
        while "notifications" in MEANS and "/hook" not in receiver.taken:
            await asyncio.sleep(0.1)  # lets first-time imports happen before the measurement
        pairs = [await _pair(remits, number) for number in range(PAIRS)]
    cpu, low, high = paired_ratio([(of[WATCHED], of[BARE]) for of, _ in pairs])
    rate = median(rates[WATCHED] / rates[BARE] for _, rates in pairs)
    rows = [
        (
            name,
            f"{1000 * sum(of[name] for of, _ in pairs) / PAIRS / (SUCCEEDING + FAILING):.2f}",
            f"{median(rates[name] for _, rates in pairs):.0f}",
        )
        for name in remits
    ]
    rows.append(("ratio", f"{cpu:.3f} ({low:.3f} to {high:.3f})", f"{rate:.3f}"))
    note = (
        f"{PAIRS} pairs of rounds of {SUCCEEDING} echo tasks and {FAILING} that fail from {CLIENTS} clients. CPU is of"
        " control plane, operator and supervisor; its ratio has the 95 % confidence interval. Everything"
        f" ({', '.join(sorted(MEANS))}): a metrics token and a scrape of both every {SCRAPE_SECONDS} s, a log file,"
        " notifications to a web hook and an Alertmanager, traces and metrics by OTLP."
        f" Received: {', '.join(f'{count} {path}' for path, count in sorted(receiver.taken.items()))}."
    )
    return Figures("The price of being watched", ("", "CPU ms a task", "tasks/s"), rows, note)


async def _pair(remits: dict[str, Remit], number: int) -> tuple[dict[str, float], dict[str, float]]:
    """Runs a round on both, and returns the CPU seconds and tasks per second of each. CPU time after the tasks is
    counted in this pair or the next; an idle Remit uses almost none."""
    before, rates = {name: _cpu(remit) for name, remit in remits.items()}, {}
    for name in sorted(remits, reverse=number % 2 == 0):
        rates[name] = await _round(remits[name], f"round-{number}")
    return {name: _cpu(remit) - before[name] for name, remit in remits.items()}, rates


async def _round(remit: Remit, prefix: str) -> float:
    """Returns tasks per second."""
    server = Server(**remit.connection)
    connection = await server.connect()
    for number in range(FAILING):
        await connection.ask(server.request("POST", TASKS, _failing(f"{prefix}-failing-{number}")))
    connection.transport.close()
    times = await run_flood(remit, prefix, SUCCEEDING)
    return SUCCEEDING / (max(times["seen"].values()) - min(times["sent"].values()))


def _failing(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    kind = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask"}
    return {**kind, "metadata": metadata, "spec": {"command": {"argv": ["false"]}}}


def _cpu(remit: Remit) -> float:
    return sum(remit.cpu().values())


@asynccontextmanager
async def _receiving() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application(client_max_size=1 << 26)
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _remit(watched_by: Receiver | None) -> AsyncIterator[Remit]:
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as name:
        folder, options = Path(name), ["--log-level", "info", "--log-format", "json"]
        env: dict[str, str] = {}
        if watched_by and "notifications" in MEANS:
            (folder / "notifications.yaml").write_text(_NOTIFICATIONS % {"port": watched_by.port})
            options += ["--notifications", str(folder / "notifications.yaml")]
        if watched_by and "log" in MEANS:
            options += ["--log-file", str(folder / "remit.log")]
        if watched_by and "otlp" in MEANS:
            env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{watched_by.port}"
        async with AsyncExitStack() as stack:
            if watched_by and "scrapes" in MEANS:
                (folder / "token").write_text(_TOKEN)
                options += ["--metrics-token-file", str(folder / "token")]
            remit = await stack.enter_async_context(remit_up(folder, *options, **env))
            if watched_by and "scrapes" in MEANS:
                stack.callback(asyncio.create_task(_scrape(remit, watched_by)).cancel)
            yield remit


async def _scrape(remit: Remit, counter: Receiver) -> None:
    connection = remit.connection
    operator = urllib.request.Request(remit.metrics, headers={"Authorization": f"Bearer {_TOKEN}"})
    authorization = {"Authorization": f"Bearer {connection['token']}"}
    control_plane = urllib.request.Request(f"{connection['url']}/metrics", headers=authorization)
    context = ssl.create_default_context(cafile=connection["ca"])

    def scrape() -> None:
        for request, tls in ((operator, None), (control_plane, context)):
            with urllib.request.urlopen(request, timeout=60, context=tls) as answer:
                answer.read()

    while True:
        await asyncio.to_thread(scrape)
        counter.count("/metrics")
        await asyncio.sleep(SCRAPE_SECONDS)
