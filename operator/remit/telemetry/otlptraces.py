"""Spans to OpenTelemetry. They wait in the SDK's bounded queue, and a thread of its own sends them."""

from __future__ import annotations

import asyncio
import datetime
import socket
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from remit.telemetry.otlpfailures import Attempts
from remit.telemetry.tracecontext import Span, TraceContext
from remit.threads import DaemonThreadPool

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def resource(version: str) -> Resource:
    """Who tells. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    own = {
        "service.name": "remit-operator",
        "service.version": version,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
    }
    return Resource(own).merge(OTELResourceDetector().detect())


class _GivenIds(IdGenerator):
    """Gives the ids of the span that is about to be made."""

    context = TraceContext(1, 1)

    def generate_trace_id(self) -> int:
        return self.context.trace_id

    def generate_span_id(self) -> int:
        return self.context.span_id


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
        if not self._is_shut_down:  # the SDK logs a second time as a mistake
            self._is_shut_down = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


class Tracer:
    """Takes spans that are over. To be used by one thread."""

    def __init__(self, about: Resource) -> None:
        self._ids, self._exporter = _GivenIds(), _Exporter()
        self._processor = BatchSpanProcessor(self._exporter)
        self._provider = TracerProvider(resource=about, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("remit", str(about.attributes.get("service.version", "")))
        self._last = DaemonThreadPool(1, "last spans")

    def export(self, spans: Sequence[Span]) -> TraceContext | None:
        """Has the spans sent, of which the first is the root of the others. Never waits; spans that find the queue full
        push out older ones. Gives the context of the root; None where there is none, or it is not sampled."""
        for number, span in enumerate(spans):
            if not self._export(span, remote=number == 0):
                return None
        return spans[0].context if spans else None

    def sampled(self, context: TraceContext, root: str) -> TraceContext:
        """`context`, sampled as the root of its trace, called `root`, will be."""
        verdict = self._provider.sampler.should_sample(None, context.trace_id, root)
        return replace(context, sampled=verdict.decision is Decision.RECORD_AND_SAMPLE)

    def _export(self, span: Span, *, remote: bool) -> bool:
        """`remote`: the parent is somebody else's. Tells whether the span is sampled."""
        self._ids.context = span.context
        around = INVALID_SPAN if span.parent is None else NonRecordingSpan(_context(span.parent, remote=remote))
        made = self._tracer.start_span(
            span.name,
            context=set_span_in_context(around),
            attributes=dict(span.attributes),
            start_time=_nanoseconds(span.start),
        )
        if span.error:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(_nanoseconds(span.end))
        return made.get_span_context().trace_flags.sampled

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
