"""Tests the chart's alerts and dashboard: Prometheus accepts the rules, they fire exactly when they should, and their
metrics exist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import installyaml
import metricspage
from parts import promtool, require
from remit import safeyaml
from remit.cli.app import app

pytestmark = pytest.mark.no_cover

ROOT = installyaml.ROOT
RUNBOOKS = ROOT / "docs/runbooks.md"
OF_RELEASE = 'job="remit",namespace="remit-system"'
LABELS = "job", "namespace", "pod", "instance", "severity", "alertname", "le"
"""Labels that Prometheus adds to those of the metrics."""


@pytest.fixture(autouse=True)
def _helm() -> None:
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")


def rendered(**values: Any) -> dict[str, Any]:
    """Returns the spec of the PrometheusRule."""
    text = installyaml.render({"prometheusRule": {"enabled": True, **values}})["prometheusrule.yaml"]
    found: dict[str, Any] = safeyaml.load(text)["spec"]
    return found


def alerts(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"]}


def run_promtool(folder: Path, *words: str) -> str:
    """Returns promtool's error output; empty if there is none."""
    require("prometheus", promtool(), "apt-get install --no-install-recommends prometheus")
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, timeout=120)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@dataclass(frozen=True)
class Case:
    """After `minutes` with these series, one value a minute in promtool's notation, this number of alerts fires. `SELF`
    stands for the labels of an operator."""

    alert: str
    minutes: int
    fires: int
    series: dict[str, str]


