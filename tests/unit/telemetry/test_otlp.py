"""Tests export to OpenTelemetry: settings in the environment, and a collector that answers, refuses or hangs."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
from collections.abc import Mapping

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from structlog.testing import capture_logs

from collectors import collecting, export_to
from remit.errors import InvalidInput, RemitError
from remit.telemetry import otlp
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor
from remit.telemetry.tracecontext import Span, TraceContext

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
URL = "http://127.0.0.1:4318"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def span(number: int = 1, parent: TraceContext | None = None, error: str = "") -> Span:
    context = TraceContext(7, number)
    return Span(f"span {number}", context, parent, NOW, NOW + datetime.timedelta(seconds=1), {"number": number}, error)


def test_without_the_variables_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import asyncio, sys, remit.controllers.operator\n"
        "from remit.telemetry import otlp\nfrom remit.telemetry.metrics import Metrics\n"
        "from remit.telemetry.redact import Redactor\n"
        "async def main():\n"
        "    async with otlp.exporting(Metrics(), Redactor(), '1') as tracer:\n"
        "        assert tracer is None\n"
        "asyncio.run(main())\n"
        "sys.exit(str([name for name in sys.modules if name.startswith('opentelemetry')]))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": "operator"}, capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, {"traces", "metrics"}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces"}, {"traces"}),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{URL}/v1/metrics"}, {"metrics"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRICS_EXPORTER": "none"}, {"traces"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "true"}, set()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, {"traces", "metrics"}),
    ],
)
def test_what_the_environment_asks_for(environ: Mapping[str, str], expected: set[str]) -> None:
    assert otlp.signals(environ) == expected


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: not an address"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://:4318"}, "not an address"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, "not an address"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:s3cret@host:port"}, "not an address"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "file:///etc"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: not an address"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "Remit sends http/protobuf only"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRIC_EXPORT_INTERVAL": "1s"}, "OTEL_METRIC_EXPORT_INTERVAL"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_variable(environ: Mapping[str, str], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        otlp.signals(environ)
    assert words in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_missing_extra_is_reported_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(RemitError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set.*pip install 'remit-operator\[otel\]'"):
        otlp.signals({"OTEL_EXPORTER_OTLP_ENDPOINT": URL})


async def test_a_setting_that_the_sdk_refuses_is_an_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", URL)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(InvalidInput, match="max_export_batch_size"):
        async with otlp.exporting(Metrics(), Redactor(), "1"):
            pass


async def test_spans_arrive_with_their_ids_times_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting() as collector:
        headers = "Authorization=Bearer%20of-the-collector"
        export_to(collector, monkeypatch, OTEL_EXPORTER_OTLP_HEADERS=headers, OTEL_RESOURCE_ATTRIBUTES="team=a")
        redactor = Redactor()
        async with otlp.exporting(Metrics(), redactor, "1.2.3") as tracer:
            assert tracer is not None
            root = span(1, TraceContext(7, 99))
            assert tracer.export([root, span(2, root.context, "ExitCode")]) == root.context
        first, second = collector.spans
        assert (first.trace_id, first.id, first.parent) == (f"{7:032x}", f"{1:016x}", f"{99:016x}")
        assert (second.trace_id, second.id, second.parent) == (f"{7:032x}", f"{2:016x}", f"{1:016x}")
        assert first.span.start_time_unix_nano == int(NOW.timestamp()) * 10**9 + 678901000
        assert first.span.end_time_unix_nano - first.span.start_time_unix_nano == 10**9
        assert first.attributes == {"number": 1}
        assert (first.span.status.code, second.span.status.code, second.error) == (0, 2, "ExitCode")
        about = first.resource
        assert (about["service.name"], about["service.version"], about["team"]) == ("remit-operator", "1.2.3", "a")
        assert collector.headers[0]["Authorization"] == "Bearer of-the-collector"
        assert redactor.redact("with Bearer of-the-collector") == "with [redacted]"


async def test_a_trace_that_its_caller_or_the_sampler_does_not_want_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with collecting() as collector:
        export_to(collector, monkeypatch)
        async with otlp.exporting(Metrics(), Redactor(), "1") as tracer:
            assert tracer is not None
            parent = TraceContext(7, 99, sampled=False)
            root = Span("root", TraceContext(7, 1, sampled=False), parent, NOW, NOW)
            assert tracer.export([root, span(2, root.context)]) is None
            assert tracer.sampled(root.context, "root").sampled
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        async with otlp.exporting(Metrics(), Redactor(), "1") as tracer:
            assert tracer is not None
            assert tracer.export([span()]) is None
            assert not tracer.sampled(TraceContext(7, 1), "root").sampled
        assert collector.spans == []


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", {"a": "123", "b": 1}),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", {"a": "12345", "b": 1, "c": 2}),
    ],
)
async def test_attributes_obey_the_limits_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, expected: dict[str, object]
) -> None:
    attributes = {"a": "12345", "b": 1} if "VALUE" in variable else {"0": 0, "a": "12345", "b": 1, "c": 2}
    async with collecting() as collector:
        export_to(collector, monkeypatch, **{variable: "3"})
        async with otlp.exporting(Metrics(), Redactor(), "1") as tracer:
            assert tracer is not None
            tracer.export([Span("root", TraceContext(7, 1), None, NOW, NOW, attributes)])
        assert collector.spans[0].attributes == expected


async def test_metrics_are_those_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    metrics.task_finished.labels("command", "process", "Failed", "ExitCode", "ExitCode").inc(3)
    metrics.tasks.labels("Running").set_function(lambda: 4)
    for seconds in (0.007, 0.2, 0.2, 7200):
        exemplar = {"trace_id": f"{7:032x}", "span_id": f"{9:016x}"}
        metrics.task_duration.labels("command", "process").observe(seconds, exemplar)
    async with collecting() as collector:
        export_to(collector, monkeypatch, OTEL_METRIC_EXPORT_INTERVAL="20")
        async with otlp.exporting(metrics, Redactor(), "1"):
            await collector.until(lambda: collector.metrics)
            metrics.task_retries.labels("command", "process", "ExitCode").inc()
        found = collector.metrics
    finished = found["remit_task_finished_total"].sum
    (point,) = finished.data_points
    assert (point.as_double, finished.is_monotonic) == (3, True)
    assert finished.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert {each.key: each.value.string_value for each in point.attributes}["reason"] == "ExitCode"
    assert 0 < point.start_time_unix_nano < point.time_unix_nano
    assert found["remit_tasks"].gauge.data_points[0].as_double == 4
    assert found["remit_task_retries_total"].sum.data_points[0].as_double == 1, "of the last moment"
    duration = found["remit_task_duration_seconds"]
    (series,) = duration.histogram.data_points
    assert (series.count, series.sum, duration.unit) == (4, pytest.approx(7200.407), "s")
    counted = dict(zip([*series.explicit_bounds, None], series.bucket_counts, strict=True))
    assert {bound: count for bound, count in counted.items() if count} == {0.01: 1, 0.25: 2, None: 1}
    assert not series.HasField("min")
    assert {each.trace_id.hex() for each in series.exemplars} == {f"{7:032x}"}
    assert {"process_cpu_seconds_total", "process_open_fds"} <= found.keys()


async def test_metrics_that_cannot_be_read_are_reported_once_and_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, reads = Metrics(), []

    def read() -> float:
        reads.append(1)
        if len(reads) <= 3:
            raise RuntimeError("not known yet")
        return 4

    metrics.tasks.labels("Running").set_function(read)
    async with collecting() as collector:
        export_to(collector, monkeypatch, OTEL_METRIC_EXPORT_INTERVAL="10")
        with capture_logs() as logs:
            async with otlp.exporting(metrics, Redactor(), "1"):
                await collector.until(lambda: collector.metrics)
        assert [entry["event"] for entry in logs] == ["metrics cannot be read for OpenTelemetry"]
        assert collector.metrics["remit_tasks"].gauge.data_points[0].as_double == 4


async def test_a_failure_is_reported_when_it_begins_and_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting(status=400) as collector:
        export_to(collector, monkeypatch, OTEL_METRICS_EXPORTER="none")
        with capture_logs() as logs:
            async with otlp.exporting(Metrics(), Redactor(), "1") as tracer:
                assert tracer is not None
                for number in range(3):
                    tracer.export([span(number + 1)])
                    await collector.until(lambda least=number: collector.requests > least)
                collector.status = 200
                tracer.export([span(9)])
                await collector.until(lambda: collector.spans)
        ours = [entry["event"] for entry in logs]
        assert ours == [
            "traces cannot be exported to OpenTelemetry; some are lost",
            "traces are exported to OpenTelemetry again",
        ]
        assert "400" in logs[0]["reason"]


@pytest.mark.parametrize("status", [0, 503, None])
async def test_a_hanging_or_missing_collector_does_not_delay_other_work(
    monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_SECONDS", 0.3)
    async with collecting(status=status or 0) as collector:
        endless = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1000", "OTEL_METRIC_EXPORT_INTERVAL": "10"}
        export_to(collector, monkeypatch, **endless, OTEL_BSP_MAX_QUEUE_SIZE="20", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="5")
        if status is None:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        with capture_logs() as logs:
            async with asyncio.timeout(25):  # the SDK alone takes half a minute or more
                async with otlp.exporting(Metrics(), Redactor(), "1") as tracer:
                    assert tracer is not None
                    if status is not None:
                        tracer.export([span()])
                        await collector.until(lambda: collector.requests >= 2)
                    for number in range(1000):
                        assert tracer.export([span(number + 1)])
        assert not collector.over.is_set()
        assert len(logs) <= 3, "a full queue, traces and metrics are told of once"
