"""Tests what a release tells of pods for which no container is created, which only their Events explain."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

import clusters
from e2e.cluster.installation import Installation
from e2e.cluster.test_services import release
from parts import require
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ADMISSION = "admissionregistration.k8s.io/v1"
NAME = "unmountable"
LABELS = {"app.kubernetes.io/name": NAME}
MUTATION = """Object{spec: Object.spec{
  volumes: [Object.spec.volumes{name: "absent", configMap: Object.spec.volumes.configMap{name: "absent"}}],
  containers: object.spec.containers.map(each, Object.spec.containers{
    name: each.name,
    volumeMounts: [Object.spec.containers.volumeMounts{name: "absent", mountPath: "/absent"}]
  })
}}"""


@contextlib.contextmanager
def absent_volume(installation: Installation) -> Iterator[None]:
    """Has the API server add a volume that cannot be mounted to the release's pods, as injectors of sidecars may do."""
    kubectl, name = installation.kubectl, installation.namespace
    offered = kubectl.ok("api-resources", "--api-group=admissionregistration.k8s.io", "-o", "name")
    require("mutating-policies", "mutatingadmissionpolicies" in offered, "use Kubernetes 1.36 or newer")
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": MUTATION}}
    spec = {
        "matchConstraints": {"resourceRules": [pods]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [mutation],
    }
    only = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
        "objectSelector": {"matchLabels": LABELS},
    }
    binding = {"policyName": name, "matchResources": only}
    kinds = {"MutatingAdmissionPolicy": spec, "MutatingAdmissionPolicyBinding": binding}
    for kind, body in kinds.items():
        made = {"apiVersion": ADMISSION, "kind": kind, "metadata": {"name": name}, "spec": body}
        kubectl.ok("create", "-f", "-", given=made)
    try:
        wait_until(lambda: "absent" in volumes_of_a_new_pod(installation), "the policy is in force")
        yield
    finally:
        for kind in kinds:
            kubectl.ok("delete", f"{kind.lower()}/{name}")
        wait_until(lambda: "absent" not in volumes_of_a_new_pod(installation), "the policy is in force no more")


def volumes_of_a_new_pod(installation: Installation) -> list[str]:
    metadata = {"name": "probe", "labels": LABELS}
    spec = {"containers": [{"name": "app", "image": clusters.busybox_image()}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    create = ("create", "-n", installation.namespace, "--dry-run=server", "-o", "json", "-f", "-")
    made: dict[str, Any] = json.loads(installation.kubectl.ok(*create, given=pod))
    return [volume["name"] for volume in made["spec"].get("volumes") or ()]


def test_a_release_says_what_keeps_its_pods_from_starting(installation: Installation) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = installation.get("deployments.remit.dev", NAME).get("status") or {}
        return found

    with absent_volume(installation):
        installation.apply(release(NAME, clusters.shop_image(), "v1", progressDeadlineSeconds=600))
        why = 'does not start: FailedMount: MountVolume.SetUp failed for volume "absent" : configmap "absent" not found'
        wait_until(lambda: why in status().get("message", ""), "the status names what is missing", seconds=90)
        assert why in status()["slots"][0]["message"]
    # The pods that replace these have no such volume.
    pods = ("delete", "pods", "-n", installation.namespace, "-l", f"app.kubernetes.io/name={NAME}", "--timeout=80s")
    installation.kubectl.ok(*pods)
    installation.live(NAME, 1)
