"""Tests the network isolation of Jobs, on clusters that enforce NetworkPolicies and on clusters that do not.

A plugin may know of a pod some time after that has begun: until then no program is started that is to have no network.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from e2e.cluster.installation import Installation, Status, command
from e2e.cluster.network import SERVES, enforces_policies, listed_server
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROUNDS = 4
"""Number of rounds of tries, a second apart. The first round counts too."""
_TRIES = """import os, socket, sys, time
for number in range({rounds}):
    for place in {places}:
        host, port = place.rsplit(":", 1)
        try:
            socket.create_connection((os.path.expandvars(host), int(port)), 3).close()
            print(place, "reached", flush=True)
        except OSError:
            print(place, "held", flush=True)
    time.sleep(1)
"""
API = "$KUBERNETES_SERVICE_HOST:443"


@pytest.fixture(scope="module")
def enforced(installation: Installation) -> bool:
    """Determined by a pod of the test, not by Remit's own probe."""
    return enforces_policies(installation)


@pytest.fixture(scope="module")
def web(installation: Installation) -> Iterator[str]:
    with listed_server(installation) as place:
        yield place


def tries(*places: str, rounds: int = ROUNDS) -> str:
    """Returns a command that repeatedly tries to connect to each place and prints the results."""
    code = json.dumps(_TRIES.format(rounds=rounds, places=places))
    return f"python -c {shlex.quote(f'exec({code})')}"


def told(status: Status, place: str) -> set[str]:
    """Returns the results of the tries."""
    lines = [line.split() for line in status["output"]["stdoutTail"].splitlines() if line.startswith(place)]
    assert len(lines) == ROUNDS, status
    return {what for _, what in lines}


def held_or_refused(installation: Installation, name: str, enforced: bool, script: str, network: str) -> Status:
    """Returns the status of a task that ran. If nothing is enforced, asserts that it was refused, and runs another one
    after accepting that."""
    installation.upgrade()
    installation.run(name, "sh", "-c", script, network=network)
    status = installation.finished(name)
    if not enforced:
        assert status["attempts"][-1]["reason"] == "SandboxUnavailable", status
        assert "a pod that a NetworkPolicy allows no connection could connect" in status["message"]
        installation.upgrade(acceptUnenforcedNetwork=True)
        installation.run(f"{name}-open", "sh", "-c", script, network=network)
        status = installation.finished(f"{name}-open")
    assert status["phase"] == "Succeeded", status
    by: str = status["sandbox"]["limits"]["network"]
    assert by.startswith(f"NetworkPolicy remit-network-{network}" if enforced else "not enforced"), status
    return status


def test_no_network_is_none_or_refused(installation: Installation, enforced: bool, web: str) -> None:
    status = held_or_refused(installation, "unconnected", enforced, tries(web, API), "none")
    assert [told(status, web), told(status, API)] == [{"held" if enforced else "reached"}] * 2, status


def test_a_restricted_network_is_the_gateway_or_refused(installation: Installation, enforced: bool, web: str) -> None:
    fetch = f"python -c 'import urllib.request as r; print(r.urlopen(\"http://{web}/\").read().decode())'"
    status = held_or_refused(installation, "behind-gateway", enforced, f"{tries(web, API)}; {fetch}", "restricted")
    assert [told(status, web), told(status, API)] == [{"held" if enforced else "reached"}] * 2, status
    assert status["output"]["stdoutTail"].rstrip().endswith("page")
    used = status["attempts"][0]["network"]
    assert (used["connections"], used["denied"]) == (1, 0), used


def test_without_a_network_nobody_is_heard(installation: Installation, enforced: bool, web: str) -> None:
    installation.upgrade(acceptUnenforcedNetwork=True)
    serves = "PORT=8080; echo begun; " + SERVES
    for name, network in (("hears", "host"), ("deaf", "none")):
        installation.apply(command(name, "sh", "-c", serves, network=network))
    addresses = {name: _address(installation, name) for name in ("hears", "deaf")}
    places = {name: f"{address}:8080" for name, address in addresses.items()}
    installation.run("asks", "sh", "-c", tries(*places.values()))
    status = installation.finished("asks")
    for name in places:
        patch = ("--type=merge", "-p", '{"spec": {"cancel": true}}')
        installation.kubectl.ok("patch", "-n", installation.namespace, f"executiontask/{name}", *patch)
        installation.finished(name)
    assert told(status, places["hears"]) == {"reached"}, status
    assert told(status, places["deaf"]) == {"held" if enforced else "reached"}, status


def _address(installation: Installation, name: str) -> str:
    job = installation.running(name)["metadata"]["name"]

    def pods() -> list[str]:
        found = installation.get("pods", "-l", f"batch.kubernetes.io/job-name={job}")["items"]
        return [pod["status"]["podIP"] for pod in found if pod["status"].get("podIP")]

    wait_until(pods, f"the address of {name}")
    return pods()[0]
