"""What it costs to watch Remit: a `remit up` as it is by itself beside one with a token on its metrics, which are
scraped, a log file and notifications, in turns."""

from __future__ import annotations

import asyncio
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from bench.figures import Figures
from bench.loadgenerator import Server
from bench.system import CLIENTS, Remit, allow_echo, remit_up, run_flood

ROUNDS = 8
"""Of both, in turns; who is first changes."""
COUNT = 150
"""Tasks of each in a round."""
SCRAPE_SECONDS = 15
"""Half of what the chart's ServiceMonitor says."""
_NOTIFICATIONS = """
receivers: [{name: hook, apprise: {urls: ["json://127.0.0.1:9"]}}]
routes: [{receivers: [hook]}]
"""


async def measure() -> Figures:
    took: dict[str, list[tuple[float, float]]] = {"by itself": [], "everything on": []}
    async with AsyncExitStack() as stack:
        remits = {name: await stack.enter_async_context(_remit(name == "everything on")) for name in took}
        for remit in remits.values():
            await allow_echo(Server(**remit.connection))
            await run_flood(remit, "warm-up", CLIENTS)
        for number in range(ROUNDS):
            for name in sorted(remits, reverse=number % 2 == 0):
                took[name].append(await _round(remits[name], f"round-{number}"))
    rows = [
        (name, f"{median(cpu for cpu, _ in rounds):.1f}", f"{median(rate for _, rate in rounds):.0f}")
        for name, rounds in took.items()
    ]
    pairs = list(zip(took["everything on"], took["by itself"], strict=True))
    cpu, rate = (median(on[which] / off[which] for on, off in pairs) for which in (0, 1))
    rows.append(("ratio of pairs", f"{cpu:.3f}", f"{rate:.3f}"))
    note = (
        f"Medians of {ROUNDS} rounds of {COUNT} echo tasks from {CLIENTS} clients. CPU is of control plane and"
        f" operator. Everything: a metrics token and a scrape every {SCRAPE_SECONDS} s, a log file, notifications."
    )
    return Figures("The price of being watched", ("", "CPU ms a task", "tasks/s"), rows, note)


async def _round(remit: Remit, prefix: str) -> tuple[float, float]:
    """Milliseconds of processor time for each task, and tasks a second."""
    before = remit.cpu()
    times = await run_flood(remit, prefix, COUNT)
    await asyncio.sleep(1)  # events come after
    cpu = sum((remit.cpu() - before).values())
    return 1000 * cpu / COUNT, COUNT / (max(times["seen"].values()) - min(times["sent"].values()))


@asynccontextmanager
async def _remit(everything: bool) -> AsyncIterator[Remit]:
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as name:
        folder, options = Path(name), ["--log-level", "info", "--log-format", "json"]
        if everything:
            (folder / "notifications.yaml").write_text(_NOTIFICATIONS)
            (folder / "token").write_text("a-token-for-the-bench")
            options += ["--notifications", str(folder / "notifications.yaml"), "--log-file", str(folder / "remit.log")]
            options += ["--metrics-token-file", str(folder / "token")]
        async with remit_up(folder, *options) as remit:
            scraping = asyncio.create_task(_scrape(remit)) if everything else None
            try:
                yield remit
            finally:
                if scraping is not None:
                    scraping.cancel()


async def _scrape(remit: Remit) -> None:
    request = urllib.request.Request(remit.metrics, headers={"Authorization": "Bearer a-token-for-the-bench"})
    while True:
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=60).read())
        await asyncio.sleep(SCRAPE_SECONDS)