SELF = f'{OF_RELEASE},pod="remit-0",instance="10.0.0.1:8080"'
STANDBY = f'{OF_RELEASE},pod="remit-1",instance="10.0.0.2:8080"'
ELSEWHERE = 'job="other",namespace="elsewhere",pod="x",instance="10.9.9.9:8080"'
UNUSUAL = "remit_task_unusual_total"
FINISHED, DENIED = "remit_task_finished_total", "remit_policy_decisions_total"
MISSING, TURNED = "remit_attempt_sandbox_layers_missing_total", "remit_release_rollbacks_total"
LIVE = f'{{{SELF},target="docker",side="live"}}'
CASES = [
    Case("RemitOperatorDown", 10, 0, {f"remit_leader{{{SELF}}}": "1x30"}),
    Case("RemitOperatorDown", 10, 1, {f"remit_leader{{{ELSEWHERE}}}": "1x30"}),
    Case("RemitOperatorDown", 20, 1, {f"remit_leader{{{SELF}}}": "1x5 stale"}),
    Case("RemitNoLeader", 10, 1, {f"remit_leader{{{SELF}}}": "0x30", f"remit_leader{{{STANDBY}}}": "0x30"}),
    Case("RemitNoLeader", 10, 0, {f"remit_leader{{{SELF}}}": "1x30", f"remit_leader{{{STANDBY}}}": "0x30"}),
    Case("RemitNoLeader", 10, 0, {f"remit_leader{{{SELF}}}": "1x3 0x2 1x30"}),
    Case(
        "RemitAuditUnavailable",
        10,
        1,
        {f"remit_audit_available{{{SELF}}}": "1x3 0x30", f"remit_leader{{{SELF}}}": "1x30"},
    ),
    Case(  # an operator that waits for the Lease has no audit trail
        "RemitAuditUnavailable",
        10,
        0,
        {
            f"remit_audit_available{{{SELF}}}": "1x30",
            f"remit_leader{{{SELF}}}": "1x30",
            f"remit_audit_available{{{STANDBY}}}": "0x30",
            f"remit_leader{{{STANDBY}}}": "0x30",
        },
    ),
    Case(
        "RemitAuditTruncated",
        10,
        1,
        {f"remit_audit_head_seq{{{SELF}}}": "90x5 80x30", f"remit_leader{{{SELF}}}": "1x30"},
    ),
    Case(  # after a restart the value is 0 until the operator leads and has read its trail
        "RemitAuditTruncated",
        7,
        0,
        {f"remit_audit_head_seq{{{SELF}}}": "90x5 0x3 95x30", f"remit_leader{{{SELF}}}": "1x5 0x3 1x30"},
    ),
    Case(
        "RemitStateDiskFillingUp",
        20,
        1,
        {
            f"remit_state_filesystem_free_bytes{{{SELF}}}": "9x30",
            f"remit_state_filesystem_size_bytes{{{SELF}}}": "100x30",
        },
    ),
    Case(
        "RemitStateDiskFillingUp",
        20,
        0,
        {
            f"remit_state_filesystem_free_bytes{{{SELF}}}": "11x30",
            f"remit_state_filesystem_size_bytes{{{SELF}}}": "100x30",
            f"remit_state_filesystem_free_bytes{{{STANDBY}}}": "0x30",  # not known yet
            f"remit_state_filesystem_size_bytes{{{STANDBY}}}": "0x30",
        },
    ),
    Case(
        "RemitReconcileStuck",
        15,
        1,
        {f'workqueue_longest_running_processor_seconds{{{SELF},name="deployment"}}': "0+60x30"},
    ),
    Case(
        "RemitReconcileStuck",
        15,
        0,
        {f'workqueue_longest_running_processor_seconds{{{SELF},name="deployment"}}': "200x30"},
    ),
    Case("RemitReconcileErrors", 25, 1, {f'remit_reconcile_errors_total{{{SELF},kind="Deployment"}}': "0+30x30"}),
    Case("RemitReconcileErrors", 25, 0, {f'remit_reconcile_errors_total{{{SELF},kind="Deployment"}}': "0+1x30"}),
    Case(
        "RemitApiErrors",
        25,
        1,
        {
            f'rest_client_requests_total{{{SELF},code="200",method="GET",host="h"}}': "0+100x30",
            f'rest_client_requests_total{{{SELF},code="<error>",method="GET",host="h"}}': "0+5x30",
            f'rest_client_requests_total{{{SELF},code="503",method="GET",host="h"}}': "0+5x30",
        },
    ),
    Case(
        "RemitApiErrors",
        25,
        0,
        {
            f'rest_client_requests_total{{{SELF},code="200",method="GET",host="h"}}': "0+100x30",
            f'rest_client_requests_total{{{SELF},code="409",method="GET",host="h"}}': "0+50x30",
            f'rest_client_requests_total{{{SELF},code="500",method="GET",host="h"}}': "0+1x30",
        },
    ),
    Case(
        "RemitTasksFailing",
        25,
        1,
        {
            f'{FINISHED}{{{SELF},operation="command",phase="Failed",reason="ExitCode"}}': "0+1x30",
            f'{FINISHED}{{{SELF},operation="command",phase="TimedOut",reason="Timeout"}}': "0+1x30",
            f'{FINISHED}{{{SELF},operation="command",phase="Succeeded",reason="Completed"}}': "0+1x30",
            f'{FINISHED}{{{SELF},operation="http",phase="Succeeded",reason="Completed"}}': "0+100x30",
        },
    ),
    Case(
        "RemitTasksFailing",
        25,
        0,
        {
            f'{FINISHED}{{{SELF},operation="command",phase="Failed",reason="ExitCode"}}': "0+1x30",
            f'{FINISHED}{{{SELF},operation="command",phase="Succeeded",reason="Completed"}}': "0+3x30",
            f'{FINISHED}{{{SELF},operation="http",phase="Denied",reason="NoPolicy"}}': "0+100x30",
        },
    ),
    Case("RemitTasksUnusual", 20, 1, {f'{UNUSUAL}{{{SELF},quantity="Memory"}}': "0x10 1x30"}),
    Case("RemitTasksUnusual", 20, 1, {f'{UNUSUAL}{{{SELF},quantity="Memory"}}': "_x5 0x8 1x30"}),
    Case("RemitTasksUnusual", 90, 0, {f'{UNUSUAL}{{{SELF},quantity="Memory"}}': "0x10 1x120"}),
    Case("RemitTasksUnusual", 20, 0, {f'{UNUSUAL}{{{SELF},quantity="Memory"}}': "5x30"}),
    Case(
        "RemitQueueStuck",
        40,
        1,
        {
            f'remit_tasks_queued{{{SELF},reason="OperatorCapacity"}}': "5x60",
            f"remit_task_queue_seconds_count{{{SELF}}}": "0+1x5 5x60",
        },
    ),
    Case(
        "RemitQueueStuck",
        40,
        0,
        {
            f'remit_tasks_queued{{{SELF},reason="OperatorCapacity"}}': "5x60",
            f"remit_task_queue_seconds_count{{{SELF}}}": "0+1x60",
        },
    ),
    Case(
        "RemitPolicyDenials",
        20,
        1,
        {f'{DENIED}{{{SELF},decision="Denied",kind="ExecutionTask",operation="http"}}': "0+3x30"},
    ),
    Case(  # a burst before the first scrape of the counter
        "RemitPolicyDenials",
        20,
        1,
        {f'{DENIED}{{{SELF},decision="Denied",kind="ExecutionTask",operation="http"}}': "_x15 40x30"},
    ),
    Case(  # fifteen, which are not counted twice because the counter is new
        "RemitPolicyDenials",
        20,
        0,
        {f'{DENIED}{{{SELF},decision="Denied",kind="ExecutionTask",operation="http"}}': "_x15 1 8 15x30"},
    ),
    Case(
        "RemitPolicyDenials",
        20,
        0,
        {
            f'{DENIED}{{{SELF},decision="Denied",kind="ExecutionTask",operation="http"}}': "0+1x30",
            f'{DENIED}{{{SELF},decision="Allowed",kind="ExecutionTask",operation="http"}}': "0+90x30",
        },
    ),
    Case("RemitSandboxLayersMissing", 20, 1, {f'{MISSING}{{{SELF},layer="landlock"}}': "_x18 1x30"}),
    Case("RemitSandboxLayersMissing", 20, 0, {f'{MISSING}{{{SELF},layer="landlock"}}': "1x30"}),
    Case("RemitNotificationsFailing", 20, 1, {f'remit_notifications_failing{{{SELF},receiver="chat"}}': "1x30"}),
    Case("RemitNotificationsFailing", 20, 0, {f'remit_notifications_failing{{{SELF},receiver="chat"}}': "1x9 0x30"}),
    Case("RemitCircuitOpen", 20, 1, {f'remit_circuits_open{{{SELF},operation="http"}}': "2x30"}),
    Case("RemitCircuitOpen", 20, 0, {f'remit_circuits_open{{{SELF},operation="http"}}': "1x10 0x30"}),
    Case("RemitReleaseRolledBack", 20, 1, {f'{TURNED}{{{SELF},strategy="Canary",reason="BakeFailed"}}': "_x18 1x30"}),
    Case("RemitReleaseRolledBack", 20, 1, {f'{TURNED}{{{SELF},strategy="Canary",reason="BakeFailed"}}': "1x10 2x30"}),
    Case("RemitReleaseRolledBack", 20, 0, {f'{TURNED}{{{SELF},strategy="Canary",reason="BakeFailed"}}': "2x30"}),
    Case(
        "RemitReleaseRolledBack",
        20,
        0,
        {f'{TURNED}{{{SELF},strategy="Canary",reason="RollbackRequested"}}': "_x18 1x30"},
    ),
    Case(
        "RemitReleaseRolledBack",
        20,
        0,
        {f'{TURNED}{{{SELF},strategy="Canary",reason="RollbackRequested"}}': "1x10 2x30"},
    ),
    Case("RemitReleaseWaiting", 80, 1, {f'remit_deployments{{{SELF},phase="AwaitingPromotion"}}': "1x90"}),
    Case("RemitReleaseWaiting", 50, 0, {f'remit_deployments{{{SELF},phase="AwaitingPromotion"}}': "1x90"}),
    Case("RemitDeploymentFailed", 20, 1, {f'remit_deployments{{{SELF},phase="Degraded"}}': "1x30"}),
    Case("RemitDeploymentFailed", 20, 0, {f'remit_deployments{{{SELF},phase="Healthy"}}': "9x30"}),
    Case(
        "RemitInstancesNotReady",
        20,
        1,
        {f"remit_deployment_instances_desired{LIVE}": "3x30", f"remit_deployment_instances_ready{LIVE}": "2x30"},
    ),
    Case(
        "RemitInstancesNotReady",
        20,
        0,
        {f"remit_deployment_instances_desired{LIVE}": "3x30", f"remit_deployment_instances_ready{LIVE}": "2x5 3x30"},
    ),
    Case("RemitInstancesRestarting", 20, 1, {f"remit_deployment_instance_restarts_total{{{SELF}}}": "0+1x30"}),
    Case("RemitInstancesRestarting", 20, 0, {f"remit_deployment_instance_restarts_total{{{SELF}}}": "0x15 2x30"}),
]


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    spec = rendered()
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    tests = [
        {
            "interval": "1m",
            "name": f"{case.alert}: {case.series}",
            "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) or vector(0)',
                    "eval_time": f"{case.minutes}m",
                    "exp_samples": [{"labels": "{}", "value": case.fires}],
                }
            ],
        }
        for case in CASES
    ]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    assert run_promtool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml") == ""
    assert run_promtool(tmp_path, "test", "rules", "test.yaml") == ""
    for fires in (0, 1):
        assert {case.alert for case in CASES if case.fires == fires} == alerts(spec).keys()


