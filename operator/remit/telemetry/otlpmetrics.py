"""Exports the Prometheus registry to OpenTelemetry: the same names, labels and numbers as at `/metrics`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family
from prometheus_client.samples import Exemplar as Example
from prometheus_client.samples import Sample

from remit.telemetry.otlpfailures import Attempts
from remit.threads import DaemonThreadPool

log = structlog.get_logger(__name__)

_UNITS: Final = {"_seconds": "s", "_bytes": "By"}
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_NANO: Final = 1_000_000_000

_Labels = tuple[tuple[str, str], ...]


class MetricsExport:
    """Collects on the event loop, as a scrape does, and sends in a thread of its own."""

    def __init__(self, registry: CollectorRegistry, about: Resource) -> None:
        self._registry, self._about = registry, about
        self._exporter, self._attempts = OTLPMetricExporter(), Attempts("metrics")
        self._began, self._unreadable = time.time_ns(), False
        self._sender = DaemonThreadPool(1, "metrics")

    async def run(self, interval: float) -> None:
        """Exports every `interval` seconds, or as fast as the collector takes it."""
        while True:
            await asyncio.sleep(interval)
            await self.flush()

    async def flush(self) -> None:
        """Exports what there is now; nothing where that cannot be read, which a scrape would tell, too."""
        try:
            found = self._collect()
        except Exception as error:
            if not self._unreadable:
                log.warning("metrics cannot be read for OpenTelemetry", error=f"{type(error).__name__}: {error}")
            self._unreadable = True
            return
        self._unreadable = False
        data = MetricsData([ResourceMetrics(self._about, [found], "")])
        await asyncio.wrap_future(self._sender.submit(self._send, data))

    def close(self) -> None:
        """Retries end, and nothing is sent any more."""
        self._exporter.shutdown()
        self._sender.shutdown(wait=False, cancel_futures=True)

    def _collect(self) -> ScopeMetrics:
        now = time.time_ns()
        found = [metric for family in self._registry.collect() if (metric := metric_of(family, self._began, now))]
        return ScopeMetrics(InstrumentationScope("remit"), found, "")

    def _send(self, data: MetricsData) -> None:
        with self._attempts.one() as succeeded:
            succeeded.append(self._exporter.export(data) is MetricExportResult.SUCCESS)


def metric_of(family: Family, began: int, now: int) -> Metric | None:
    """A family of a registry as OpenTelemetry has it; None without a series, and for types that Remit has not.

    `began` and `now` in nanoseconds: since when is counted, where the registry does not say, and when it was asked.
    """
    data: Sum | Gauge | Histogram
    name = family.name
    match family.type:
        case "counter":
            name += "_total"
            created = _created(family)
            points = [
                NumberDataPoint(sample.labels, created.get(_labels(sample.labels), began), now, sample.value)
                for sample in family.samples
                if sample.name == name
            ]
            data = Sum(points, _CUMULATIVE, is_monotonic=True)
        case "gauge":
            data = Gauge([NumberDataPoint(sample.labels, 0, now, sample.value) for sample in family.samples])
        case "histogram":
            data = Histogram(list(_histogram(family, began, now)), _CUMULATIVE)
        case _:
            return None
    if not data.data_points:
        return None
    unit = next((unit for suffix, unit in _UNITS.items() if family.name.endswith(suffix)), "")
    return Metric(name, family.documentation, unit, data)


@dataclass
class _Series:
    """The samples of one series of a histogram in a registry, with buckets that hold those below them."""

    bounds: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0
    examples: list[Exemplar] = field(default_factory=list)

    def point(self, labels: _Labels, began: int, now: int) -> HistogramDataPoint:
        own = [count - below for below, count in zip([0, *self.counts], self.counts, strict=False)]
        total = self.counts[-1]
        # Minimum and maximum are not known. They are optional in the protocol, but not in the SDK's types.
        extremes: dict[str, float] = {"min": None, "max": None}  # type: ignore[dict-item]
        return HistogramDataPoint(
            dict(labels), began, now, total, self.sum, own, self.bounds, **extremes, exemplars=self.examples
        )


def _histogram(family: Family, began: int, now: int) -> Iterator[HistogramDataPoint]:
    found, created = dict[_Labels, _Series](), _created(family)
    for sample in family.samples:
        labels = _labels(sample.labels)
        if sample.name == f"{family.name}_bucket":
            series = found.setdefault(labels, _Series())
            if (bound := float(sample.labels["le"])) != float("inf"):
                series.bounds.append(bound)
            series.counts.append(int(sample.value))
            series.examples += _exemplars(sample.exemplar)
        elif sample.name == f"{family.name}_sum":
            found.setdefault(labels, _Series()).sum = sample.value
    for labels, series in found.items():
        yield series.point(labels, created.get(labels, began), now)


def _created(family: Family) -> dict[_Labels, int]:
    """When each series began, in nanoseconds, as far as it is told."""
    samples: Iterable[Sample] = family.samples
    return {_labels(s.labels): int(s.value * _NANO) for s in samples if s.name == f"{family.name}_created"}


def _labels(labels: Mapping[str, str]) -> _Labels:
    return tuple(sorted((name, value) for name, value in labels.items() if name != "le"))


def _exemplars(found: Example | None) -> list[Exemplar]:
    if found is None or not {"trace_id", "span_id"} <= found.labels.keys():
        return []
    trace_id, span_id = int(found.labels["trace_id"], 16), int(found.labels["span_id"], 16)
    return [Exemplar({}, found.value, int(float(found.timestamp or 0) * _NANO), span_id, trace_id)]
