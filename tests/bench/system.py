"""Measures the whole of Remit: tasks from `create` through policy, sandbox and output store to `Finished`."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.figures import Figures, milliseconds, percentile
from bench.flood import flood
from bench.loadgenerator import NAMESPACE, Server
from bench.processes import environment, running
from remit.api.definitions import crds

COUNT = 600
CLIENTS = 16
AT_REST = 60
"""Number of tasks that are created one after the other."""
_POLICIES = f"/apis/remit.dev/v1alpha1/namespaces/{NAMESPACE}/commandpolicies"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@dataclass(frozen=True)
class Remit:
    """A running Remit: its kubeconfig, the address of its metrics, and its processes by name."""

    kubeconfig: Path
    metrics: str
    processes: dict[str, psutil.Process]

    @property
    def connection(self) -> dict[str, str]:
        """Returns `url`, `token`, and `ca`, the path of the authority's certificate."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = self.kubeconfig.with_name("bench-authority.crt")
        authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        return {"url": cluster["server"], "token": user["token"], "ca": str(authority)}

    def cpu(self) -> Counter[str]:
        """Returns the CPU seconds of each process so far, without its children."""
        return Counter({name: sum(process.cpu_times()[:2]) for name, process in self.processes.items()})

    def writes(self) -> Counter[str]:
        """Returns the API writes so far, by verb and kind."""
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
    at_rest: list[float]
    """Seconds from create to Finished of tasks that run alone."""
    cpu: Counter[str]
    client_cpu: float
    writes: Counter[str]


async def measure() -> Figures:
    results = {}
    for name, start in (("remit up", remit_up), ("apart", apart)):
        with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
            async with start(Path(folder)) as remit:
                results[name] = await load(remit)
    rows = [
        (
            name,
            f"{COUNT / result.seconds:.0f}",
            milliseconds(percentile(result.at_rest, 50)),
            milliseconds(percentile(result.latencies, 50)),
            milliseconds(percentile(result.latencies, 95)),
            " + ".join(f"{seconds / COUNT * 1000:.1f}" for seconds in result.cpu.values()),
            f"{sum(result.writes.values()) / COUNT:.2f}",
        )
        for name, result in results.items()
    ]
    kinds = Counter[str]()
    for result in results.values():
        kinds |= result.writes
    parts = "; ".join(f"{name}: {' + '.join(result.cpu)}" for name, result in results.items())
    client = max(result.client_cpu for result in results.values())
    note = (
        f"{CLIENTS} clients create; latency is from create to Finished, with all {COUNT} there at once, or at rest one"
        f" at a time. Apart: a control plane and an operator as on a cluster. CPU is of {parts}. The client took"
        f" {client / COUNT * 1000:.1f} ms a task. Writes: "
        + ", ".join(f"{kind} {count / COUNT:.2f}" for kind, count in kinds.items())
        + "."
    )
    columns = ("", "tasks/s", "at rest p50 ms", "p50 ms", "p95 ms", "CPU ms a task", "writes a task")
    return Figures(f"The whole system: {COUNT} echo tasks", columns, rows, note)


async def load(remit: Remit) -> Result:
    """Creates the tasks and waits for their ends."""
    server = Server(**remit.connection)
    await allow(server, "echo")
    await run_flood(remit, "warm-up", CLIENTS)  # warms everything up
    at_rest = await one_by_one(server)
    cpu, writes = remit.cpu(), remit.writes()
    times = await run_flood(remit, "bench", COUNT)
    await asyncio.sleep(1)  # Events are written afterwards
    sent, seen = times["sent"], times["seen"]
    return Result(
        max(seen.values()) - min(sent.values()),
        [seen[name] - sent[name] for name in sent],
        at_rest,
        remit.cpu() - cpu,
        times["cpu"],
        remit.writes() - writes,
    )


async def allow(server: Server, *executables: str) -> None:
    """Creates a policy that allows the commands of the tasks."""
    policy = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "CommandPolicy",
        "metadata": {"name": "bench"},
        "spec": {"commands": {"allow": [{"executable": executable} for executable in executables]}},
    }
    connection = await server.connect()
    await connection.ask(server.request("POST", _POLICIES, policy))
    connection.transport.close()


async def one_by_one(server: Server) -> list[float]:
    """Returns the seconds from create to Finished of tasks that run one after the other."""
    took = []
    for number in range(AT_REST):
        name = f"at-rest-{number:03}"
        sent, seen = await flood(server, [name], 1)
        took.append(seen[name] - sent[name])
    return took


async def run_flood(remit: Remit, prefix: str, count: int) -> dict[str, Any]:
    """Returns the output of `bench.flood`, which runs as a separate process."""
    names = [f"{prefix}-{number:05}" for number in range(count)]
    job = json.dumps({**remit.connection, "names": names, "clients": CLIENTS})
    command = [sys.executable, "-m", "bench.flood"]
    done = await asyncio.to_thread(
        subprocess.run, command, input=job, stdout=subprocess.PIPE, text=True, check=True, env=environment()
    )
    times: dict[str, Any] = json.loads(done.stdout)
    return times


@asynccontextmanager
async def remit_up(folder: Path, *options: str, **env: str) -> AsyncIterator[Remit]:
    state, log = folder / "state", folder / "up.log"
    arguments = ("remit.cli", "up", "--state-dir", str(state), "--port", "0")
    options = options or ("--log-level", "warning")
    with running(*arguments, *options, log=log, ready=lambda said: "Ctrl-C stops it." in said, env=env) as process:
        port = int(_match(r"metrics on port (\d+)", log.read_text()))
        supervisor = psutil.Process(process.pid)
        roles = {"control plane": "control-plane", "operator": "operator"}
        processes = {
            name: next(child for child in supervisor.children() if role in child.cmdline())
            for name, role in roles.items()
        }
        yield Remit(state / "kubeconfig", f"http://127.0.0.1:{port}/metrics", {"supervisor": supervisor, **processes})


@asynccontextmanager
async def apart(folder: Path) -> AsyncIterator[Remit]:
    """Runs API server and operator separately, as on a cluster."""
    state, log = folder / "state", folder / "operator.log"
    serve = ("remit.controlplane", "--state", str(state))
    operate = ("remit.cli", "operator", "--kubeconfig", str(state / "kubeconfig"), "--state-dir", str(folder / "runs"))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(running(*serve, log=folder / "server.log", ready=lambda said: "ready " in said))
        remit = Remit(state / "kubeconfig", "", {"control plane": psutil.Process(server.pid)})
        await install(Server(**remit.connection))
        operator = stack.enter_context(
            running(*operate, "--log-format", "json", log=log, ready=lambda said: "is at work" in said)
        )
        port = int(_match(r'"metrics": ?"port (\d+)"', log.read_text()))
        processes = remit.processes | {"operator": psutil.Process(operator.pid)}
        yield replace(remit, metrics=f"http://127.0.0.1:{port}/metrics", processes=processes)


async def install(server: Server) -> None:
    """Installs what `remit up` installs by itself."""
    connection = await server.connect()
    for definition in crds():
        await connection.ask(server.request("POST", _CRDS, definition))
    connection.transport.close()


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"{pattern} is not in:\n{text}")
    return found[1]
