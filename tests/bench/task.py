"""The task that benchmarks create: 0.8 KB as JSON, with typical fields."""

from __future__ import annotations

from typing import Any

LABELS = {
    "app.kubernetes.io/name": "reports",
    "app.kubernetes.io/part-of": "nightly-batch",
    "app.kubernetes.io/managed-by": "bench",
    "example.com/cost-centre": "4711",
}


def task(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {
            "name": name,
            "labels": LABELS,
            "annotations": {"example.com/runbook": "https://wiki.example.com/runbooks/nightly-reports#when-it-fails"},
        },
        "spec": {
            "command": {
                "argv": ["echo", "the report of this night is done", name],
                "env": [{"name": "LANG", "value": "C.UTF-8"}, {"name": "REPORT_DAY", "value": "monday"}],
            },
            "timeoutSeconds": 120,
            "retry": {"maxRetries": 3, "backoff": {"initialSeconds": 2, "factor": 2, "maxSeconds": 60}},
            "resources": {"memory": "128Mi", "cpu": "500m", "pids": 32},
            "output": {"tailBytes": 2048},
        },
    }
