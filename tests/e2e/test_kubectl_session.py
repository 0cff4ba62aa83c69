"""Tests usual kubectl commands against a control plane in a separate process.

REMIT_KUBECTL may list further kubectl binaries (separated by colons) that must manage the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from controlplanes import ROOT, WIDGETS_CRD, widget

PATIENCE = 60


@dataclass(frozen=True)
class Kubectl:
    binary: str
    kubeconfig: Path
    home: Path
    namespace: str

    def __call__(self, *arguments: str, stdin: str | None = None, fails: bool = False) -> str:
        """Returns stdout and stderr together; asserts the exit status."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=PATIENCE, env=self.env()
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"kubectl {' '.join(arguments)} exited {done.returncode}: {output}"
        return output

    def command(self, *arguments: str) -> list[str]:
        return [self.binary, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]

    def env(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": os.environ["PATH"]}

    def apply(self, *objects: object, more: tuple[str, ...] = ()) -> str:
        return self("apply", "-f", "-", *more, stdin=yaml.safe_dump_all(objects))

    def json(self, *arguments: str) -> dict[str, object]:
        return dict(json.loads(self("get", "-o", "json", *arguments)))


def binaries() -> list[str]:
    return ["kubectl", *filter(None, os.environ.get("REMIT_KUBECTL", "").split(":"))]


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory, kubectl: str) -> Iterator[Path]:
    """Provides the kubeconfig of a control plane that serves widgets."""
    state = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "remit.controlplane", "--state", str(state)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[:1] == ["ready"], ready
        config = Path(ready[2])
        Kubectl(kubectl, config, state, "default")("create", "-f", "-", stdin=yaml.safe_dump(WIDGETS_CRD))
        yield config
        process.terminate()


@pytest.fixture(params=binaries(), ids=lambda path: Path(path).name)
def run(request: pytest.FixtureRequest, kubeconfig: Path, kubectl: str, tmp_path: Path) -> Iterator[Kubectl]:
    """Provides kubectl for a separate namespace."""
    binary = kubectl if request.param == "kubectl" else request.param
    version = Path(binary).name.replace(".", "-")
    namespace = f"{request.node.originalname.replace('_', '-')[:40]}-{version}"
    run = Kubectl(binary, kubeconfig, tmp_path, namespace)
    run("create", "namespace", namespace)
    yield run
    run("delete", "namespace", namespace, "--wait=true")


def test_apply_get_describe(run: Kubectl) -> None:
    assert "created" in run.apply(widget("a", 3))
    assert "unchanged" in run.apply(widget("a", 3))
    assert "configured" in run.apply(widget("a", 4))
    table = run("get", "widgets").splitlines()
    assert table[0].split() == ["NAME", "SIZE"] and table[1].split() == ["a", "4"]
    assert run("get", "wd", "-o", "wide").splitlines()[0].split() == ["NAME", "SIZE", "PHASE"]
    assert yaml.safe_load(run("get", "widget", "a", "-o", "yaml"))["spec"] == {"size": 4, "replicas": 1}
    assert run("get", "widget", "a", "-o", "jsonpath={.spec.size}") == "4"
    assert "Size:" in run("describe", "widget", "a")
    assert "widget.example.dev/a" in run("get", "all", "-o", "name")
    assert "not found" in run("get", "widget", "none", fails=True)


def test_events_are_described(run: Kubectl) -> None:
    run.apply(widget("a"))
    uid = run("get", "widget", "a", "-o", "jsonpath={.metadata.uid}")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "a.1", "namespace": run.namespace},
        "involvedObject": {
            "apiVersion": "example.dev/v1",
            "kind": "Widget",
            "name": "a",
            "namespace": run.namespace,
            "uid": uid,
        },
        "reason": "Painted",
        "message": "It is red now",
        "type": "Normal",
        "source": {"component": "painter"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2099-01-01T00:00:00Z",
        "count": 1,
    }
    run("create", "-f", "-", stdin=yaml.safe_dump(event))
    assert "It is red now" in run("describe", "widget", "a")
    assert "It is red now" in run("get", "events")
    assert "Painted" in run("get", "events.events.k8s.io", "-o", "yaml")
    assert "It is red now" in run("events", "--for", "widget/a")


def test_explain(run: Kubectl) -> None:
    assert "A widget, for tests." in run("explain", "widget")
    text = run("explain", "widget.spec.size")
    assert "How big it is." in text and "<integer>" in text
    assert "replicas" in run("explain", "widget.spec", "--recursive")
    assert "data" in run("explain", "configmap")
    assert "does not exist" in run("explain", "widget.spec.nothing", fails=True)


def test_server_side_apply_and_conflicts(run: Kubectl) -> None:
    assert "serverside-applied" in run.apply(widget("a", 1), more=("--server-side",))
    assert "serverside-applied" in run.apply(widget("a", 2), more=("--server-side",))
    conflict = run(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=yaml.safe_dump(widget("a", 3)), fails=True
    )
    assert "conflict" in conflict and ".spec.size" in conflict
    run.apply(widget("a", 3), more=("--server-side", "--field-manager=other", "--force-conflicts"))
    assert run("get", "widget", "a", "-o", "jsonpath={.spec.size}") == "3"
    managers = run("get", "widget", "a", "-o", "yaml", "--show-managed-fields")
    assert "manager: other" in managers and "manager: kubectl" not in managers, "the field was taken over"


