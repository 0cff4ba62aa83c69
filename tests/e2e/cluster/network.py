"""Determines by experiments how the network of a cluster treats pods."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import clusters
from e2e.cluster.conftest import POLICY
from e2e.cluster.installation import Installation
from parts import require
from support import wait_until

SERVES = "mkdir -p /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p $PORT -h /tmp/www"
_CONNECTED, _HELD = 0, 7
_TRIES = 40
"""Number of tries, half a second apart. A network plugin may apply rules for a pod with a delay."""
_CONNECTS = """import os, socket, sys, time
for number in range(int(sys.argv[1])):
    try:
        socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], 443), 3).close()
    except OSError:
        sys.exit(7)
    time.sleep(0.5)
"""


def enforces_policies(installation: Installation) -> bool:
    """Returns whether a NetworkPolicy keeps a pod from connecting. Also asserts that an unrestricted pod can
    connect."""
    denied = {"remit-test": "denied"}
    spec = {"podSelector": {"matchLabels": denied}, "policyTypes": ["Egress"]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "denied"}}
    installation.apply(policy | {"spec": spec})
    try:
        assert _exit_code(installation, "may-connect", {}, 1) == _CONNECTED
        code = _exit_code(installation, "may-not-connect", denied, _TRIES)
        assert code in (_CONNECTED, _HELD)
        return code == _HELD
    finally:
        installation.kubectl.ok("delete", "-n", installation.namespace, "networkpolicy/denied")


def _exit_code(installation: Installation, name: str, labels: dict[str, str], tries: int) -> int:
    """Returns the exit code of a pod that connects to the API server so often, or until it cannot."""
    image = installation.values["image"]
    container = {
        "name": "it",
        "image": f"{image['repository']}:{image['tag']}",
        "imagePullPolicy": "Never",
        "command": ["python", "-c", _CONNECTS, str(tries)],
    }
    spec = {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False}
    installation.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})

    def ended() -> Any:
        (status,) = installation.get("pod", name)["status"].get("containerStatuses") or [{}]
        return (status.get("state") or {}).get("terminated")

    wait_until(ended, f"the end of pod {name}", seconds=90)
    code: int = ended()["exitCode"]
    installation.kubectl.ok("delete", "-n", installation.namespace, f"pod/{name}", "--force", "--grace-period=0")
    return code


@contextlib.contextmanager
def listed_server(installation: Installation, *names: str) -> Iterator[str]:
    """Yields the address of a web server that the policy lists for `restricted`, and these names with its port. Pods of
    the node can reach each other inside the block."""
    port = installation.ports[0]
    with (
        installation.serve("listed", clusters.busybox_image(), ("sh", "-c", SERVES), port, PORT=str(port)) as address,
        pods_reach_each_other(installation, address),
    ):
        rule = {"hosts": [address, *names], "ports": [port]}
        spec = {"networks": ["restricted"], "egress": {"allow": [rule]}}
        installation.apply(POLICY | {"metadata": {"name": "restricted"}, "spec": {**POLICY["spec"], **spec}})
        yield f"{address}:{port}"
        installation.kubectl.ok("delete", "-n", installation.namespace, "commandpolicy/restricted")


@contextlib.contextmanager
def pods_reach_each_other(installation: Installation, node: str) -> Iterator[None]:
    """Allows traffic between pods if the node is this machine, on which Docker's firewall drops it."""
    with socket.socket(socket.AF_INET6 if ":" in node else socket.AF_INET) as trying:
        try:
            trying.bind((node, 0))
        except OSError:  # another machine
            yield
            return
    pod = installation.get("pods", "-l", "remit-test=neighbour")["items"]
    assert not pod
    spec = {"containers": [{"name": "it", "image": clusters.busybox_image(), "command": ["sleep", "600"]}]}
    metadata = {"name": "neighbour", "labels": {"remit-test": "neighbour"}}
    installation.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    installation.kubectl.ok(
        "wait", "-n", installation.namespace, "--for=condition=Ready", "pod/neighbour", "--timeout=80s"
    )
    address = installation.get("pod", "neighbour")["status"]["podIP"]
    installation.kubectl.ok("delete", "-n", installation.namespace, "pod/neighbour", "--force", "--grace-period=0")
    iptables = shutil.which("iptables")
    require("cluster", iptables, "install iptables, by which pods of this machine are let to reach each other")
    (route,) = json.loads(subprocess.check_output(["ip", "-j", "route", "get", address], timeout=20))
    rule = ["FORWARD", "-i", route["dev"], "-o", route["dev"], "-j", "ACCEPT"]
    subprocess.run([str(iptables), "-w", "-I", *rule], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run([str(iptables), "-w", "-D", *rule], check=True, timeout=20)
