"""The metrics for Prometheus: base units, a registry of its own, no names of objects or namespaces in labels.
`docs/metrics.md` is made from what is declared here (`make docs`)."""

from __future__ import annotations

import platform
import re
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from remit.reasons import CATALOGUE, CATEGORIES

_DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_DELAYS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)
_RELEASES: Final = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
_MEMORY: Final = tuple(float(4**power << 20) for power in range(9))
"""Bytes: 1 MiB, 4 MiB … 64 GiB."""
MOST_WORDS: Final = 100
"""Different values of labels that come from status and are no codes of Remit's. Further ones are counted as `Other`."""
_WORD: Final = re.compile("[A-Za-z0-9_-]{1,63}", re.ASCII)


class Words:
    """Keeps a label bounded whose values are read from status, which others may write: Remit's own codes and categories
    and the first `MOST_WORDS` other words stay as they are, and everything else is `Other`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, word: str) -> str:
        if word in self._known or word in CATALOGUE or word in CATEGORIES:
            return word
        if len(self._known) >= MOST_WORDS or not _WORD.fullmatch(word):
            return "Other"
        self._known.add(word)
        return word


class Metrics:
    """Every metric of one operator. Made once and handed to whoever counts."""

    def __init__(self, version: str = "unknown", registry: CollectorRegistry | None = None) -> None:
        self.registry: Final = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)

        self.words: Final = Words()

        # Tasks. Gauges of existing objects are computed from the informer's cache at each scrape.
        self.tasks: Final = self._gauge("remit_tasks", "Tasks that exist, by their phase.", "phase")
        self.task_finished: Final = self._counter(
            "remit_task_finished_total",
            "Tasks that ended, by how.",
            *("operation", "backend", "phase", "reason", "category"),
        )
        self.task_duration: Final = self._histogram(
            "remit_task_duration_seconds", "From a task's first start to its end.", _DURATIONS, "operation", "backend"
        )
        self.task_unusual: Final = self._counter(
            "remit_task_unusual_total", "Quantities of runs that differ much from the runs before.", "quantity"
        )
        # Initialized, so that the first increment is visible as an increase.
        for quantity in ("Duration", "Memory", "Cpu"):
            self.task_unusual.labels(quantity)
        self.task_queue: Final = self._histogram(
            "remit_task_queue_seconds", "From a task's admission to its first start.", _DELAYS
        )
        self.tasks_running: Final = self._gauge("remit_tasks_running", "Attempts that are running.", "backend")
        self.tasks_queued: Final = self._gauge("remit_tasks_queued", "Tasks that wait for their turn.", "reason")

        # Attempts, each counted once, when status has its outcome.
        ran = ("operation", "backend")
        self.task_retries: Final = self._counter(
            "remit_task_retries_total", "Attempts that failed and are followed by another one.", *ran, "reason"
        )
        self.attempt_duration: Final = self._histogram(
            "remit_attempt_duration_seconds", "From an attempt's start to its end.", _DURATIONS, *ran
        )
        self.attempt_cpu: Final = self._counter(
            "remit_attempt_cpu_seconds_total", "Processor time that attempts used.", *ran
        )
        self.attempt_throttled: Final = self._counter(
            "remit_attempt_cpu_throttled_seconds_total", "Time that attempts were held back by their CPU limit.", *ran
        )
        self.attempt_memory: Final = self._histogram(
            "remit_attempt_memory_peak_bytes", "The most memory that an attempt used.", _MEMORY, *ran
        )
        self.attempt_output: Final = self._counter(
            "remit_attempt_output_bytes_total", "Output that attempts wrote, kept or not.", *ran, "stream"
        )
        self.attempt_disk_read: Final = self._counter(
            "remit_attempt_disk_read_bytes_total", "What attempts read from disks.", *ran
        )
        self.attempt_disk_written: Final = self._counter(
            "remit_attempt_disk_written_bytes_total", "What attempts wrote to disks.", *ran
        )
        self.attempt_network_sent: Final = self._counter(
            "remit_attempt_network_sent_bytes_total", "What attempts sent through the egress proxy.", *ran
        )
        self.attempt_network_received: Final = self._counter(
            "remit_attempt_network_received_bytes_total", "What attempts received through the egress proxy.", *ran
        )
        self.attempt_connections: Final = self._counter(
            "remit_attempt_network_connections_total",
            "Connections that attempts asked the egress proxy for: Allowed or Denied.",
            *ran,
            "decision",
        )
        self.attempt_limits: Final = self._counter(
            "remit_attempt_limits_exceeded_total", "Limits that attempts met.", *ran, "limit"
        )
        self.sandbox_missing: Final = self._counter(
            "remit_attempt_sandbox_layers_missing_total",
            "Layers of the sandbox that attempts ran without, because the host does not offer them.",
            "layer",
        )
        self.sandbox_layer: Final = self._gauge(
            "remit_sandbox_layer_available",
            "1 where this host offers the layer to sandboxes, 0 where it does not. Only with the backend process.",
            "layer",
        )

        # Releases.
        self.deployments: Final = self._gauge("remit_deployments", "Deployments that exist, by their phase.", "phase")
        sides = ("target", "side")
        self.instances_desired: Final = self._gauge(
            "remit_deployment_instances_desired", "Instances that Deployments should have: live or preview.", *sides
        )
        self.instances_ready: Final = self._gauge(
            "remit_deployment_instances_ready", "Instances of Deployments that are healthy: live or preview.", *sides
        )
        self.instance_restarts: Final = self._counter(
            "remit_deployment_instance_restarts_total", "How often instances of Deployments were started again."
        )
        self.release_finished: Final = self._counter(
            "remit_release_finished_total", "Releases that ended, by how.", "strategy", "outcome"
        )
        self.release_duration: Final = self._histogram(
            "remit_release_duration_seconds", "From a release's start to its end.", _RELEASES, "strategy", "outcome"
        )
        self.release_stage: Final = self._histogram(
            "remit_release_stage_seconds", "One stage of a release.", _RELEASES, "strategy", "stage"
        )
        self.release_rollbacks: Final = self._counter(
            "remit_release_rollbacks_total",
            "Releases that turned back, and returns to an earlier revision by request, by cause.",
            "strategy",
            "reason",
        )
        self.release_switch: Final = self._histogram(
            "remit_release_switch_seconds",
            "From the command to switch until the target was seen to have carried it out; the slowest of a release.",
            _DELAYS,
            "strategy",
        )

        self.policy_decisions: Final = self._counter(
            "remit_policy_decisions_total",
            "Policy decisions: Allowed, Denied or Audited. A Deployment counts as the operation release.",
            "decision",
            "kind",
            "operation",
        )

        # The names are those of client-go.
        self.api_requests: Final = self._counter(
            "rest_client_requests_total",
            "Requests to the API server, by the code of the answer; <error> where there was none.",
            "code",
            "method",
            "host",
        )
        self.api_request_duration: Final = self._histogram(
            "rest_client_request_duration_seconds",
            "From a request to the API server to the end of the answer, watches and streams excepted.",
            _DELAYS,
            "verb",
            "host",
        )
        self.api_writes: Final = self._counter(
            "remit_api_writes_total", "Requests that changed something on the API server.", "verb", "kind"
        )

        self.audit_records: Final = self._counter("remit_audit_records_total", "Audit records written since the start.")
        self.audit_head: Final = self._gauge("remit_audit_head_seq", "The number of the last audit record.")
        self.audit_available: Final = self._gauge(
            "remit_audit_available", "1 while the audit trail can be written, 0 while it cannot and nothing is started."
        )
        self.state_size: Final = self._gauge(
            "remit_state_filesystem_size_bytes", "The size of the file system that the state directory is on."
        )
        self.state_free: Final = self._gauge(
            "remit_state_filesystem_free_bytes", "What is free on it for the operator's user."
        )
        self.circuits_open: Final = self._gauge(
            "remit_circuits_open", "Hosts and servers that are left alone after failures in a row.", "operation"
        )
        self.circuit_trips: Final = self._counter(
            "remit_circuit_trips_total", "How often a circuit was opened.", "operation"
        )
        # The names are those of client-go, which common dashboards and alerts for controllers use.
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
