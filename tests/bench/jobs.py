"""Measures tasks as Jobs beside bare Jobs of the same cluster, from creation to end, one at a time and many at once.

Needs a cluster, as the tests do: REMIT_TEST_KUBECONFIG and REMIT_TEST_LOAD_IMAGE.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

import clusters
import launchers
import parts
from bench.figures import Figures, milliseconds, percentile, ratio
from remit.api.definitions import crds
from remit.kube.access import Access
from remit.kube.client import CRDS, JOBS, NAMESPACES, POLICIES, TASKS, Kube, Object, Resource
from support import Kubectl

PAIRS = int(os.environ.get("PAIRS", "15"))
MANY = int(os.environ.get("MANY", "100"))
AT_ONCE = 20
PATIENCE = 120
ARGV = ["echo", "hi"]


async def measure() -> Figures:
    image = clusters.busybox_image()
    async with Kube(await Access.load(clusters.kubeconfig()), connections=0) as kube, _namespace(kube) as namespace:
        with _operator(namespace, image) as operator:
            bench = Bench(kube, namespace, image)
            await bench.task()  # determines what the network of the cluster enforces
            bare, ours = [], []
            for _ in range(PAIRS):  # alternating, so that both run under the same conditions
                bare.append(await bench.job())
                ours.append(await bench.task())
            many = [await _many(one, operator) for one in (bench.job, bench.task)]
    rows = [
        (name, milliseconds(percentile(times, 50)), milliseconds(percentile(times, 95)), f"{at_once.rate:.2f}",
         f"{at_once.requests:.1f}", milliseconds(at_once.cpu))
        for name, times, at_once in (("bare Job", bare, many[0]), ("task as a Job", ours, many[1]))
    ]  # fmt: skip
    shares = (ratio(percentile(ours, 50), percentile(bare, 50)), ratio(percentile(ours, 95), percentile(bare, 95)))
    rows.append(("task to bare", *shares, ratio(many[1].rate, many[0].rate), "", ""))
    title = f"Jobs: creation to end, ms ({PAIRS} pairs); {MANY} by {AT_ONCE} clients, a second"
    return Figures(title, ("", "p50", "p95", "a second", "API requests each", "operator's CPU ms each"), rows)


@dataclass(frozen=True)
class AtOnce:
    rate: float
    """Tasks per second."""
    requests: float
    """Requests of all clients to the API server, per task."""
    cpu: float
    """CPU seconds of the operator, per task."""


async def _many(one: Callable[[], Any], operator: psutil.Process) -> AtOnce:
    left = MANY
    requests, cpu, began = _requests(), sum(operator.cpu_times()[:2]), time.monotonic()

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one()

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    rate = MANY / (time.monotonic() - began)
    more = _requests() - requests
    return AtOnce(rate, more / MANY, (sum(operator.cpu_times()[:2]) - cpu) / MANY)


def _requests() -> int:
    """Returns the number of requests to the API server so far."""
    kubectl = Kubectl(parts.kubectl() or "kubectl", clusters.kubeconfig())
    lines = kubectl.ok("get", "--raw", "/metrics").splitlines()
    counts = "\n".join(line for line in lines if line.startswith("apiserver_request_total"))
    samples = (sample for family in text_string_to_metric_families(counts) for sample in family.samples)
    return int(sum(sample.value for sample in samples))


class Bench:
    def __init__(self, kube: Kube, namespace: str, image: str) -> None:
        self._kube, self._namespace, self._image = kube, namespace, image

    async def job(self) -> float:
        """Returns the duration of a bare Job in seconds."""
        container = {"name": "task", "image": self._image, "imagePullPolicy": "IfNotPresent", "command": ARGV}
        pod = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
        spec = {"backoffLimit": 0, "ttlSecondsAfterFinished": 0, "template": {"spec": pod}}
        return await self._until(JOBS, {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}, "Complete")

    async def task(self) -> float:
        spec = {"command": {"argv": ARGV}, "ttlSecondsAfterFinished": 0}
        return await self._until(
            TASKS, {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "spec": spec}, "Succeeded"
        )

    async def _until(self, resource: Resource, body: Object, condition: str) -> float:
        name = f"b{uuid.uuid4().hex[:10]}"
        began = time.monotonic()
        made = await self._kube.create(resource, self._namespace, {**body, "metadata": {"name": name}})
        version = made["metadata"]["resourceVersion"]
        async with asyncio.timeout(PATIENCE):
            watch = self._kube.watch(
                resource, self._namespace, resource_version=version, field_selector=f"metadata.name={name}"
            )
            async with contextlib.aclosing(watch) as changes:
                async for _, obj in changes:
                    conditions = (obj.get("status") or {}).get("conditions") or []
                    if any(each["type"] == condition and each["status"] == "True" for each in conditions):
                        return time.monotonic() - began
        raise AssertionError(f"{name} never ended")


@contextlib.asynccontextmanager
async def _namespace(kube: Kube) -> AsyncIterator[str]:
    namespace = f"remit-bench-{uuid.uuid4().hex[:8]}"
    for crd in crds():
        await kube.apply(CRDS, None, crd["metadata"]["name"], crd, manager="remit-test", force=True)
    await kube.create(NAMESPACES, None, {"metadata": {"name": namespace}})
    policy = {"commands": {"allow": [{"executable": "echo"}]}}
    body = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy", "metadata": {"name": "echo"}, "spec": policy}
    await kube.create(POLICIES, namespace, body)
    try:
        yield namespace
    finally:
        await kube.delete(NAMESPACES, None, namespace)


@contextlib.contextmanager
def _operator(namespace: str, image: str) -> Iterator[psutil.Process]:
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as state:
        argv = [sys.executable, "-m", "remit.cli", "operator", f"--namespace={namespace}", f"--state-dir={state}"]
        argv += [f"--operator-namespace={namespace}", "--backend=kubernetes", f"--default-image={image}"]
        argv += [
            "--accept-unenforced-network",
            f"--launchers={launchers.folder()}",
            f"--kubeconfig={clusters.kubeconfig()}",
        ]
        with (Path(state) / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
            try:
                yield psutil.Process(process.pid)
            finally:
                process.terminate()
                process.wait(60)
