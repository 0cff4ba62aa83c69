"""Measures the embedded control plane beside kube-apiserver with etcd, if these are installed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp

from bench.figures import Figures, milliseconds, percentile, ratio
from bench.loadgenerator import TASKS
from bench.processes import environment
from conformance.harness.servers import Server, embedded, kube_apiserver, real_server_available
from remit.api.definitions import crds

JOB = {"clients": 32, "objects": 2000, "watchers": 100, "changes": 50}


async def measure() -> Figures:
    contestants: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {"embedded": embedded}
    note = f"{JOB['clients']} keep-alive TLS clients in a process of their own; tasks of 0.8 KB."
    if real_server_available():
        contestants["kube-apiserver"] = kube_apiserver
    else:
        note += " No kube-apiserver and etcd found: set KUBEBUILDER_ASSETS to compare."
    found = {name: await _loaded(start) for name, start in contestants.items()}
    ours, theirs = found["embedded"], found.get("kube-apiserver")
    rows = []
    for verb, rate in ours["rates"].items():
        other = theirs["rates"][verb] if theirs else None
        rows.append((f"{verb}, a second", f"{rate:,.0f}", f"{other:,.0f}" if other else "–", ratio(rate, other)))
    for percent in (50, 95):
        took = percentile(ours["fan out"], percent)
        other = percentile(theirs["fan out"], percent) if theirs else None
        name = f"a change to {JOB['watchers']} watchers, p{percent} ms"
        rows.append((name, milliseconds(took), milliseconds(other) if other else "–", ratio(took, other)))
    columns = ("", "embedded", "kube-apiserver", "embedded to it")
    return Figures("Control plane: ExecutionTasks through the API", columns, rows, note)


async def _loaded(start: Callable[[Path], AbstractContextManager[Server]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder, start(Path(folder, "server")) as server:
        await _install(server)
        job = json.dumps({**JOB, "url": server.url, "token": server.token, "ca": str(server.ca)})
        command = [sys.executable, "-m", "bench.loadgenerator"]
        done = await asyncio.to_thread(
            subprocess.run, command, input=job, stdout=subprocess.PIPE, text=True, check=True, env=environment()
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


async def _install(server: Server) -> None:
    """Installs the CRDs and waits until their kinds are served."""
    headers = {"Authorization": f"Bearer {server.token}"}
    url = f"{server.url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    connector = aiohttp.TCPConnector(ssl=server.tls)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        for definition in crds():
            async with session.post(url, json=definition) as answer:
                answer.raise_for_status()
        async with asyncio.timeout(30):
            while (await session.get(server.url + TASKS)).status != 200:
                await asyncio.sleep(0.2)
