"""Tests traces and metrics of a whole operator with a collector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from collectors import Collector, Received, collecting, export_to
from remit.api.executiontask import ExecutionTask
from remit.controllers import tasktraces
from remit.kube.client import TASKS
from remit.telemetry import otlp

from .conftest import PATIENCE, World
from .test_metrics import operator_text
from .test_releases import Shop, shop  # noqa: F401  # a fixture

KEPT: dict[str, Any] = {
    "volumes": [{"name": "kept", "workspace": {"name": "kept"}}],
    "volumeMounts": [{"name": "kept", "mountPath": "/kept", "access": "ReadWrite"}],
}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with collecting() as collector:
        export_to(collector, monkeypatch, OTEL_METRIC_EXPORT_INTERVAL="100")
        yield collector


async def allow_sh(world: World) -> None:
    volumes = {"workspaces": [{"names": ["kept"]}]}
    await world.policy("sh", volumes=volumes, environment={"allow": ["TOKEN"]})


async def trace(collector: Collector, uid: str) -> list[Received]:
    """Returns the spans of the task, the root span first."""
    trace_id = uid.replace("-", "")
    spans = await collector.until(lambda: [span for span in collector.spans if span.trace_id == trace_id])
    wanted = 2 + spans[0].attributes["remit.attempts"] * 2 - 1
    await collector.until(lambda: len([span for span in collector.spans if span.trace_id == trace_id]) >= wanted)
    return [span for span in collector.spans if span.trace_id == trace_id]


async def test_a_task_that_fails_once_is_one_trace_with_both_attempts(world: World, collector: Collector) -> None:
    await allow_sh(world)
    async with world.operator() as operator:
        script = "echo output-secret; : argv-secret; test -e /kept/x || { touch /kept/x; exit 3; }"
        retry = {"maxRetries": 1, "backoff": {"initialSeconds": 0.1, "jitter": 0}}
        env = [{"name": "TOKEN", "value": "env-secret"}]
        name = await world.sh(script, **KEPT, retry=retry, env=env)
        await world.phase(name, "Succeeded")
        uid = (await world.get(name))["metadata"]["uid"]
        whole, *parts = await trace(collector, uid)
        first, second = (part for part in parts if part.name == "attempt")
        assert (whole.name, whole.parent, whole.error) == ("task command", "", "")
        assert {"remit.task.name": name, "k8s.namespace.name": "default"}.items() <= whole.attributes.items()
        assert [part.name for part in parts] == ["pending", "attempt", "attempt", "backoff"]
        assert {part.parent for part in parts} == {whole.id}
        assert (first.error, first.attributes["process.exit.code"], second.error) == ("ExitCode", 3, "")
        assert first.span.end_time_unix_nano <= second.span.start_time_unix_nano <= whole.span.end_time_unix_nano
        exemplar = f'trace_id="{whole.trace_id}"'
        assert exemplar in await operator_text(operator, OPENMETRICS)
        assert exemplar not in await operator_text(operator)

        def retried() -> bool:
            found = collector.metrics.get("remit_task_retries_total")
            return found is not None and [point.as_double for point in found.sum.data_points] == [1]

        await collector.until(retried)
    sent = b"".join(collector.bodies)
    assert not [secret for secret in (b"argv-secret", b"env-secret", b"output-secret") if secret in sent]
    assert f"{collector.url}/v1/traces" not in sent.decode(errors="replace")


async def test_an_operator_that_was_restarted_meanwhile_makes_the_same_trace(
    world: World, collector: Collector
) -> None:
    await allow_sh(world)
    async with world.operator():
        retry = {"maxRetries": 1, "backoff": {"initialSeconds": 0.1, "jitter": 0}, "onInterruption": "Retry"}
        name = await world.sh("test -e /kept/x && exit; touch /kept/x; sleep 600", **KEPT, retry=retry)
        await world.operator_has(lambda: list(world.settings.state_dir.glob("workspaces/**/x")))
    assert not collector.spans, "it has not ended"
    async with world.operator():
        await world.phase(name, "Succeeded")
        obj = await world.get(name)
        found = await trace(collector, obj["metadata"]["uid"])
    assert [span.error for span in found if span.name == "attempt"] == ["Interrupted", ""]
    task = ExecutionTask.parse(obj)
    again = tasktraces.spans_of(task, task.status)
    assert [(f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}") for span in again] == [
        (span.trace_id, span.id) for span in found
    ]


async def test_a_trace_goes_on_with_that_of_the_caller(world: World, collector: Collector) -> None:
    async with world.operator():
        for name, traceparent in (
            ("continued", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("bad", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"),
        ):
            metadata = {"name": name, "annotations": {"remit.dev/traceparent": traceparent}}
            spec = {"command": {"argv": ["true"]}}  # no policy allows this command
            body = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": metadata, "spec": spec}
            await world.kube.create(TASKS, "default", body)
            await world.phase(name, "Denied")
    continued, bad = collector.named("task command")
    assert (continued.trace_id, continued.parent) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert bad.trace_id == (await world.get("bad"))["metadata"]["uid"].replace("-", "")
    assert bad.parent == ""


async def test_a_release_and_its_hook_share_a_trace(shop: Shop, collector: Collector) -> None:  # noqa: F811
    await shop.world.policy("true")
    gate = {"name": "gate", "task": {"command": {"argv": ["true"]}}}
    async with shop.world.operator():
        await shop.create("v1", stages={"bakeSeconds": 0, "prePromotion": [gate]})
        await shop.live("v1")
        await collector.until(lambda: collector.named("release"))
    (release,), (hook,) = collector.named("release"), collector.named("task command")
    stages = {span.name.removeprefix("stage "): span for span in collector.spans if span.name.startswith("stage ")}
    assert {"Prepare", "Provision", "Health", "PrePromotion", "Promote"} <= stages.keys()
    assert {stage.parent for stage in stages.values()} == {release.id}
    assert {span.trace_id for span in collector.spans} == {release.trace_id}
    assert hook.parent == stages["PrePromotion"].id
    assert release.attributes["remit.release.outcome"] == "Promoted"
    assert (await shop.world.get("shop-1-pre-gate"))["metadata"]["annotations"].keys() == {"remit.dev/traceparent"}


async def test_a_collector_that_hangs_slows_no_task_down_and_no_end_of_the_operator(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_SECONDS", 0.5)
    await world.policy("true")
    async with collecting(status=0) as hanging:
        endless = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1000", "OTEL_METRIC_EXPORT_INTERVAL": "10"}
        export_to(hanging, monkeypatch, **endless, OTEL_BSP_MAX_QUEUE_SIZE="4", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1")
        async with asyncio.timeout(PATIENCE):
            async with world.operator():
                for _ in range(5):
                    await world.finished(await world.task("true"))
                await hanging.until(lambda: hanging.requests >= 2)
        assert not hanging.over.is_set()
        assert not hanging.spans
