"""Traces and metrics for an OpenTelemetry collector, where the environment names one. OpenTelemetry's SDK, an extra, is
imported only then, and reads the other settings (headers, certificates, intervals, sampling …) from the environment."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote, urlsplit

from remit.errors import InvalidInput, RemitError
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor

if TYPE_CHECKING:
    from remit.telemetry.otlptraces import Tracer

Signal = Literal["traces", "metrics"]

FLUSH_SECONDS: Final = 5.0
"""How long sending the rest may take when the operator ends."""
_SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics")
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL: Final = "http/protobuf"
_PACKAGE: Final = "opentelemetry.exporter.otlp.proto.http"
_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"


def signals(environ: Mapping[str, str] = os.environ) -> frozenset[Signal]:
    """The signals to be exported. Raises `RemitError` where that cannot be done as the environment says it."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    found = {signal: endpoint for signal in _SIGNALS if (endpoint := _endpoint(environ, signal))}
    if not found:
        return frozenset()
    for signal, (name, url) in found.items():
        if not _is_http(url):
            raise InvalidInput("not an address such as http://collector:4318", field=name)
        for variable in (_of(signal, "PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if (protocol := environ.get(variable, "").strip()) and protocol != _PROTOCOL:
                message = f"Remit sends {_PROTOCOL} only, and not {protocol!r}; set that, or unset the variable"
                raise InvalidInput(message, field=variable)
            if protocol:
                break
    _interval(environ)
    if not _is_installed():
        message = f"{next(iter(found.values()))[0]} is set, but OpenTelemetry is not installed"
        raise RemitError(f"{message}; install it with pip install 'remit-operator[otel]', or unset the variable")
    return frozenset(found)


@contextlib.asynccontextmanager
async def exporting(
    metrics: Metrics, redactor: Redactor, version: str, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Tracer | None]:
    """Exports what the environment asks for; gives what takes traces, or None. Whatever a collector does, leaving takes
    `FLUSH_SECONDS` at most. Raises `RemitError`."""
    wanted = signals(environ)
    if not wanted:
        yield None
        return
    for secret in _secrets(environ):
        redactor.register(secret)
    from remit.telemetry.otlpfailures import take_over_logs
    from remit.telemetry.otlpmetrics import MetricsExport
    from remit.telemetry.otlptraces import Tracer, resource

    take_over_logs()
    about = resource(version)
    try:
        tracer = Tracer(about) if "traces" in wanted else None
        pushing = MetricsExport(metrics.registry, about) if "metrics" in wanted else None
    except ValueError as error:
        raise InvalidInput(f"OpenTelemetry refuses a variable OTEL_…: {redactor.redact(str(error))}") from None
    running = asyncio.create_task(pushing.run(_interval(environ))) if pushing else None
    parts = [part for part in (tracer, pushing) if part is not None]
    try:
        yield tracer
    finally:
        if running is not None:
            running.cancel()
            await asyncio.wait([running])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await asyncio.gather(*(part.flush() for part in parts))
        for part in parts:
            part.close()


def _of(signal: Signal, setting: str) -> str:
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{setting}"


def _endpoint(environ: Mapping[str, str], signal: Signal) -> tuple[str, str] | None:
    """The variable that names where `signal` goes, and what it says."""
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return None
    named = ((name, environ.get(name, "").strip()) for name in (_of(signal, "ENDPOINT"), _ENDPOINT))
    return next(((name, url) for name, url in named if url), None)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _interval(environ: Mapping[str, str]) -> float:
    """Seconds between two exports of metrics."""
    text = environ.get(_INTERVAL, "").strip() or "60000"
    if not (text.isascii() and text.isdecimal() and int(text[:10]) > 0):
        raise InvalidInput("not a number of milliseconds such as 60000", field=_INTERVAL)
    return int(text[:10]) / 1000


def _secrets(environ: Mapping[str, str]) -> list[str]:
    """The texts that may be sent to the collector only: values of headers, and passwords in addresses."""
    found = []
    for scope in ("", "TRACES_", "METRICS_"):
        headers = environ.get(f"OTEL_EXPORTER_OTLP_{scope}HEADERS", "").split(",")
        found += [unquote(header.partition("=")[2]).strip() for header in headers]
        with contextlib.suppress(ValueError):
            found.append(unquote(urlsplit(environ.get(f"OTEL_EXPORTER_OTLP_{scope}ENDPOINT", "")).password or ""))
    return [secret for secret in found if secret]


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(_PACKAGE) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