def test_what_alerts_say_has_the_values_in_it(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rendered(runbookURL="https://runbooks.example/remit")))
    expected = {
        "exp_labels": {"operation": "http", "severity": "warning"},
        "exp_annotations": {
            "summary": "Policy denies much at once.",
            "description": "30 times within ten minutes policy denied http.",
            "runbook_url": "https://runbooks.example/remit#remitpolicydenials",
        },
    }
    series = {"series": f'{DENIED}{{{SELF},decision="Denied",operation="http"}}', "values": "0+3x30"}
    test = {
        "interval": "1m",
        "input_series": [series],
        "alert_rule_test": [{"eval_time": "20m", "alertname": "RemitPolicyDenials", "exp_alerts": [expected]}],
    }
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    assert run_promtool(tmp_path, "test", "rules", "test.yaml") == ""


def test_every_alert_has_a_runbook_that_explains_what_to_do() -> None:
    pages = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS.read_text(), re.M | re.S))
    found = alerts(rendered())
    assert [*pages] == [*found], "one for each, in the order of the alerts"
    for name, rule in found.items():
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert all(f"**{part}**: " in pages[name] for part in ("Means", "Look", "Do")), name


def test_runbooks_name_commands_that_exist() -> None:
    named = set(re.findall(r"`remit ([a-z]+)", RUNBOOKS.read_text()))
    assert named
    assert named <= typer.main.get_command(app).commands.keys()  # type: ignore[attr-defined]


