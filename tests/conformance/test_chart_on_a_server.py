"""Tests what the chart renders, and what kubectl and Helm report about it, on a real API server on which nothing
runs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import installyaml
from conformance.harness.servers import Server
from lastversions import last_version
from parts import require
from remit import safeyaml
from support import Kubectl, wait_until

ROOT = installyaml.ROOT
CLOUDS = sorted((installyaml.CHART / "ci").glob("*-values.yaml"))
KINDS = ("executiontasks.remit.dev", "commandpolicies.remit.dev", "deployments.remit.dev")
EVERYTHING: dict[str, Any] = {
    "replicaCount": 2,
    "namespaces": ["default"],
    "backends": ["kubernetes", "process", "docker"],
    "dockerHost": "unix:///var/run/docker.sock",
    "releases": {"kubernetes": True},
    "persistence": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
    "rbac": {"aggregate": {"policies": True}},
    "image": {"digest": "sha256:" + "a" * 64},
    "logs": {"level": "debug"},
    "priorityClassName": "system-cluster-critical",
    "extraArgs": ["--read-only-path=/opt"],
    "extraEnv": [{"name": "HTTPS_PROXY", "valueFrom": {"configMapKeyRef": {"name": "proxy", "key": "url"}}}],
    "extraVolumes": [{"name": "docker", "hostPath": {"path": "/var/run/docker.sock", "type": "Socket"}}],
    "extraVolumeMounts": [{"name": "docker", "mountPath": "/var/run/docker.sock"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "crds": {"install": True, "keep": False},
}
BRIEF = {"crds": {"install": False}}
"""Other tests cover the CRDs, which take longer than all other objects."""
VARIANTS: dict[str, dict[str, Any]] = {
    "usual": {},
    "namespaced": {"namespaces": ["default"], "persistence": {"enabled": True, "existingClaim": "mine"}},
    "user namespaces": {"sandbox": {"userNamespaces": True}},
    "several without volumes": {"replicaCount": 3, "podDisruptionBudget": {"enabled": True}},
    "everything": EVERYTHING,
    **{path.stem: safeyaml.load(path.read_text()) for path in CLOUDS},
}


@pytest.fixture(scope="module")
def cluster(
    contestants: list[Server], kubectl: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kubectl, Path]]:
    """Provides kube-apiserver only, because the embedded control plane serves neither workloads nor RBAC."""
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    found = next((server for server in contestants if server.name == "kube-apiserver"), None)
    require("kube-apiserver", found, "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    assert found
    kubeconfig = found.kubeconfig(tmp_path_factory.mktemp("client") / "kubeconfig")
    run = Kubectl(kubectl, kubeconfig)
    run.ok("wait", "--for=create", "namespace/default", "--timeout=30s")

    def crds() -> set[str]:
        return set(run.ok("get", "customresourcedefinitions", "-o", "name").split())

    before = crds()
    for namespace in ("remit-system", "team-a", "team-b"):
        run("create", "namespace", namespace)
    run.ok("label", "--overwrite", "namespace", "remit-system", "pod-security.kubernetes.io/enforce=restricted")
    yield run, kubeconfig
    run("delete", "namespace", "remit-system", "team-a", "team-b", "--wait=false")
    if ours := sorted(crds() - before):  # other tests compare what happens to the CRDs
        run.ok("delete", *ours)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_chart_renders_is_accepted(cluster: tuple[Kubectl, Path], variant: str, tmp_path: Path) -> None:
    """There must be no warning, such as one about the Pod Security Standard under which the operator runs by
    default."""
    run, _ = cluster
    rendered = tmp_path / "rendered.yaml"
    namespace = "remit-system" if variant in {"usual", "namespaced", *(path.stem for path in CLOUDS)} else "default"
    texts = installyaml.render(BRIEF | VARIANTS[variant], namespace=namespace)
    rendered.write_text(installyaml.text(installyaml.objects(texts)))
    done = run("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", str(rendered))
    assert (done.returncode, done.stderr) == (0, ""), variant
    kind = "statefulset" if VARIANTS[variant].get("persistence") else "deployment"
    assert f"{kind}.apps/remit serverside-applied (server dry run)" in done.stdout


def test_the_manifests_are_accepted(cluster: tuple[Kubectl, Path]) -> None:
    run, _ = cluster
    for folder, namespace in (
        ("install", "remit-system"),
        ("kubernetes-releases", "default"),
        ("namespace-install", "default"),
    ):
        path = str(ROOT / "manifests" / folder)
        done = run("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-n", namespace, "-k", path)
        assert (done.returncode, done.stderr) == (0, ""), "not even a warning of pod security"


class Releases:
    """Helm on a cluster."""

    def __init__(self, run: Kubectl, kubeconfig: Path) -> None:
        self.run, self.kubeconfig = run, kubeconfig

    def install(self, name: str, namespace: str, **values: Any) -> None:
        """Installs the chart. Raises `helm_python.HelmError`."""
        with self._config(namespace) as config:
            config.install(str(installyaml.CHART), name, values, namespace=namespace)

    @contextlib.contextmanager
    def upgrade(self, name: str, namespace: str, before: Path) -> Iterator[None]:
        """Installs that chart, and upgrades it to this one when the block has ended."""
        with self._config(namespace) as config:
            config.install(str(before), name, namespace=namespace)
            yield
            config.upgrade(str(installyaml.CHART), name, namespace=namespace)

    def _config(self, namespace: str) -> Any:
        import helm_python

        return helm_python.Config(kubeconfig_path=self.kubeconfig, namespace=namespace, storage_driver="memory")


@pytest.fixture
def releases(cluster: tuple[Kubectl, Path]) -> Iterator[Releases]:
    """Provides Helm. Installations are removed without hooks, because nothing runs Jobs here."""
    run, kubeconfig = cluster
    yield Releases(run, kubeconfig)
    own = ("-l", "app.kubernetes.io/name=remit", "--wait=false")
    run("delete", "clusterroles,clusterrolebindings", *own)
    run("delete", "deployments.apps,services,serviceaccounts,roles,rolebindings", "--all-namespaces", *own)
    run("delete", "mutatingadmissionpolicies,mutatingadmissionpolicybindings", "--all")
    run("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "--all")


def test_crds_that_kubectl_applied_are_adopted_by_their_marks(releases: Releases) -> None:
    """Uses the commands of the chart's page."""
    import helm_python

    run = releases.run
    run("delete", "crd", *KINDS)
    run.ok("apply", "--server-side", "-f", str(ROOT / "crds"))
    with pytest.raises(helm_python.HelmError, match="invalid ownership metadata"):
        releases.install("remit", "remit-system")
    page = (installyaml.CHART / "README.md").read_text()
    commands = [
        line.removeprefix("$ kubectl ")
        for line in page.splitlines()
        if line.startswith("$ kubectl ") and "$CRDS" in line
    ]
    assert [command.split()[0] for command in commands] == ["label", "annotate"]
    for command in commands:
        run.ok(*command.replace("$CRDS", " ".join(KINDS)).split())
    releases.install("remit", "remit-system")
    kept = run.ok("get", "crd", KINDS[0], "-o", "jsonpath={.metadata.annotations.helm\\.sh/resource-policy}")
    assert kept == "keep"


