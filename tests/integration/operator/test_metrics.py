"""Tests the metrics of a whole Remit after it has performed all kinds of work."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import metricspage
from parts import promtool, require
from remit.controllers.operator import Operator
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, TASKS

from .conftest import World, truth
from .test_releases import Shop, shop  # noqa: F401  # a fixture

PREFIXES = ("remit_", "workqueue_", "leader_election_", "rest_client_", "apiserver_")


async def operator_text(operator: Operator, accept: str = "") -> str:
    url = f"http://127.0.0.1:{operator.health.port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Accept": accept}) as answer:
        assert answer.status == 200
        return await answer.text()


async def control_plane_text(world: World, token: str | None = None) -> tuple[int, str]:
    access = world.kube.access
    headers = {"Authorization": token if token is not None else await access.authorization() or ""}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{access.server}/metrics", headers=headers, ssl=access.ssl_context() or True) as answer,
    ):
        return answer.status, await answer.text()


def samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(text: str, name: str, **labels: str) -> float:
    """Returns the sum of matching series; labels that are not named may have any value."""
    return sum(s.value for s in samples(text) if s.name == name and labels.items() <= s.labels.items())


def check_reference(text: str, families: list[metricspage.Family]) -> None:
    """Asserts that names, types and labels of a scrape match the page, and that nothing of the page is missing."""
    found = {
        family.name + "_total" * (family.type == "counter"): family
        for family in text_string_to_metric_families(text)
        if family.name.startswith(PREFIXES) and not family.name.endswith("_created")
    }
    assert {name: family.type for name, family in found.items()} == {each.name: each.type for each in families}
    for each in families:
        for sample in found[each.name].samples:
            assert {*sample.labels} - {"le"} == {*each.labels}, sample


def lint(text: str) -> None:
    require("prometheus", promtool(), "apt-get install --no-install-recommends prometheus")
    verdict = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


async def scraped(operator: Operator, *conditions: Any) -> str:
    """Returns a scrape for which all conditions hold. It polls, because status is written before it is counted."""
    async with asyncio.timeout(60):
        while True:
            text = await operator_text(operator)
            if all(condition(text) for condition in conditions):
                return text
            await asyncio.sleep(0.05)


async def test_tasks_are_seen_in_a_scrape_that_the_page_and_promtool_know(world: World) -> None:
    await world.policy("sh", "true")
    async with world.operator() as operator:
        script = "head -c 1000 /dev/zero; head -c 10 /dev/zero >&2; exit 3"
        failing = await world.sh(script, retry={"maxRetries": 2, "backoffSeconds": 1})
        names = [await world.task("true"), failing, await world.task("denied"), await world.sh("sleep 60")]
        for name in names[:3]:
            await world.finished(name)
        await world.phase(names[3], "Running")
        text = await scraped(operator, lambda text: value(text, "remit_attempt_duration_seconds_count") == 4)
        command = {"operation": "command", "backend": "process"}
        assert value(text, "remit_tasks") == 4
        for phase in ("Succeeded", "Failed", "Denied", "Running"):
            assert value(text, "remit_tasks", phase=phase) == 1, phase
        assert value(text, "remit_tasks_running", backend="process") == 1
        assert value(text, "remit_task_retries_total", **command, reason="ExitCode") == 2
        assert value(text, "remit_attempt_cpu_seconds_total", **command) > 0
        assert value(text, "remit_attempt_memory_peak_bytes_count", **command) >= 1
        assert value(text, "remit_attempt_output_bytes_total", **command, stream="stdout") == 3000
        assert value(text, "remit_attempt_output_bytes_total", **command, stream="stderr") == 30
        for decision, number in (("Allowed", 5), ("Denied", 1)):
            labels = {"decision": decision, "kind": "ExecutionTask", "operation": "command"}
            assert value(text, "remit_policy_decisions_total", **labels) == number
        assert value(text, "rest_client_requests_total", code="200", method="PATCH") >= 8
        assert value(text, "rest_client_request_duration_seconds_count", verb="PATCH") >= 8
        assert value(text, "remit_sandbox_layer_available", layer="namespaces") == 1
        assert value(text, "remit_audit_available") == 1
        assert 0 < value(text, "remit_state_filesystem_free_bytes") < value(text, "remit_state_filesystem_size_bytes")
        assert not any(name in text for name in names), "the name of a task"
        check_reference(text, metricspage.operator())
        lint(text)
        assert (await operator_text(operator, "application/openmetrics-text; version=1.0.0")).endswith("# EOF\n")
        await world.kube.delete(TASKS, "default", names[0])
        await scraped(operator, lambda text: value(text, "remit_tasks", phase="Succeeded") == 0)
    async with world.operator() as operator:  # the operator has listed the objects and counted nothing yet
        text = await operator_text(operator)
        assert value(text, "remit_tasks", phase="Denied") == 1
        assert value(text, "remit_tasks", phase="Failed") == 2, "one was interrupted"
        assert value(text, "remit_task_retries_total") == 0


async def test_releases_are_seen_in_a_scrape(world: World, shop: Shop) -> None:  # noqa: F811
    async with world.operator() as operator:
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2")  # the first release has nothing to switch
        await shop.live("v2")
        await shop.change("v3", "sick", progressDeadlineSeconds=2)
        await shop.until(lambda status: truth(status, "Stalled") == "True")
        text = await scraped(operator, lambda text: value(text, "remit_release_finished_total") == 3)
        blue_green = {"strategy": "BlueGreen"}
        assert value(text, "remit_release_finished_total", **blue_green, outcome="Promoted") == 2
        assert value(text, "remit_release_finished_total", **blue_green, outcome="Failed") == 1
        assert value(text, "remit_release_rollbacks_total", **blue_green) == 1
        assert value(text, "remit_release_stage_seconds_count", **blue_green, stage="Promote") == 2
        assert value(text, "remit_release_duration_seconds_count") == 3
        assert value(text, "remit_deployments") == 1
        live = {"target": "process", "side": "live"}
        assert value(text, "remit_deployment_instances_desired", **live) == 2
        assert value(text, "remit_deployment_instances_ready", **live) == 2
        await scraped(operator, lambda text: value(text, "remit_release_switch_seconds_count") == 1)
        assert value(text, "remit_policy_decisions_total", kind="Deployment", decision="Allowed") == 3
        check_reference(text, metricspage.operator())


async def test_a_deployment_that_policy_denies_is_counted_once(world: World) -> None:
    body = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["true"]}}},
    }
    async with world.operator() as operator:
        await world.kube.create(DEPLOYMENTS, "default", body)
        await world.until("shop", lambda status: "polic" in status.get("message", ""), DEPLOYMENTS)
        looks = value(await operator_text(operator), "remit_reconcile_duration_seconds_count", kind="Deployment")
        for number in range(3):  # each is one poll
            labels = {"metadata": {"labels": {"look": str(number)}}}
            await world.kube.patch(DEPLOYMENTS, "default", "shop", labels)
            looks += 1
            text = await scraped(
                operator,
                lambda text, least=looks: (
                    value(text, "remit_reconcile_duration_seconds_count", kind="Deployment") >= least
                ),
            )
        assert value(text, "remit_policy_decisions_total", kind="Deployment", decision="Denied") == 1


async def test_the_control_plane_has_metrics_of_its_own_behind_its_token(world: World) -> None:
    for token in ("", "Bearer wrong"):
        status, _ = await control_plane_text(world, token)
        assert status == 401
    await world.kube.list(TASKS)
    with pytest.raises(ApiError):
        await world.kube.request("GET", "/apis/made.up/v1/things")
    status, text = await control_plane_text(world)
    assert status == 200
    listed = {"verb": "LIST", "group": "remit.dev", "resource": "executiontasks", "scope": "cluster", "code": "200"}
    assert value(text, "apiserver_request_total", **listed) == 1
    assert value(text, "apiserver_request_total", code="401", verb="OTHER") == 2
    assert value(text, "apiserver_request_total", code="404", verb="GET", resource="") == 1
    assert "made.up" not in text
    del listed["code"]
    assert value(text, "apiserver_request_duration_seconds_count", **listed) == 1
    assert value(text, "apiserver_resource_objects", resource="customresourcedefinitions") == 3
    async with world.operator():
        async with asyncio.timeout(60):  # until its watches are open
            while value(text, "apiserver_longrunning_requests", resource="executiontasks", verb="WATCH") != 1:
                _, text = await control_plane_text(world)
    check_reference(text, metricspage.control_plane())
    lint(text)


async def test_metrics_can_ask_for_a_token(world: World, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-of-prometheus\n")

    async def get(path: str, **headers: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{operator.health.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            return answer.status, await answer.text()

    async with world.operator(metrics_token_file=file) as operator:
        wrong = ["", "Bearer", "Bearer ", "Bearer wrong", "Basic s3cret-of-prometheus", "s3cret-of-prometheus"]
        for authorization in wrong:
            status, text = await get("/metrics", Authorization=authorization)
            assert (status, "remit_" in text) == (401, False), authorization
        assert (await get("/metrics", Authorization="Bearer s3cret-of-prometheus"))[0] == 200
        assert (await get("/healthz"))[0] == 200
        file.write_text("another")
        assert (await get("/metrics", Authorization="Bearer s3cret-of-prometheus"))[0] == 401
        assert (await get("/metrics", Authorization="bearer another"))[0] == 200
        for content in ("", " \n", None):
            file.unlink() if content is None else file.write_text(content)
            status, text = await get("/metrics", Authorization="Bearer ")
            assert (status, str(file) in text) == (503, True), content
