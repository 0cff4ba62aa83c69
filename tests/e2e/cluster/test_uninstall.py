"""Tests what remains when the chart is uninstalled, and that a new installation continues with it."""

from __future__ import annotations

import pytest

import clusters
from e2e.cluster.conftest import WAITS
from e2e.cluster.installation import Installation, command
from e2e.cluster.test_services import release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_what_runs_goes_on_without_an_operator_and_with_the_next_one(installation: Installation) -> None:
    kubectl, namespace = installation.kubectl, installation.namespace
    installation.apply(*(release(name, clusters.shop_image(), "v1") for name in ("left", "kept")))
    installation.apply(*(command(name, "sh", "-c", WAITS) for name in ("going", "ending", "unwanted")))
    for name in ("left", "kept"):
        installation.live(name, 1)
    going, ending, unwanted = (installation.running(name) for name in ("going", "ending", "unwanted"))

    installation.uninstall()

    assert kubectl.ok("get", "all", "-n", installation.system, "-o", "name") == ""
    crds = kubectl.ok("get", "crd", "-o", "name")
    for plural in ("executiontasks", "commandpolicies", "deployments"):
        assert f"crd/{plural}.remit.dev" in crds.replace("customresourcedefinition.apiextensions.k8s.io", "crd")
    assert installation.status("going")["phase"] == "Running"
    assert installation.jobs("going")[0]["metadata"]["uid"] == going["metadata"]["uid"]
    kubectl.ok("delete", "-n", namespace, "deployments.remit.dev/left", "--timeout=20s")
    kubectl.ok("delete", "-n", namespace, "executiontask/unwanted", "--timeout=20s")
    kubectl.ok("wait", "-n", namespace, "--for=delete", f"job/{unwanted['metadata']['name']}", "--timeout=60s")
    assert installation.fetch("kept:80") == "v1"
    installation.let_go(ending)
    job = f"job/{ending['metadata']['name']}"
    kubectl.ok("wait", "-n", namespace, "--for=condition=Complete", job, "--timeout=60s")

    installation.install()

    ended = installation.finished("ending")
    assert (ended["phase"], ended["attemptCount"]) == ("Succeeded", 1), ended
    assert ended["output"]["stdoutTail"] == "begun\nended\n"
    installation.let_go(going)
    status = installation.finished("going")
    assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
    assert status["output"]["stdoutTail"] == "begun\nended\n"
    installation.run("afterwards", "echo", "again")
    assert installation.finished("afterwards")["phase"] == "Succeeded"
    kubectl.ok("delete", "-n", namespace, "deployments.remit.dev/kept", "--timeout=60s")