def test_an_upgrade_from_the_last_version_brings_its_crds(releases: Releases, tmp_path: Path) -> None:
    """Objects that were stored before remain valid, and users who were bound to roles are not bound any more."""
    run = releases.run
    before = last_version(tmp_path)
    run("delete", "crd", *KINDS)
    task = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": {"name": "old"}}
    task["spec"] = {"command": {"argv": ["echo"]}}
    with releases.upgrade("remit", "remit-system", before / "charts/remit"):
        created = lambda: run("create", "-n", "team-a", "-f", "-", given=task).returncode == 0  # noqa: E731
        wait_until(created, "a CRD that is served")  # a CRD is served some time after it is Established
        stored = json.loads(run.ok("get", "-n", "team-a", "et/old", "-o", "json"))
        (selector,) = _selectors(run)
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        wanted = safeyaml.load(path.read_text())
        found = json.loads(run.ok("get", "crd", wanted["metadata"]["name"], "-o", "json"))
        (was,), (now,) = wanted["spec"]["versions"], found["spec"]["versions"]
        assert now["schema"] == was["schema"]
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert json.loads(run.ok("get", "-n", "team-a", "et/old", "-o", "json"))["spec"] == stored["spec"]
    run.ok("replace", "-n", "team-a", "--dry-run=server", "-f", "-", given=stored)
    assert _selectors(run) == [selector]
    bindings = run.ok("get", "clusterrolebindings", "-l", "app.kubernetes.io/name=remit", "-o", "name").split()
    assert {each.rpartition("/")[2] for each in bindings} == {"remit.remit-system", "remit-jobs.remit-system"}


def _selectors(run: Kubectl) -> list[dict[str, Any]]:
    found = json.loads(run.ok("get", "deployments.apps", "-n", "remit-system", "-o", "json"))["items"]
    return [each["spec"]["selector"] for each in found]


def test_installations_for_different_namespaces_stand_beside_each_other(releases: Releases) -> None:
    """There are two with the same name in different namespaces, and two in one namespace. Each operator may read only
    the Secrets of what it serves."""
    run = releases.run
    run.ok("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    releases.install("remit", "remit-system", namespaces=["team-a"])
    releases.install("remit", "default", namespaces=["team-b"])
    releases.install("second", "default", namespaces=["default"])
    bound = json.loads(run.ok("get", "rolebindings", "-A", "-l", "app.kubernetes.io/name=remit", "-o", "json"))["items"]
    jobs = {
        (binding["metadata"]["namespace"], subject["namespace"], subject["name"])
        for binding in bound
        if "-jobs" in binding["metadata"]["name"]
        for subject in binding["subjects"]
    }
    assert jobs == {
        ("team-a", "remit-system", "remit"),
        ("team-b", "default", "remit"),
        ("default", "default", "second-remit"),
    }
    assert not run.ok("get", "clusterroles", "-l", "app.kubernetes.io/name=remit", "-o", "name")


def test_releases_of_one_name_that_serve_the_cluster_share_no_name(releases: Releases) -> None:
    run = releases.run
    run.ok("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    for namespace in ("remit-system", "team-a"):
        releases.install("remit", namespace, crds={"install": False})
    listed = run.ok("get", "clusterrolebindings", "-l", "app.kubernetes.io/name=remit", "-o", "name").split()
    assert {name.rpartition("/")[2] for name in listed} == {
        f"{role}.{namespace}" for role in ("remit", "remit-jobs") for namespace in ("remit-system", "team-a")
    }
    served = run.ok("api-resources", "--api-group=admissionregistration.k8s.io", "-o", "name")
    if "mutatingadmissionpolicies" in served:  # since Kubernetes 1.36
        found = json.loads(run.ok("get", "validatingadmissionpolicies", "-o", "json"))["items"]
        exempt = {policy["metadata"]["name"]: policy["spec"]["matchConditions"][0]["expression"] for policy in found}
        assert exempt == {
            f"remit-requested-by.{each}": f"!(request.userInfo.username in ['system:serviceaccount:{each}:remit'])"
            for each in ("remit-system", "team-a")
        }
