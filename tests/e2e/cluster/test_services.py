"""What an installed operator does besides Jobs: operations of its own, schedules, releases."""

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
    """Its next minute may be a minute away, so it is asked for first."""
    installation.run("minutely", "echo", "tick", schedule={"cron": "* * * * *", "successfulRunsHistoryLimit": 1})


def test_an_http_request_is_made_of_a_pod(installation: Installation) -> None:
    port, other = installation.ports
    serve = f"mkdir /tmp/www; echo hello from a pod >/tmp/www/index.html; exec httpd -f -p {port} -h /tmp/www"
    address = installation.serve("web", clusters.busybox_image(), ("sh", "-c", serve), port)
    installation.task("fetched", http={"url": f"http://{address}:{port}/", "expectedStatus": [200]})
    installation.task("absent", http={"url": f"http://{address}:{port}/nowhere", "expectedStatus": [200]})
    installation.task("other-port", http={"url": f"http://{address}:{other}/"})

    fetched = installation.finished("fetched")
    assert (fetched["phase"], fetched["backend"]) == ("Succeeded", "operator"), fetched
    assert fetched["output"]["stdoutTail"] == "hello from a pod\n"
    assert installation.finished("absent")["phase"] == "Failed"
    assert installation.finished("other-port")["phase"] == "Denied"


def test_statements_are_run_by_a_database_in_a_pod(installation: Installation) -> None:
    port = installation.ports[1]
    variables = {"PASSWORD": PASSWORD, "PORT": str(port)}
    address = installation.serve("postgres", clusters.postgres_image(), ("sh", "/serve"), port, **variables)
    url = f"postgresql://admin:{PASSWORD}@{address}:{port}/postgres?sslmode=disable"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "database"}, "stringData": {"url": url}}
    installation.apply(secret)
    connection = {"name": "database", "key": "url"}
    sum_up = {"sql": "SELECT $1::int + $2::int AS sum", "parameters": ["40", "2"]}
    installation.task("summed", postgres={"connection": connection, "statements": [sum_up]})
    installation.task("dropped", postgres={"connection": connection, "statements": [{"sql": "DROP TABLE shop"}]})

    summed = installation.finished("summed")
    assert summed["phase"] == "Succeeded", summed
    assert '"sum":42' in summed["output"]["stdoutTail"].replace(" ", "")
    assert installation.finished("dropped")["phase"] == "Denied"


def test_a_task_goes_when_its_time_to_live_is_over(installation: Installation) -> None:
    installation.apply(command("brief", "echo", "bye", ttlSecondsAfterFinished=0))
    gone = ("wait", "-n", installation.namespace, "--for=delete", "executiontask/brief", "--timeout=85s")
    installation.kubectl.ok(*gone)


def test_a_release_goes_live_is_replaced_and_taken_back(installation: Installation) -> None:
    image = clusters.shop_image()

    def shop(version: str) -> None:
        installation.apply(release("shop", image, version))

    shop("v1")
    assert installation.live("shop", 1)["activeSlot"] == "blue"
    wait_until(lambda: installation.fetch("shop:80") == "v1", "the Service answers")
    shop("v2")
    assert installation.live("shop", 2)["activeSlot"] == "green"
    wait_until(lambda: installation.fetch("shop:80") == "v2", "the Service answers with the next one")
    ask = ("annotate", "-n", installation.namespace, "deployments.remit.dev/shop", ROLLBACK)
    installation.kubectl.ok(*ask)
    wait_until(lambda: installation.fetch("shop:80") == "v1", "the Service answers as before", seconds=90)
    gone = ("delete", "-n", installation.namespace, "deployments.remit.dev/shop", "--timeout=80s")
    installation.kubectl.ok(*gone)
    left = [each["metadata"]["name"] for each in installation.get("services")["items"]]
    assert [name for name in left if name.startswith("shop")] == []


def release(name: str, image: str, version: str) -> dict[str, Any]:
    spec = {
        "artifact": {"image": image, "pullPolicy": "Never"},
        "target": {"kubernetes": {}},
        "replicas": 2,
        "ports": [{"name": "http", "containerPort": clusters.PORT, "published": 80}],
        "env": [{"name": "VERSION", "value": version}],
        "healthCheck": {"http": {"path": "/healthz", "port": "http"}, "failureThreshold": 3},
        "strategy": {"blueGreen": {"scaleDownDelaySeconds": 0}},
        "stages": {"bakeSeconds": 0},
    }
    return {"apiVersion": API, "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def test_a_schedule_runs_at_its_minute(installation: Installation) -> None:
    def ticks() -> list[dict[str, Any]]:
        return list(installation.get("executiontasks", "-l", "remit.dev/schedule=minutely")["items"])

    def told() -> list[str]:
        return [task.get("status", {}).get("output", {}).get("stdoutTail", "") for task in ticks()]

    wait_until(lambda: "tick\n" in told(), "the next minute", seconds=120)
    patch = ("--type=merge", "-p", '{"spec": {"cancel": true}}')
    installation.kubectl.ok("patch", "-n", installation.namespace, "executiontask/minutely", *patch)
    assert installation.finished("minutely")["phase"] == "Cancelled"
