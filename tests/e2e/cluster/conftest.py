"""Installs Remit as users do: with the chart, on a cluster, with the operator's image."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clusters
from e2e.cluster.installation import API, Installation
from operatorimage import operator_image
from parts import require
from ports import free_port
from support import Kubectl

ROOT = Path(__file__).parents[3]
WAITS = "echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; echo ended"
"""A program that `Installation.let_go` ends."""
ANYWHERE = ["0.0.0.0/0"]
POLICY: dict[str, Any] = {
    "apiVersion": API,
    "kind": "CommandPolicy",
    "metadata": {"name": "tests"},
    "spec": {
        "selector": {},
        "networks": ["none", "host"],
        "commands": {"allow": [{"executable": "echo"}, {"executable": "sh", "args": ["-c", "(?s).*"]}]},
        "environment": {"allow": ["VERSION"]},
        "files": {
            "allow": [
                {
                    "paths": ["/data/**"],
                    "operations": ["append", "checksum", "copy", "delete", "list", "mkdir", "move", "read", "write"],
                }
            ],
            "deny": [{"paths": ["/data/closed/**"], "operations": ["read", "write"]}],
        },
        "limits": {"retries": {"max": 3}},
        "privateFiles": {"allow": ["/etc/**"]},
        "volumes": {"workspaces": [{"names": ["*"], "maxSize": "64Mi"}], "artifacts": {}},
        "databases": {"postgres": {"secrets": ["database"], "statements": ["select"]}},
        "containers": {"operations": ["run"]},
        "images": {"allow": [clusters.IMAGE, clusters.BUSYBOX, "remit-test.invalid/*:*"]},
    },
}


@pytest.fixture(scope="session")
def installation(kubectl: str) -> Iterator[Installation]:
    """Provides an installation that serves one namespace only, because the cluster may have other users."""
    kubeconfig = clusters.kubeconfig()
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    name = f"remit-{uuid.uuid4().hex[:8]}"
    repository, _, tag = operator_image().partition(":")
    classes = Kubectl(kubectl, kubeconfig).ok("get", "storageclasses", "-o", "name").split()
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "namespaces": [name],
        "crds": {"install": False},
        "requestedBy": {"enabled": False},
        "releases": {"kubernetes": True},
        "maxConcurrent": 8,
        "workspaces": {"storageClassName": "" if classes else name},
    }
    made = Installation(Kubectl(kubectl, kubeconfig), name, name, values, (free_port(), free_port()))
    made.kubectl.ok("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    made.kubectl.ok("create", "namespace", made.namespace)
    try:
        made.install()
        reached = {"hosts": ["*"], "ports": made.ports[:1], "addresses": ANYWHERE}
        made.apply(POLICY | {"spec": POLICY["spec"] | {"http": {"allow": [reached]}}})
        yield made
        made.uninstall()
    finally:
        made.remove()
