"""Counts an attempt that ended."""

from __future__ import annotations

from remit.api.executiontaskstatus import AttemptStatus
from remit.backends.outcome import Outcome
from remit.telemetry.metrics import Metrics


def count_attempt(metrics: Metrics, operation: str, attempt: AttemptStatus, outcome: Outcome, *, retried: bool) -> None:
    """Count `attempt`, once. What the backend does not know of it is not counted."""
    ran = operation, metrics.words(attempt.backend)
    seconds = (outcome.finished_at - attempt.started_at).total_seconds()
    metrics.attempt_duration.labels(*ran).observe(max(0.0, seconds))
    if retried:
        metrics.task_retries.labels(*ran, metrics.words(outcome.reason)).inc()
    if (usage := outcome.usage) is not None and (usage.cpu_seconds or usage.max_memory_bytes):
        metrics.attempt_cpu.labels(*ran).inc(usage.cpu_seconds)
        metrics.attempt_throttled.labels(*ran).inc(usage.throttled_seconds)
        metrics.attempt_memory.labels(*ran).observe(usage.max_memory_bytes)
        metrics.attempt_disk_read.labels(*ran).inc(usage.read_bytes)
        metrics.attempt_disk_written.labels(*ran).inc(usage.written_bytes)
    if (output := outcome.output) is not None:
        metrics.attempt_output.labels(*ran, "stdout").inc(output.stdout_bytes)
        metrics.attempt_output.labels(*ran, "stderr").inc(output.stderr_bytes)
    if (network := outcome.network) is not None:
        metrics.attempt_network_sent.labels(*ran).inc(network.sent_bytes)
        metrics.attempt_network_received.labels(*ran).inc(network.received_bytes)
        metrics.attempt_connections.labels(*ran, "Allowed").inc(network.connections)
        metrics.attempt_connections.labels(*ran, "Denied").inc(network.denied)
    for limit in outcome.exceeded:
        metrics.attempt_limits.labels(*ran, metrics.words(limit)).inc()
    for layer in outcome.missing:
        metrics.sandbox_missing.labels(metrics.words(layer)).inc()