def test_changing_objects(run: Kubectl) -> None:
    run.apply(widget("a"))
    run("label", "widget", "a", "tier=gold")
    run("annotate", "widget", "a", "note=well")
    assert "a" in run("get", "widgets", "-l", "tier=gold", "-o", "name")
    assert run("get", "widgets", "-l", "tier!=gold", "-o", "name") == ""
    run("label", "widget", "a", "tier-")
    run("patch", "widget", "a", "--type=merge", "-p", '{"spec":{"size":7}}')
    run("patch", "widget", "a", "--type=json", "-p", '[{"op":"replace","path":"/spec/size","value":8}]')
    assert "merge" in run("patch", "widget", "a", "-p", '{"spec":{"size":9}}', fails=True)
    run("scale", "widget", "a", "--replicas=5")
    run("patch", "widget", "a", "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":5}}')
    found = run.json("widget", "a")
    assert found["spec"] == {"size": 8, "replicas": 5} and found["status"] == {"replicas": 5}
    run("replace", "-f", "-", stdin=yaml.safe_dump(found | {"spec": {"size": 1}}))
    assert run("get", "widget", "a", "-o", "jsonpath={.spec}") == '{"replicas":1,"size":1}'


def test_core_objects(run: Kubectl) -> None:
    run("create", "configmap", "c", "--from-literal=k=v")
    run("create", "secret", "generic", "s", "--from-literal=password=hunter2")
    assert run("get", "configmap", "c", "-o", "jsonpath={.data.k}") == "v"
    assert run("get", "secret", "s", "-o", "jsonpath={.data.password}") == "aHVudGVyMg=="
    assert "hunter2" not in run("describe", "secret", "s")
    run("patch", "configmap", "c", "-p", '{"data":{"more":"yes"}}')
    run("annotate", "configmap", "c", "a=b")
    run.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"a": "1"}})
    run.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"b": "2"}})
    assert run("get", "configmap", "d", "-o", "jsonpath={.data}") == '{"b":"2"}'
    assert "Active" in run("get", "namespace", run.namespace)


def test_questions_about_the_server(run: Kubectl) -> None:
    assert run("auth", "can-i", "create", "widgets").strip().endswith("yes")
    assert "remit-admin" in run("auth", "whoami")
    assert "widgets" in run("api-resources") and "example.dev/v1" in run("api-versions")
    assert "Server Version" in run("version")
    assert "NAMESPACED" in run("api-resources", "--namespaced=true")


def test_waiting(run: Kubectl) -> None:
    run.apply(widget("a"))
    waiting = subprocess.Popen(
        run.command("wait", "--for=condition=Ready", "widget/a", "--timeout=50s"),
        env=run.env(),
        stdout=subprocess.PIPE,
        text=True,
    )
    conditions = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
    run("patch", "widget", "a", "--subresource=status", "--type=merge", "-p", conditions)
    output, _ = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0 and "condition met" in output
    run("wait", "--for=jsonpath={.spec.size}=1", "widget/a", "--timeout=20s")
    run("delete", "widget", "a", "--wait=false")
    run("wait", "--for=delete", "widget/a", "--timeout=20s")


def test_watching(run: Kubectl) -> None:
    run.apply(widget("a"))
    watching = subprocess.Popen(run.command("get", "widgets", "-w"), env=run.env(), stdout=subprocess.PIPE, text=True)
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline().split() == ["NAME", "SIZE"]
        assert watching.stdout.readline().split() == ["a", "1"]
        run("patch", "widget", "a", "--type=merge", "-p", '{"spec":{"size":2}}')
        assert watching.stdout.readline().split() == ["a", "2"]
    finally:
        watching.kill()
        watching.communicate()


def test_dry_run_and_diff_change_nothing(run: Kubectl) -> None:
    assert "server dry run" in run.apply(widget("a"), more=("--dry-run=server",))
    assert "not found" in run("get", "widget", "a", fails=True)
    run.apply(widget("a", 1))
    difference = run("diff", "-f", "-", stdin=yaml.safe_dump(widget("a", 2)), fails=True)
    assert "-  size: 1" in difference and "+  size: 2" in difference
    assert run("get", "widget", "a", "-o", "jsonpath={.spec.size}") == "1"


def test_mistakes_are_explained(run: Kubectl) -> None:
    misspelt = widget("a") | {"spec": {"sise": 1}}
    refused = run("apply", "-f", "-", stdin=yaml.safe_dump(misspelt), fails=True)
    assert "sise" in refused
    wrong = run("apply", "-f", "-", "--validate=false", stdin=yaml.safe_dump(widget("a", -1)), fails=True)
    assert "spec.size" in wrong and "greater than or equal to 0" in wrong
    assert "doesn't have a resource type" in run("get", "pods", fails=True)
    nowhere = run("apply", "-n", "nowhere", "-f", "-", stdin=yaml.safe_dump(widget("a")), fails=True)
    assert 'namespaces "nowhere" not found' in nowhere


def test_kustomize(run: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "widget.yaml").write_text(yaml.safe_dump(widget("k")))
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": ["widget.yaml"],
                "namePrefix": "pre-",
                "configMapGenerator": [{"name": "gen", "literals": ["a=b"]}],
            }
        )
    )
    output = run("apply", "-k", str(tmp_path))
    assert "widget.example.dev/pre-k created" in output and "configmap/pre-gen-" in output


def test_deleting(run: Kubectl) -> None:
    run.apply(widget("a"), widget("b"), widget("c"))
    assert "deleted" in run("delete", "widget", "a")
    run("delete", "widgets", "--all")
    assert "No resources found" in run("get", "widgets")
    held = widget("held", finalizers=["example.dev/hold"])
    run.apply(held)
    run("delete", "widget", "held", "--wait=false")
    assert run("get", "widget", "held", "-o", "jsonpath={.metadata.deletionTimestamp}")
    run("patch", "widget", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    deadline = time.monotonic() + PATIENCE
    while run("get", "widgets", "-o", "name"):
        assert time.monotonic() < deadline
