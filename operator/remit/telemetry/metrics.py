"""What is counted and timed, for Prometheus: base units, a registry of its own, no object names in labels."""

from __future__ import annotations

import platform
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

_DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_DELAYS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)


class Metrics:
    """Every metric of one operator. Made once and handed to whoever counts."""

    def __init__(self, version: str = "unknown", registry: CollectorRegistry | None = None) -> None:
        self.registry: Final = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)

        self.task_finished: Final = self._counter(
            "remit_task_finished_total", "Tasks that ended, by how.", "operation", "backend", "reason"
        )
        self.task_duration: Final = self._histogram(
            "remit_task_duration_seconds", "From a task's first start to its end.", _DURATIONS, "operation", "backend"
        )
        self.task_queue: Final = self._histogram(
            "remit_task_queue_seconds", "From a task's admission to its first start.", _DELAYS
        )
        self.tasks_running: Final = self._gauge("remit_tasks_running", "Attempts that are running.", "backend")
        self.tasks_queued: Final = self._gauge("remit_tasks_queued", "Tasks that wait for their turn.", "reason")
        self.policy_decisions: Final = self._counter(
            "remit_policy_decisions_total", "Policy decisions: Allowed, Denied or Audited.", "decision"
        )
        self.api_writes: Final = self._counter(
            "remit_api_writes_total", "Requests that changed something on the API server.", "verb", "kind"
        )
        self.audit_records: Final = self._counter("remit_audit_records_total", "Audit records written since the start.")
        self.audit_head: Final = self._gauge("remit_audit_head_seq", "The number of the last audit record.")
        self.circuits_open: Final = self._gauge(
            "remit_circuits_open", "Hosts and servers that are left alone after failures in a row.", "operation"
        )
        self.circuit_trips: Final = self._counter(
            "remit_circuit_trips_total", "How often a circuit was opened.", "operation"
        )
        # The names are those of client-go, which dashboards and alerts for controllers know.
        self.workqueue_depth: Final = self._gauge("workqueue_depth", "Keys that wait for a worker.", "name")
        self.workqueue_adds: Final = self._counter(
            "workqueue_adds_total", "Keys added; a key that waits already is not counted.", "name"
        )
        self.workqueue_queue_duration: Final = self._histogram(
            "workqueue_queue_duration_seconds", "From a key's add until a worker takes it.", _DELAYS, "name"
        )
        self.workqueue_work_duration: Final = self._histogram(
            "workqueue_work_duration_seconds", "From when a worker takes a key until it is done.", _DELAYS, "name"
        )
        self.workqueue_unfinished_work: Final = self._gauge(
            "workqueue_unfinished_work_seconds", "How long the keys that workers have now took, together.", "name"
        )
        self.workqueue_longest_running: Final = self._gauge(
            "workqueue_longest_running_processor_seconds", "How long the longest of them took.", "name"
        )
        self.workqueue_retries: Final = self._counter(
            "workqueue_retries_total", "Keys added with a delay: after a failure, or when due again.", "name"
        )
        self.reconcile_duration: Final = self._histogram(
            "remit_reconcile_duration_seconds", "One reconciliation.", _DELAYS, "kind"
        )
        self.reconcile_errors: Final = self._counter(
            "remit_reconcile_errors_total", "Reconciliations that failed and are tried again.", "kind"
        )
        self.notifications: Final = self._counter(
            "remit_notifications_total", "Messages to a receiver: delivered or failed.", "receiver", "outcome"
        )
        self.notifications_failing: Final = self._gauge(
            "remit_notifications_failing", "1 while the last delivery to a receiver failed.", "receiver"
        )
        self.leader: Final = self._gauge("remit_leader", "1 while this operator works, 0 while it waits for the Lease.")
        self.leader_election_master_status: Final = self._gauge(
            "leader_election_master_status", "1 while this operator holds the Lease, 0 while it does not.", "name"
        )
        self.leader_election_slowpath: Final = self._counter(
            "leader_election_slowpath_total", "Renewals for which the Lease had to be read first.", "name"
        )
        self._gauge("remit_build_info", "Always 1; the labels say what runs.", "version", "python").labels(
            version, platform.python_version()
        ).set(1)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition in the format that an `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, buckets=buckets, registry=self.registry)
