"""Tasks of an installed chart run as Jobs."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.cluster.conftest import Installation
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
WAITS = "echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; echo ended"


@pytest.fixture(scope="module", autouse=True)
def policy(installation: Installation) -> None:
    installation.apply(
        {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "CommandPolicy",
            "metadata": {"name": "tests"},
            "spec": {
                "selector": {},
                "networks": ["none", "host"],
                "commands": {"allow": [{"executable": "echo"}, {"executable": "sh", "args": ["-c", "(?s).*"]}]},
            },
        }
    )


def test_a_task_that_is_allowed_runs(installation: Installation) -> None:
    installation.run("hello", "echo", "hello from a Job")

    status = installation.finished("hello")
    assert status["phase"] == "Succeeded", status
    assert status["output"]["stdoutTail"] == "hello from a Job\n"


def test_a_task_that_no_rule_allows_is_denied(installation: Installation) -> None:
    installation.run("denied", "cat", "/etc/passwd")

    status = installation.finished("denied")
    assert status["phase"] == "Denied"
    assert jobs(installation, "denied") == []


def test_a_job_goes_on_while_its_operator_is_replaced(installation: Installation) -> None:
    kubectl, system = installation.kubectl, installation.system
    installation.run("long", "sh", "-c", WAITS)
    kubectl.ok(
        "wait",
        "-n",
        installation.namespace,
        "--for=jsonpath={.status.phase}=Running",
        "executiontask/long",
        "--timeout=60s",
    )
    wait_until(lambda: jobs(installation, "long"), "there is a Job")
    (before,) = jobs(installation, "long")
    pod = f"job/{before['metadata']['name']}"
    wait_until(lambda: "o begun" in kubectl("logs", "-n", installation.namespace, pod).stdout, "the program runs")

    operator = kubectl.ok("get", "pods", "-n", system, "-o", "name").split()
    kubectl.ok("delete", "-n", system, *operator)
    kubectl.ok("rollout", "status", "-n", system, f"deployment/{installation.release}", "--timeout=60s")

    (after,) = jobs(installation, "long")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    kubectl.ok("exec", "-n", installation.namespace, pod, "--", "touch", "/tmp/go")
    status = installation.finished("long")
    assert status["phase"] == "Succeeded"
    assert status["output"]["stdoutTail"] == "begun\nended\n"
    assert len(status["attempts"]) == 1


def jobs(installation: Installation, task: str) -> list[dict[str, Any]]:
    found = installation.get("jobs", "-l", "app.kubernetes.io/managed-by=remit")["items"]
    return [job for job in found if job["metadata"]["annotations"].get("remit.dev/task") == task]
