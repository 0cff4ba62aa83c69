"""An OpenTelemetry collector for tests, which receives OTLP over HTTP as protobuf."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SENDERS = ("OtelBatchSpan", "last spans", "metrics_")
"""Names of the threads that export."""


@dataclass(frozen=True)
class Received:
    """A span as the collector received it."""

    span: Span
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def error(self) -> str:
        return self.span.status.message

    @property
    def attributes(self) -> dict[str, Any]:
        return values(self.span.attributes)


@dataclass
class Collector:
    """The collector. `status` is the status of its responses, or 0 for no response."""

    status: int = 200
    port: int = 0
    spans: list[Received] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    """The latest version of each metric."""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    requests: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[Received]:
        return [received for received in self.spans if received.name == name]

    async def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := condition()):
                await asyncio.sleep(0.02)
        return found

    async def receive(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()  # aiohttp has decompressed the body
        self.headers.append(request.headers)
        self.bodies.append(body)
        if self.status == 0:
            await self.over.wait()
        if self.status == 200 and request.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = values(resource.resource.attributes)
                self.spans += [Received(span, about) for scope in resource.scope_spans for span in scope.spans]
        elif self.status == 200 and request.path == "/v1/metrics":
            for found in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name: metric for scope in found.scope_metrics for metric in scope.metrics}
        return web.Response(status=self.status or 503, content_type="application/x-protobuf")


def values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


def export_to(collector: Collector, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Configures operators of this process to export to the collector immediately."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@contextlib.asynccontextmanager
async def collecting(status: int = 200) -> AsyncIterator[Collector]:
    collector = Collector(status)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/{path:.*}", collector.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.port = runner.addresses[0][1]
        yield collector
    finally:
        collector.over.set()
        await runner.cleanup()
        async with asyncio.timeout(60):  # their final exports belong to this test
            while any(thread.name.startswith(_SENDERS) for thread in threading.enumerate()):
                await asyncio.sleep(0.02)
