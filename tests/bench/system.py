"""The whole of Remit: tasks from `create` over policy, sandbox and output store to `Finished`."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.figures import Figures, milliseconds, percentile
from bench.processes import running
from bench.task import task
from remit.api.crd import crds
from remit.kube.access import Access
from remit.kube.client import CRDS, POLICIES, TASKS, Kube

COUNT = 500
CLIENTS = 16
PATIENCE = 300.0


@dataclass(frozen=True)
class Remit:
    """A running one: its kubeconfig, where its metrics are, and its processes."""

    kubeconfig: Path
    metrics: str
    processes: tuple[psutil.Process, ...]

    def cpu(self) -> float:
        """Seconds, with what it started and saw end."""
        return sum(sum(process.cpu_times()[:4]) for process in self.processes)

    def writes(self) -> Counter[str]:
        """API writes so far, by verb and kind."""
        with urllib.request.urlopen(self.metrics) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return Counter(
                {
                    f"{sample.labels['verb']} {sample.labels['kind']}": sample.value
                    for family in families
                    for sample in family.samples
                    if sample.name == "remit_api_writes_total"
                }
            )


@dataclass(frozen=True)
class Result:
    seconds: float
    latencies: list[float]
    cpu: float
    writes: Counter[str]


async def measure() -> Figures:
    results = {}
    for name, start in (("remit up: one process", in_one_process), ("control plane and operator apart", apart)):
        with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
            async with start(Path(folder)) as remit:
                results[name] = await load(remit)
    rows = [
        (
            name,
            f"{COUNT / result.seconds:.0f}",
            milliseconds(percentile(result.latencies, 50)),
            milliseconds(percentile(result.latencies, 95)),
            f"{result.cpu / COUNT * 1000:.1f}",
            f"{sum(result.writes.values()) / COUNT:.2f}",
        )
        for name, result in results.items()
    ]
    kinds = Counter[str]()
    for result in results.values():
        kinds |= result.writes
    note = f"{CLIENTS} clients create; latency is from create to Finished, all {COUNT} being there at once. Writes: "
    note += ", ".join(f"{kind} {count / COUNT:.2f}" for kind, count in kinds.items()) + "."
    columns = ("", "tasks/s", "p50 ms", "p95 ms", "CPU ms a task", "API writes a task")
    return Figures(f"The whole system: {COUNT} echo tasks", columns, rows, note)


async def load(remit: Remit) -> Result:
    """Create the tasks, watch them finish."""
    async with Kube(await Access.load(remit.kubeconfig)) as kube:
        await prepare(kube)
        for number in range(CLIENTS):  # everything has been used once
            await kube.create(TASKS, "default", task(f"warm-up-{number}"))
        await _finish(kube, CLIENTS)
        cpu, writes = remit.cpu(), remit.writes()
        created, ended = await _flood(kube)
        await asyncio.sleep(1)  # events come after
        return Result(
            max(ended.values()) - min(created.values()),
            [ended[name] - created[name] for name in created],
            remit.cpu() - cpu,
            remit.writes() - writes,
        )


async def prepare(kube: Kube) -> None:
    """A policy that allows what the tasks do, and is in force."""
    policy = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "CommandPolicy",
        "metadata": {"name": "echo"},
        "spec": {"commands": {"allow": [{"executable": "echo"}]}},
    }
    await kube.create(POLICIES, "default", policy)


async def _finish(kube: Kube, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while sum(map(_is_finished, await kube.list(TASKS, "default"))) < count:
            await asyncio.sleep(0.1)


async def _flood(kube: Kube) -> tuple[dict[str, float], dict[str, float]]:
    """When each task was created, and when it was seen to have finished."""
    names = iter([f"bench-{number:05}" for number in range(COUNT)])
    created: dict[str, float] = {}
    ended: dict[str, float] = {}

    async def create() -> None:
        for name in names:
            created[name] = time.perf_counter()
            await kube.create(TASKS, "default", task(name))

    async def watch() -> None:
        async for _, obj in kube.watch(TASKS, "default", resource_version=version):
            name = obj["metadata"]["name"]
            if name not in ended and _is_finished(obj):
                if (phase := obj["status"]["phase"]) != "Succeeded":
                    raise RuntimeError(f"task {name} ended as {phase}: {obj['status'].get('message')}")
                ended[name] = time.perf_counter()
                if len(ended) == COUNT:
                    return

    page = await kube.request("GET", TASKS.path("default"))
    version = page["metadata"]["resourceVersion"]
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(watch())
        for _ in range(CLIENTS):
            group.create_task(create())
    return created, ended


def _is_finished(obj: dict[str, object]) -> bool:
    status = obj.get("status")
    return isinstance(status, dict) and bool(status.get("completionTime"))


@asynccontextmanager
async def in_one_process(folder: Path) -> AsyncIterator[Remit]:
    """As `remit up` does it."""
    state, log = folder / "state", folder / "up.log"
    arguments = ("remit.cli", "up", "--state-dir", str(state), "--port", "0", "--log-level", "warning")
    with running(*arguments, log=log, ready=lambda said: "Ctrl-C stops it." in said) as process:
        port = int(_match(r"metrics on port (\d+)", log.read_text()))
        yield Remit(state / "kubeconfig", f"http://127.0.0.1:{port}/metrics", (psutil.Process(process.pid),))


@asynccontextmanager
async def apart(folder: Path) -> AsyncIterator[Remit]:
    """As on a cluster: an API server here, an operator there."""
    state, log = folder / "state", folder / "operator.log"
    serve = ("remit.controlplane", "--state", str(state))
    operate = ("remit.cli", "operator", "--kubeconfig", str(state / "kubeconfig"), "--state-dir", str(folder / "runs"))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running(*serve, log=folder / "server.log", ready=lambda said: "ready " in said))
        await install(state / "kubeconfig")
        operator = stack.enter_context(
            running(*operate, "--log-format", "json", log=log, ready=lambda said: "is at work" in said)
        )
        port = int(_match(r'"metrics": ?"port (\d+)"', log.read_text()))
        processes = (psutil.Process(server.pid), psutil.Process(operator.pid))
        yield Remit(state / "kubeconfig", f"http://127.0.0.1:{port}/metrics", processes)


async def install(kubeconfig: Path) -> None:
    """What `remit up` does by itself."""
    async with Kube(await Access.load(kubeconfig)) as kube:
        for definition in crds():
            await kube.create(CRDS, None, definition)


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"{pattern} is not in:\n{text}")
    return found[1]
