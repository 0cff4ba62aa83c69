"""Tests what an installed operator does besides Jobs: operations that it performs itself, schedules, releases."""

from __future__ import annotations

from typing import Any

import pytest

import clusters
from e2e.cluster.installation import API, Installation, command
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROLLBACK = "remit.dev/request=rollback"
PASSWORD = "s3cret-of-a-database"


@pytest.fixture(scope="module", autouse=True)
def minutely(installation: Installation) -> None:
    """Created first, because its next minute may be a minute away."""
    installation.run("minutely", "sh", "-c", "echo begun; sleep 600", schedule={"cron": "* * * * *"})


def test_an_http_request_is_made_of_a_pod(installation: Installation) -> None:
    port, other = installation.ports
    serve = f"mkdir /tmp/www; echo hello from a pod >/tmp/www/index.html; exec httpd -f -p {port} -h /tmp/www"
    with installation.serve("web", clusters.busybox_image(), ("sh", "-c", serve), port) as address:
        installation.task("fetched", http={"url": f"http://{address}:{port}/", "expectedStatus": [200]})
        installation.task("absent", http={"url": f"http://{address}:{port}/nowhere", "expectedStatus": [200]})
        installation.task("other-port", http={"url": f"http://{address}:{other}/"})
        fetched, absent, denied = (installation.finished(name) for name in ("fetched", "absent", "other-port"))

    assert (fetched["phase"], fetched["backend"]) == ("Succeeded", "operator"), fetched
    assert fetched["output"]["stdoutTail"] == "hello from a pod\n"
    assert absent["phase"] == "Failed"
    assert denied["phase"] == "Denied"


def test_statements_are_run_by_a_database_in_a_pod(installation: Installation) -> None:
    port = installation.ports[1]
    variables = {"PASSWORD": PASSWORD, "PORT": str(port)}
    connection = {"name": "database", "key": "url"}
    sum_up = {"sql": "SELECT $1::int + $2::int AS sum", "parameters": ["40", "2"]}
    with installation.serve("postgres", clusters.postgres_image(), ("sh", "/serve"), port, **variables) as address:
        url = f"postgresql://admin:{PASSWORD}@{address}:{port}/postgres?sslmode=disable"
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "database"}, "stringData": {"url": url}}
        installation.apply(secret)
        installation.task("summed", postgres={"connection": connection, "statements": [sum_up]})
        installation.task("dropped", postgres={"connection": connection, "statements": [{"sql": "DROP TABLE shop"}]})
        summed, dropped = installation.finished("summed"), installation.finished("dropped")

    assert summed["phase"] == "Succeeded", summed
    assert '"sum":42' in summed["output"]["stdoutTail"].replace(" ", "")
    assert dropped["phase"] == "Denied"


def test_a_task_goes_when_its_time_to_live_is_over(installation: Installation) -> None:
    installation.apply(command("brief", "echo", "bye", ttlSecondsAfterFinished=0))
    gone = ("wait", "-n", installation.namespace, "--for=delete", "executiontask/brief", "--timeout=85s")
    installation.kubectl.ok(*gone)


def test_a_release_goes_live_is_replaced_and_taken_back(installation: Installation) -> None:
    image = clusters.shop_image()

    def shop(version: str, **changes: Any) -> None:
        installation.apply(release("shop", image, version, **changes))

    shop("v1")
    assert installation.live("shop", 1)["activeSlot"] == "blue"
    wait_until(lambda: installation.fetch("shop:80") == "v1", "the Service answers")
    shop("v2")
    assert installation.live("shop", 2)["activeSlot"] == "green"
    wait_until(lambda: installation.fetch("shop:80") == "v2", "the Service answers with the next one")
    ask = ("annotate", "-n", installation.namespace, "deployments.remit.dev/shop", ROLLBACK)
    installation.kubectl.ok(*ask)
    wait_until(lambda: installation.fetch("shop:80") == "v1", "the Service answers as before", seconds=90)
    half = {"type": "Canary", "canary": {"steps": [{"weight": 30, "pauseSeconds": 1}]}}
    shop("v3", strategy=half)
    wait_until(lambda: installation.fetch("shop:80") == "v3", "the Service answers after a share", seconds=90)
    installation.live("shop", 3)
    gone = ("delete", "-n", installation.namespace, "deployments.remit.dev/shop", "--timeout=80s")
    installation.kubectl.ok(*gone)
    left = [each["metadata"]["name"] for each in installation.get("services")["items"]]
    assert [name for name in left if name.startswith("shop")] == []


def release(name: str, image: str, version: str, **changes: Any) -> dict[str, Any]:
    spec = {
        "artifact": {"image": image, "pullPolicy": "Never"},
        "target": {"kubernetes": {}},
        "replicas": 2,
        "ports": [{"name": "http", "containerPort": clusters.PORT, "published": 80}],
        "env": [{"name": "VERSION", "value": version}],
        "healthCheck": {"http": {"path": "/healthz", "port": "http"}, "failureThreshold": 3},
        "strategy": {"blueGreen": {"scaleDownDelaySeconds": 0}},
        "stages": {"bakeSeconds": 0},
        **changes,
    }
    return {"apiVersion": API, "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_a_schedule_runs_at_its_minute_until_it_is_cancelled(installation: Installation) -> None:
    def runs() -> list[dict[str, Any]]:
        return list(installation.get("executiontasks", "-l", "remit.dev/schedule=minutely")["items"])

    wait_until(runs, "the next minute", seconds=120)
    name = runs()[0]["metadata"]["name"]
    installation.running(name)
    patch = ("--type=merge", "-p", '{"spec": {"cancel": true}}')
    installation.kubectl.ok("patch", "-n", installation.namespace, "executiontask/minutely", *patch)
    assert installation.finished("minutely")["phase"] == "Cancelled"
    assert installation.finished(name)["phase"] == "Cancelled"


def test_a_ceiling_holds_for_the_served_namespace(installation: Installation) -> None:
    kubectl, system = installation.kubectl, installation.system

    def ceiling(pattern: str) -> None:
        allow = [{"executable": "sh", "args": ["-c", pattern]}]
        spec = {"selector": {}, "networks": ["host"], "commands": {"allow": allow}}
        body = {"apiVersion": API, "kind": "CommandPolicy", "metadata": {"name": "ceiling"}, "spec": spec}
        kubectl.ok("apply", "-n", system, "-f", "-", given=body)

    ceiling("true")
    try:
        kubectl.ok("wait", "-n", system, "--for=condition=Ready", "commandpolicy/ceiling", "--timeout=60s")
        installation.run("below", "sh", "-c", "true")
        installation.run("above", "echo", "too much")
        assert installation.finished("above")["phase"] == "Denied"
        assert installation.finished("below")["phase"] == "Succeeded"
        ceiling("(")
        kubectl.ok("wait", "-n", system, "--for=condition=Ready=False", "commandpolicy/ceiling", "--timeout=60s")
        about = ("get", "events", "-n", system, "--field-selector=involvedObject.name=ceiling", "-o", "name")
        wait_until(lambda: kubectl.ok(*about), "an Event about the ceiling")
    finally:
        kubectl.ok("delete", "-n", system, "commandpolicy/ceiling")
