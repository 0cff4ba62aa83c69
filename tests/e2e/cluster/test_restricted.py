"""Tests Jobs with a restricted network: what they reach, and what happens without their operator or their gateway."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster.conftest import WAITS
from e2e.cluster.installation import Installation, Status, command
from e2e.cluster.network import listed_server
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FETCH = """import sys, urllib.request as r
opener = r.build_opener(r.ProxyHandler({})) if "direct" in sys.argv else r.build_opener()
try:
    print(opener.open(sys.argv[1], timeout=20).read().decode().strip())
except OSError as error:
    print("failed:", error)
"""
GET = f"python -c {shlex.quote(f'exec({json.dumps(FETCH)})')} http://".replace("{", "{{").replace("}", "}}") + "{}"
"""On one line, because a command must be one line."""
GATEWAYS = "app.kubernetes.io/component=egress-gateway"


@pytest.fixture(scope="module")
def web(installation: Installation) -> Iterator[str]:
    installation.upgrade(acceptUnenforcedNetwork=True)  # and with the default image, which contains Python
    with listed_server(installation, "named.invalid") as place:
        yield place


def restricted(installation: Installation, name: str, script: str, **spec: Any) -> None:
    """Runs a script in the operator's image, which contains Python."""
    installation.apply(command(name, "sh", "-c", script, network="restricted", **spec))


def is_held(status: Status) -> bool:
    by = status["sandbox"]["limits"]["network"]
    assert by == "not enforced" or by.startswith("NetworkPolicy remit-network-restricted")
    return bool(by != "not enforced")


def gateway_of(installation: Installation, name: str) -> dict[str, Any]:
    """Returns the pod of the gateway of a task."""
    job = installation.jobs(name)[0]["metadata"]["name"].removesuffix("-egress")
    pods = installation.get("pods", "-l", f"{GATEWAYS},batch.kubernetes.io/job-name={job}-egress")["items"]
    (pod,) = pods
    found: dict[str, Any] = pod
    return found


def test_what_is_listed_answers_and_the_rest_is_refused_with_the_reason(installation: Installation, web: str) -> None:
    tries = [
        web,
        f"{web.partition(':')[0]}:1/",
        f"named.invalid:{web.partition(':')[2]}/",
        "169.254.169.254/latest/meta-data",
        "10.96.0.1:443/",
        "evil.invalid/",
    ]
    directly = f"echo directly; {GET.format(web)} direct"
    restricted(installation, "listed", "; ".join([*(GET.format(each) for each in tries), directly]))
    status = installation.finished("listed")
    said, _, directly = status["output"]["stdoutTail"].partition("directly\n")
    assert said.startswith("page\n"), status
    assert said.count("failed") == len(tries) - 1, said
    for why in ("port 1 of", "named.invalid", "names 169.254.169.254", "names 10.96.0.1", "names evil.invalid"):
        assert why in said
    assert ("page" in directly) is not is_held(status)
    used = status["attempts"][0]["network"]
    assert (used["connections"], used["denied"]) == (1, 4), used
    assert (used["sentBytes"] > 0, used["receivedBytes"] > 0) == (True, True)
    assert "names evil.invalid" in used["lastDenied"]
    wait_until(lambda: installation.get("pods", "-l", GATEWAYS)["items"] == [], "the gateway is gone")
    assert [each for each in installation.get("networkpolicies")["items"] if "attempt" in str(each["metadata"])] == []


def test_it_goes_on_without_its_operator_and_all_of_it_is_counted(installation: Installation, web: str) -> None:
    restricted(installation, "orphaned", f"{GET.format(web)}; {WAITS}; {GET.format(web)}")
    job = running(installation, "orphaned")
    address = gateway_of(installation, "orphaned")["status"]["podIP"]
    installation.kill()

    stranger = f"http_proxy=http://{address}:3128 {GET.format(web)}"
    installation.run("stranger", "sh", "-c", stranger)
    other = installation.finished("stranger")["output"]["stdoutTail"]
    installation.let_go(job)
    status = installation.finished("orphaned")
    assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
    assert status["output"]["stdoutTail"] == "page\nbegun\nended\npage\n"
    used = status["attempts"][0]["network"]
    assert (used["connections"], used["denied"]) == (2, 0), used
    assert "page" not in other
    assert is_held(status) or "Error 407" in other, other


def running(installation: Installation, name: str) -> dict[str, Any]:
    """Returns the Job of a task whose program has printed `begun`, which is not the Job of its gateway."""

    def begun() -> list[dict[str, Any]]:
        jobs = [job for job in installation.jobs(name) if not job["metadata"]["name"].endswith("-egress")]
        said = [
            installation.kubectl("logs", "-n", installation.namespace, f"job/{job['metadata']['name']}").stdout
            for job in jobs
        ]
        return [job for job, text in zip(jobs, said, strict=True) if "o begun" in text]

    wait_until(begun, f"the program of {name}", seconds=90)
    (job,) = begun()
    return job


def test_it_does_not_outlive_its_gateway(installation: Installation, web: str) -> None:
    restricted(installation, "cut-off", WAITS)
    running(installation, "cut-off")
    gateway = gateway_of(installation, "cut-off")["metadata"]["name"]
    installation.kubectl.ok("delete", "-n", installation.namespace, f"pod/{gateway}", "--wait=false")
    status = installation.finished("cut-off")
    assert status["attempts"][-1]["reason"] == "GatewayLost", status
    wait_until(lambda: installation.jobs("cut-off") == [], "both Jobs are gone")
