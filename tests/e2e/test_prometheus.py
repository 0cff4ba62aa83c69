"""Tests that Debian's Prometheus scrapes `remit up` as docs/monitoring/prometheus.yaml says, with the chart's rules and
dashboard queries, and alerts Debian's Alertmanager."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import installyaml
from monitoring import Prometheus, alertmanager, get_json, prometheus
from parts import require
from ports import free_port
from remit import safeyaml
from remitup import RemitUp, until

from .conftest import SHELL
from .test_cli_releases import POLICY, answer_of, deployment

CONFIG = installyaml.ROOT / "docs/monitoring/prometheus.yaml"
PAGE = installyaml.ROOT / "docs/observability.md"
TOKEN = "a-token-for-prometheus"
DENIALS = 25
"""More than the alert allows in ten minutes."""
TASKS = {
    "good": (["sh", "-c", "head -c 1000000 /dev/zero"], "Succeeded"),
    "bad": (["sh", "-c", "exit 3"], "Failed"),
    "denied": (["nobody-allows-this"], "Denied"),
}
WITHOUT_DATA = {
    "remit_attempt_limits_exceeded_total",
    "remit_attempt_network_connections_total",
    "remit_attempt_network_received_bytes_total",
    "remit_attempt_network_sent_bytes_total",
    "remit_attempt_sandbox_layers_missing_total",
    "remit_circuit_trips_total",
    "remit_circuits_open",
    "remit_notifications_total",
    "remit_release_rollbacks_total",
    "remit_release_switch_seconds_bucket",
    "remit_reconcile_errors_total",
    "remit_task_retries_total",
}
"""Panels that may be empty, because their events do not happen here, or only once."""


@dataclass(frozen=True)
class Stage:
    up: RemitUp
    prometheus: Prometheus
    alertmanager: str

    def alerts(self) -> dict[str, Any]:
        """Returns the alerts of the Alertmanager by name."""
        try:
            found = get_json(f"{self.alertmanager}/api/v2/alerts")
        except OSError:
            return {}
        return {each["labels"]["alertname"]: each for each in found}

    def scraped(self, query: str) -> list[float]:
        return until(lambda: self.prometheus.query(query), query)


def documented_config(up: RemitUp, folder: Path, operator: int, alerting: str) -> Path:
    """Returns the page's configuration with the addresses and paths of this test, and with a scrape and an evaluation
    each second."""
    config, text = safeyaml.load((up.state_dir / "kubeconfig").read_text()), CONFIG.read_text()
    for documented, here in {
        "/etc/remit/metrics-token": str(folder / "metrics-token"),
        "/var/lib/remit": str(up.state_dir),
        "127.0.0.1:9464": f"127.0.0.1:{operator}",
        "127.0.0.1:6443": urlsplit(config["clusters"][0]["cluster"]["server"]).netloc,
        "127.0.0.1:9093": urlsplit(alerting).netloc,
        "30s": "1s",
    }.items():
        assert documented in text
        text = text.replace(documented, here)
    path = folder / "prometheus.yaml"
    path.write_text(text)
    return path


def write_rules(folder: Path) -> None:
    """Writes the rules as the page says."""
    (command,) = re.findall(r"^sed .*alerts\.yaml > rules\.yaml$", PAGE.read_text(), re.M)
    command = command.replace("> rules.yaml", f"> {folder}/rules.yaml")
    subprocess.run(["/bin/sh", "-c", command], cwd=installyaml.ROOT, check=True, timeout=20)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, kubectl: str, sandbox: None) -> Iterator[Stage]:
    folder, port = tmp_path_factory.mktemp("monitoring"), free_port()
    (folder / "metrics-token").write_text(TOKEN)
    write_rules(folder)
    options = ("--metrics-address", f"127.0.0.1:{port}", "--metrics-token-file", str(folder / "metrics-token"))
    with pytest.MonkeyPatch.context() as patch, alertmanager(folder) as alerting:
        # Traces are enabled, so that there are exemplars. No collector receives the traces.
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{free_port()}/v1/traces")
        with RemitUp(folder / "state", kubectl, options) as up:
            up.kubectl("apply", "-f", "-", stdin=SHELL)
            with releasing(up, folder) as release:
                run_tasks(up, "first")
                release("one")
                with prometheus(folder, documented_config(up, folder, port, alerting)) as running:
                    stage = Stage(up, running, alerting)
                    # A counter that appears does not count as an increase; its later changes do.
                    stage.scraped('remit_task_finished_total{phase="Denied"}')
                    stage.scraped('remit_release_finished_total{outcome="Promoted"}')
                    run_tasks(up, "second")
                    release("two")
                    stage.scraped('remit_task_finished_total{phase="Denied"} > 1')
                    stage.scraped('remit_release_finished_total{outcome="Promoted"} > 1')
                    yield stage


def run_tasks(up: RemitUp, prefix: str) -> None:
    """Runs a task that succeeds, one that fails, and one that is denied, and waits for their ends."""
    up.kubectl("apply", "-f", "-", stdin=documents({f"{prefix}-{name}": argv for name, (argv, _) in TASKS.items()}))
    for name, (_, phase) in TASKS.items():
        until(lambda name=name, phase=phase: up.phase(f"{prefix}-{name}") == phase, f"{prefix}-{name}")  # type: ignore[misc]


@contextmanager
def releasing(up: RemitUp, folder: Path) -> Iterator[Callable[[str], None]]:
    """Yields a function that releases a version of a site and waits until it is live. Its instances would outlive
    `remit up`, so they are ended."""
    port = free_port()
    up.kubectl("apply", "-f", "-", stdin=POLICY % folder)

    def release(version: str) -> None:
        up.kubectl("apply", "-f", "-", stdin=deployment(folder, version, port, gate=False))

        def live() -> bool:
            phase = up.read("deployments", "site").get("status", {}).get("phase")
            return phase == "Healthy" and answer_of(port) == version

        until(live, f"the release of {version}")

    try:
        yield release
    finally:
        up.kubectl("delete", "deployments.remit.dev", "--all", "--timeout=60s")


def documents(tasks: dict[str, list[str]]) -> str:
    kind = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask"}
    return yaml.safe_dump_all(
        {**kind, "metadata": {"name": name}, "spec": {"command": {"argv": argv}}} for name, argv in tasks.items()
    )


def dashboard() -> dict[str, Any]:
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    config_map = safeyaml.load(installyaml.render({"dashboard": {"enabled": True}})["dashboard.yaml"])
    found: dict[str, Any] = json.loads(config_map["data"]["remit.json"])
    return found


def test_both_are_scraped_with_their_tokens(stage: Stage) -> None:
    def up() -> dict[str, str]:
        found = stage.prometheus.get("targets")
        return {each["labels"]["job"]: each["lastError"] or each["health"] for each in found["activeTargets"]}

    both = {"remit": "up", "remit-control-plane": "up"}
    until(lambda: "unknown" not in up().values(), "the first scrapes")
    assert up() == both
    posted = 'sum(apiserver_request_total{job="remit-control-plane",verb="POST",resource="executiontasks",code="201"})'
    until(lambda: stage.prometheus.query(posted) == [2 * len(TASKS)], "the requests that created the tasks")


def test_every_panel_of_the_dashboard_has_what_it_asks_for(stage: Stage) -> None:
    found = dashboard()
    chosen = {"$__rate_interval": "5m"}
    for variable in found["templating"]["list"][1:]:  # as Grafana fills them
        _, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        values = stage.prometheus.get(f"label/{label}/values", **{"match[]": "remit_build_info"})
        chosen[f"${variable['name']}"] = f"({'|'.join(values)})"
    assert chosen == {"$__rate_interval": "5m", "$namespace": "(local)", "$job": "(remit)"}
    queries = [target["expr"] for panel in found["panels"] for target in panel.get("targets", ())]
    empty = set()
    for query in queries:
        asked = query
        for name, value in chosen.items():
            asked = asked.replace(name, value)
        if not stage.prometheus.query(asked):
            empty.add(query)
    unexpected = [query for query in empty if not WITHOUT_DATA & {*re.findall(r"\bremit_\w+", query)}]
    assert unexpected == []
    assert len(queries) - len(empty) > 30


def test_an_exemplar_leads_from_a_bucket_to_a_task(stage: Stage) -> None:
    series = stage.prometheus.get(
        "query_exemplars", query="remit_task_duration_seconds_bucket", start="0", end="99999999999"
    )
    traces = {exemplar["labels"]["trace_id"] for each in series for exemplar in each["exemplars"]}
    tasks = stage.up.read("executiontasks")["items"]
    assert traces
    assert traces <= {task["metadata"]["uid"].replace("-", "") for task in tasks}


def test_an_alert_fires_and_reaches_the_alertmanager(stage: Stage) -> None:
    rules = [rule for group in stage.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert {rule["type"] for rule in rules} == {"alerting"}
    assert "RemitPolicyDenials" not in stage.alerts()
    refused = {f"refused-{number}": ["nobody-allows-this"] for number in range(DENIALS)}
    stage.up.kubectl("apply", "-f", "-", stdin=documents(refused))
    alert = until(lambda: stage.alerts().get("RemitPolicyDenials"), "the alert")
    assert alert["status"]["state"] == "active"
    assert (alert["labels"]["operation"], alert["labels"]["severity"]) == ("command", "warning")
    told = re.fullmatch(r"(\d+) times within ten minutes policy denied command\.", alert["annotations"]["description"])
    assert told
    assert 20 < int(told[1]) <= DENIALS + 2
    assert alert["annotations"]["runbook_url"].endswith("docs/runbooks.md#remitpolicydenials")