def test_alerts_can_be_left_out_and_meant_for_other_series() -> None:
    everything = alerts(rendered())
    assert alerts(rendered(disabled=["RemitCircuitOpen"])).keys() == everything.keys() - {"RemitCircuitOpen"}
    other = alerts(rendered(selector='cluster="a"'))
    assert other["RemitNoLeader"]["expr"] == 'max(remit_leader{cluster="a"}) == 0'
    of_operator = [name for name, rule in everything.items() if OF_RELEASE not in rule["expr"]]
    assert not of_operator
    off = installyaml.render()
    assert not off["prometheusrule.yaml"].strip()
    assert not off["dashboard.yaml"].strip()


def dashboard() -> dict[str, Any]:
    config_map = safeyaml.load(installyaml.render({"dashboard": {"enabled": True}})["dashboard.yaml"])
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    ((name, text),) = config_map["data"].items()
    assert name == "remit.json"
    found: dict[str, Any] = json.loads(text)
    return found


def dashboard_queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_alerts_and_the_dashboard_ask_for_metrics_and_labels_that_exist() -> None:
    families = metricspage.operator()
    labels = {series: {*family.labels, *LABELS} for family in families for series in family.series}
    queries = [*dashboard_queries(), *(rule["expr"] for rule in alerts(rendered()).values())]
    assert len(queries) > 50
    used = set()
    for query in queries:
        found = re.findall(r"\b((?:remit|workqueue|leader_election|rest_client)_\w+)(?:\{([^}]*)\})?", query)
        assert found, query
        for name, matchers in found:
            assert name in labels, f"{name} in {query}"
            asked = {*re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", matchers)}
            grouped = {word for by in re.findall(r"by \(([^)]*)\)", query) for word in by.split(", ")}
            assert asked <= labels[name], f"{asked} in {query}"
            assert grouped <= labels[name], f"{grouped} in {query}"
            used.add(name)
    unseen = {family.name for family in families if not used & {*family.series}}
    assert unseen == {
        "remit_api_writes_total",
        "remit_audit_records_total",
        "remit_sandbox_layer_available",
        "leader_election_master_status",
        "leader_election_slowpath_total",
        "workqueue_adds_total",
        "workqueue_work_duration_seconds",
        "workqueue_unfinished_work_seconds",
        "workqueue_retries_total",
    }, "whoever adds a metric decides whether the dashboard shows it"


def test_prometheus_understands_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    given = {"$__rate_interval": "5m", "$job": "remit", "$namespace": "remit-system"}
    rules = []
    for number, query in enumerate(dashboard_queries()):
        for name, value in given.items():
            query = query.replace(name, value)
        assert "$" not in query
        rules.append({"record": f"panel:{number}", "expr": query})
    groups = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    assert run_promtool(tmp_path, "check", "rules", "rules.yaml") == ""


def test_panels_do_not_cover_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_token_for_metrics_is_mounted_and_given_to_prometheus() -> None:
    values = {"metrics": {"tokenSecret": {"name": "scrape", "key": "bearer"}}, "serviceMonitor": {"enabled": True}}
    texts = installyaml.render(values)
    (endpoint,) = safeyaml.load(texts["servicemonitor.yaml"])["spec"]["endpoints"]
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": {"name": "scrape", "key": "bearer"}}
    pod = safeyaml.load(texts["deployment.yaml"])["spec"]["template"]["spec"]
    (operator,) = pod["containers"]
    (mount,) = [each for each in operator["volumeMounts"] if each["name"] == "metrics-token"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "metrics-token"]
    assert volume["secret"] == {"secretName": "scrape", "items": [{"key": "bearer", "path": "token"}]}
    assert f"--metrics-token-file={mount['mountPath']}/token" in operator["args"]
    assert mount["readOnly"]
    assert "metrics-token" not in installyaml.render()["deployment.yaml"]
