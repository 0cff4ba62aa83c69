"""Remit as its users have it: the chart, installed on a cluster, with the operator's image."""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clusters
from conftest import require
from operatorimage import operator_image
from support import Kubectl

ROOT = Path(__file__).parents[3]
READY_SECONDS = 120


@dataclass(frozen=True)
class Installation:
    """One operator, in a namespace of its own, that serves another one."""

    kubectl: Kubectl
    release: str
    namespace: str

    @property
    def system(self) -> str:
        return f"{self.namespace}-system"

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl.ok(
            "apply", "-n", self.namespace, "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": objects}
        )

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl.ok("get", "-n", self.namespace, *what, "-o", "json"))
        return found

    def run(self, name: str, *argv: str) -> None:
        """Ask for a task. It may connect: whether it could be kept from it is then not tried first."""
        self.apply(
            {
                "apiVersion": "remit.dev/v1alpha1",
                "kind": "ExecutionTask",
                "metadata": {"name": name},
                "spec": {"command": {"argv": argv}, "network": "host"},
            }
        )

    def finished(self, name: str) -> dict[str, Any]:
        """The status of a task that has ended."""
        wait = ("wait", "-n", self.namespace, "--for=condition=Finished", f"executiontask/{name}", "--timeout=80s")
        waited = self.kubectl(*wait)
        assert waited.returncode == 0, f"{waited.stderr}\n{self.get('executiontask', name)['status']}\n{self.logs()}"
        status: dict[str, Any] = self.get("executiontask", name)["status"]
        return status

    def logs(self) -> str:
        """What there is to tell of an operator that does not do its work."""
        parts = (("describe", "pods"), ("logs", f"deployment/{self.release}", "--tail=40"), ("get", "events"))
        return "\n".join(self.kubectl("-n", self.system, *part).stdout for part in parts)


@pytest.fixture(scope="session")
def installation(kubectl: str) -> Iterator[Installation]:
    """It serves one namespace only: the cluster may be others', too."""
    kubeconfig = clusters.kubeconfig()
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    import helm_python

    name = f"remit-{uuid.uuid4().hex[:8]}"
    made = Installation(Kubectl(kubectl, kubeconfig), name, name)
    repository, _, tag = operator_image().partition(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "namespaces": [made.namespace],
        "crds": {"install": False},
        "requestedBy": {"enabled": False},
    }
    made.kubectl.ok("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    made.kubectl.ok("create", "namespace", made.namespace)
    try:
        with helm_python.Config(kubeconfig_path=kubeconfig, namespace=made.system) as helm:
            try:
                helm.install(
                    ROOT / "charts/remit", made.release, values, namespace=made.system, create_namespace=True,
                    wait="watcher", timeout=READY_SECONDS,
                )  # fmt: skip
            except helm_python.HelmError as error:
                pytest.fail(f"the chart could not be installed: {error}\n{made.logs()}", pytrace=False)
            yield made
            helm.uninstall(made.release, wait="watcher", timeout=READY_SECONDS)
    finally:
        made.kubectl("delete", "namespace", made.namespace, made.system, "--wait=false")
