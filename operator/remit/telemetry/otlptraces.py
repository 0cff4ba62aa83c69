"""Spans to OpenTelemetry. They wait in the SDK's bounded queue, and a thread of its own sends them."""

from __future__ import annotations

import asyncio
import datetime
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from remit.telemetry.otlpfailures import Attempts
from remit.telemetry.tracecontext import Span, TraceContext
from remit.threads import DaemonThreadPool

_UNSET: Final = Status()
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def resource(version: str) -> Resource:
    """The resource that identifies the sender. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence."""
    own = {
        "service.name": "remit-operator",
        "service.version": version,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
    }
    return Resource(own).merge(OTELResourceDetector().detect())


class _Exporter(SpanExporter):
    """OTLP over HTTP, whose failures are told once."""

    def __init__(self) -> None:
        self._exporter, self._attempts = OTLPSpanExporter(), Attempts("traces")
        self._is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._attempts.one() as succeeded:
            result = self._exporter.export(spans)
            succeeded.append(result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        if not self._is_shut_down:  # the SDK logs a second shutdown as an error
            self._is_shut_down = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


class Tracer:
    """Takes spans that are over. To be used by one thread.

    They are made as the SDK's exporters read them, and not by its tracer, which is for spans that go on: it takes half
    of the processor time of a trace.
    """

    def __init__(self, about: Resource) -> None:
        self._exporter, self._about = _Exporter(), about
        self._processor = BatchSpanProcessor(self._exporter)
        self._sampler = TracerProvider(resource=about, shutdown_on_exit=False).sampler
        self._limits = SpanLimits()
        self._scope = InstrumentationScope("remit", str(about.attributes.get("service.version", "")))
        self._last = DaemonThreadPool(1, "last spans")

    def export(self, spans: Sequence[Span]) -> TraceContext | None:
        """Has the spans sent, of which the first is the root of the others. Never waits; spans that find the queue full
        push out older ones. Gives the context of the root; None where there is none, or it is not sampled."""
        if not spans or not self._is_sampled(spans[0].context, spans[0].name, spans[0].parent):
            return None
        for number, span in enumerate(spans):
            self._processor.on_end(self._readable(span, remote=number == 0))
        return spans[0].context

    def sampled(self, context: TraceContext, root: str) -> TraceContext:
        """`context`, sampled as the root of its trace, called `root`, will be."""
        return replace(context, sampled=self._is_sampled(context, root, None))

    def _is_sampled(self, context: TraceContext, name: str, parent: TraceContext | None) -> bool:
        around = INVALID_SPAN if parent is None else NonRecordingSpan(_context(parent, remote=True))
        verdict = self._sampler.should_sample(set_span_in_context(around), context.trace_id, name)
        return verdict.decision is Decision.RECORD_AND_SAMPLE

    def _readable(self, span: Span, *, remote: bool) -> ReadableSpan:
        """`remote`: the parent is somebody else's."""
        context = _context(replace(span.context, sampled=True), remote=False)
        return ReadableSpan(
            span.name,
            context=context,
            parent=None if span.parent is None else _context(span.parent, remote=remote),
            resource=self._about,
            attributes=self._within_limits(span.attributes),
            status=Status(StatusCode.ERROR, span.error) if span.error else _UNSET,
            start_time=_nanoseconds(span.start),
            end_time=_nanoseconds(span.end),
            instrumentation_scope=self._scope,
        )

    def _within_limits(self, attributes: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue]:
        """Attributes within OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and similar limits."""
        most, longest = self._limits.max_span_attributes, self._limits.max_span_attribute_length
        if longest is None and (most is None or len(attributes) <= most):
            return attributes
        return BoundedAttributes(most, attributes, immutable=True, max_value_len=longest)

    async def flush(self) -> None:
        """Sends what waits. May take long; whoever waits no longer leaves the rest to `close`."""
        await asyncio.wrap_future(self._last.submit(self._processor.shutdown))

    def close(self) -> None:
        """Retries end, and nothing is sent any more."""
        self._exporter.shutdown()
        self._last.shutdown(wait=False)


def _context(of: TraceContext, *, remote: bool) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if of.sampled else TraceFlags.DEFAULT)
    return SpanContext(of.trace_id, of.span_id, is_remote=remote, trace_flags=flags)


def _nanoseconds(at: datetime.datetime) -> int:
    since = at - _EPOCH
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
