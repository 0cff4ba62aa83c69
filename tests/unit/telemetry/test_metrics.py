import re

from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from remit.telemetry.metrics import Metrics


def test_what_is_exposed_follows_the_conventions():
    metrics = Metrics(version="1.2.3")
    metrics.task_finished.labels("command", "process", "Succeeded", "Completed", "").inc()
    metrics.task_duration.labels("command", "process").observe(0.2)
    metrics.task_queue.observe(0.01)
    metrics.tasks_running.labels("process").inc()
    metrics.tasks_queued.labels("PolicyRate").set(3)
    metrics.policy_decisions.labels("Denied", "ExecutionTask", "command").inc()
    metrics.api_writes.labels("patch", "ExecutionTask").inc()
    metrics.workqueue_depth.labels("executiontask").set(7)
    metrics.reconcile_errors.labels("ExecutionTask").inc()
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["remit_task_finished_total", "", "Completed", "Succeeded", "command", "process"] == 1
    assert samples["remit_task_duration_seconds_sum", "command", "process"] == 0.2
    assert samples["remit_task_queue_seconds_count",] == 1
    assert samples["remit_tasks_running", "process"] == 1
    assert samples["remit_tasks_queued", "PolicyRate"] == 3
    assert samples["remit_policy_decisions_total", "Denied", "ExecutionTask", "command"] == 1
    assert samples["remit_api_writes_total", "ExecutionTask", "patch"] == 1
    assert samples["workqueue_depth", "executiontask"] == 7
    assert samples["remit_reconcile_errors_total", "ExecutionTask"] == 1
    assert any(key[0] == "remit_build_info" and "1.2.3" in key for key in samples)
    assert "process_cpu_seconds_total" in {key[0] for key in samples}


def test_names_and_types_are_those_that_prometheus_advises():
    """Counters end with `_total`, measurements have their base unit, and no label is a unit or a type."""
    for family in text_string_to_metric_families(Metrics().render()[0].decode()):
        if family.name.endswith("_created"):
            continue
        name = family.name + "_total" * (family.type == "counter")
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert family.documentation, name
        assert family.type in {"counter", "gauge", "histogram"}, name
        assert not re.search(r"_(total|count|sum|bucket|gauge|counter|milliseconds|ms|kb|mb|percent)$", family.name)
        assert (family.type != "histogram") or family.name.endswith(("_seconds", "_bytes")), name
    falling = [metric for metric in vars(Metrics()).values() if isinstance(metric, Gauge)]
    assert not [gauge for gauge in falling if "since the start" in gauge._documentation], "it never falls: a counter"


def test_two_operators_in_one_process_do_not_share_numbers():
    first, second = Metrics(), Metrics()
    first.tasks_queued.labels("PolicyRate").set(5)
    assert b"remit_tasks_queued{" not in second.render()[0]


def test_openmetrics_is_given_to_who_asks():
    _, content_type = Metrics().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
