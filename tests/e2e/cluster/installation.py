"""An operator that the chart installed on a real cluster, and helpers for tests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import clusters
from support import Kubectl, wait_until

CHART = Path(__file__).parents[3] / "charts/remit"
READY_SECONDS = 120
API = "remit.dev/v1alpha1"
Status = dict[str, Any]
_KILLS = "kill -s STOP -1 && echo halted && read now && kill -s KILL -1"
"""Runs in an operator's container, whose first process is not the operator."""


@dataclass(frozen=True)
class Installation:
    """The installation is in one namespace and serves another one."""

    kubectl: Kubectl
    release: str
    namespace: str
    values: dict[str, Any]
    ports: tuple[int, int]
    """Ports of nodes on which nothing else listens. http.allow lists the first one."""
    chart: Path = CHART
    """The chart to install. An upgrade installs that of this checkout."""

    @property
    def system(self) -> str:
        return f"{self.namespace}-system"

    def install(self) -> None:
        import helm_python

        with self._helm() as helm:
            try:
                helm.install(
                    self.chart, self.release, self.values, namespace=self.system, create_namespace=True, wait="watcher",
                    timeout=READY_SECONDS,
                )  # fmt: skip
            except helm_python.HelmError as error:
                pytest.fail(f"the chart could not be installed: {error}\n{self.logs()}", pytrace=False)

    def upgrade(self, **changes: Any) -> None:
        with self._helm() as helm:
            helm.upgrade(
                CHART, self.release, self.values | changes, namespace=self.system, wait="watcher", timeout=READY_SECONDS
            )

    def uninstall(self) -> None:
        with self._helm() as helm:
            helm.uninstall(self.release, wait="watcher", timeout=READY_SECONDS, ignore_not_found=True)

    def _helm(self) -> contextlib.AbstractContextManager[Any]:
        import helm_python

        opened: contextlib.AbstractContextManager[Any] = helm_python.Config(
            kubeconfig_path=clusters.kubeconfig(), namespace=self.system
        )
        return opened

    def kill(self) -> None:
        """Kills the operator with SIGKILL and removes its pod, without waiting for a new one."""
        for operator in self.operators():
            self.kill_pod(operator)

    def kill_pod(self, operator: str) -> None:
        """Kills the operator of `pod/NAME` with SIGKILL. Deleting the pod with force would let the operator end in
        order and release its lease. It must not be restarted in this pod either, so its processes are stopped until the
        pod is deleted."""
        exists = ("-n", self.system, operator)
        self.kubectl.ok("wait", *exists, "--for=jsonpath={.status.phase}=Running", "--timeout=80s")
        kubectl = [self.kubectl.binary, "--kubeconfig", str(self.kubectl.kubeconfig)]
        inside = subprocess.Popen(
            [*kubectl, "exec", "-i", *exists, "--", "sh", "-c", _KILLS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with inside:
            assert inside.stdout
            assert inside.stdout.readline() == "halted\n"
            self.kubectl.ok("delete", *exists, "--force", "--grace-period=0")
            inside.communicate("now\n", timeout=60)

    def operators(self) -> list[str]:
        selector = f"app.kubernetes.io/name=remit,app.kubernetes.io/instance={self.release}"
        return self.kubectl.ok("get", "pods", "-n", self.system, "-l", selector, "-o", "name").split()

    def ready(self) -> None:
        self.kubectl.ok("rollout", "status", "-n", self.system, f"deployment/{self.release}", "--timeout=80s")

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl.ok(
            "apply", "-n", self.namespace, "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": objects}
        )

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl.ok("get", "-n", self.namespace, *what, "-o", "json"))
        return found

    def task(self, name: str, **spec: Any) -> None:
        self.apply(task(name, **spec))

    def run(self, name: str, *argv: str, **spec: Any) -> None:
        """Creates a task that runs as a Job with network access, so that the enforcement of NetworkPolicies is not
        probed first."""
        self.apply(command(name, *argv, **spec))

    def status(self, name: str) -> Status:
        return self.get("executiontask", name).get("status") or {}

    def finished(self, name: str) -> Status:
        """Waits until a task has ended, and returns its status."""
        wait = ("wait", "-n", self.namespace, "--for=condition=Finished", f"executiontask/{name}", "--timeout=85s")
        waited = self.kubectl(*wait)
        assert waited.returncode == 0, f"{waited.stderr}\n{self.get('executiontask', name)}\n{self.logs()}"
        return self.status(name)

    def running(self, name: str) -> dict[str, Any]:
        """Waits until the program of a task has printed `begun`, and returns the task's one Job."""

        def begun() -> bool:
            return any(
                "o begun" in self.kubectl("logs", "-n", self.namespace, f"job/{job['metadata']['name']}").stdout
                for job in self.jobs(name)
            )

        wait_until(begun, f"the program of {name}", seconds=90)
        (job,) = self.jobs(name)
        return job

    def let_go(self, job: dict[str, Any]) -> None:
        """Lets a program of `conftest.WAITS` end."""
        pod = f"job/{job['metadata']['name']}"
        self.kubectl.ok("exec", "-n", self.namespace, pod, "--", "touch", "/tmp/go")

    def jobs(self, task: str) -> list[dict[str, Any]]:
        found = self.get("jobs", "-l", "app.kubernetes.io/managed-by=remit")["items"]
        return [job for job in found if job["metadata"].get("annotations", {}).get("remit.dev/task") == task]

    @contextlib.contextmanager
    def serve(self, name: str, image: str, argv: Sequence[str], port: int, **variables: str) -> Iterator[str]:
        """Yields the address of a pod that listens on `port` of its node.

        Other pods reach it there, also where the node is a machine whose Docker has its firewall drop what one pod
        sends to another.
        """
        container = {
            "name": "it",
            "image": image,
            "imagePullPolicy": "Never",
            "command": argv,
            "env": [{"name": key, "value": value} for key, value in variables.items()],
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
            "securityContext": {"runAsUser": 65534, "runAsGroup": 65534},
        }
        spec = {
            "containers": [container],
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
        }
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        waited = self.kubectl("wait", "-n", self.namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=80s")
        assert waited.returncode == 0, self.kubectl("logs", "-n", self.namespace, name).stdout
        try:
            yield self.get("pod", name)["status"]["podIP"]
        finally:
            # Until the node has ended the pod, it would answer the probes of the next pod with this port.
            self.kubectl.ok("delete", "-n", self.namespace, f"pod/{name}", "--timeout=80s")

    def live(self, name: str, revision: int) -> Status:
        """Waits until this revision of a Deployment is live with both of its replicas, and returns the status."""

        def is_live() -> bool:
            status = self.get("deployments.remit.dev", name).get("status") or {}
            return status.get("activeRevision") == revision and status.get("ready") == "2/2"

        try:
            wait_until(is_live, f"revision {revision} of {name}", seconds=90)
        except AssertionError as late:
            seen = self.kubectl("get", "-n", self.namespace, f"deployments.remit.dev/{name}", "pods", "-o", "yaml")
            pytest.fail(f"{late}\n{seen.stdout}\n{self.logs()}", pytrace=False)
        status: Status = self.get("deployments.remit.dev", name)["status"]
        return status

    def fetch(self, service: str) -> str:
        """Returns the response of a Service through the API server; empty if there is none."""
        path = f"/api/v1/namespaces/{self.namespace}/services/{service}/proxy/"
        return self.kubectl("get", "--raw", path).stdout

    def logs(self) -> str:
        """Returns details about an operator that does not work, and about pods that do not start."""
        parts = (("describe", "pods"), ("logs", f"deployment/{self.release}", "--tail=40"), ("get", "events"))
        return "\n".join(
            [*(self.kubectl("-n", self.system, *part).stdout for part in parts), clusters.state(self.namespace)]
        )

    @contextlib.contextmanager
    def no_new_pods(self, namespace: str) -> Iterator[None]:
        """Sets a quota that allows no new pods inside the block. Existing pods stay."""
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-new-pods"}}
        body = quota | {"spec": {"hard": {"count/pods": "0"}}}
        self.kubectl.ok("create", "-n", namespace, "-f", "-", given=body)
        try:
            held = ("get", "-n", namespace, "resourcequota/no-new-pods", "-o", "jsonpath={.status.hard}")
            wait_until(lambda: self.kubectl.ok(*held), "the quota is held")
            yield
        finally:
            self.kubectl.ok("delete", "-n", namespace, "resourcequota/no-new-pods")

    @contextlib.contextmanager
    def disk(self) -> Iterator[None]:
        """Provides a volume for one workspace of 16Mi, with the storage class of the installation, on this machine if
        it is the node. Other clusters provision it."""
        wanted = self.values["workspaces"]["storageClassName"]
        if not wanted:
            yield
            return
        with tempfile.TemporaryDirectory(prefix="remit-volume-") as folder:
            Path(folder).chmod(0o777)
            spec: dict[str, Any] = {
                "capacity": {"storage": "16Mi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": wanted,
                "hostPath": {"path": folder},
            }
            body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": wanted}, "spec": spec}
            self.kubectl.ok("create", "-f", "-", given=body)
            try:
                yield
            finally:
                self.kubectl.ok("delete", f"pv/{wanted}", "--wait=false")

    def remove(self) -> None:
        """Removes both namespaces with everything in them."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.kubectl("delete", "namespace", self.namespace, self.system, "--wait=false")


def task(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "ExecutionTask", "metadata": {"name": name}, "spec": spec}


def command(name: str, *argv: str, **spec: Any) -> dict[str, Any]:
    return task(name, **{"command": {"argv": argv}, "network": "host", "terminationGracePeriodSeconds": 1, **spec})
