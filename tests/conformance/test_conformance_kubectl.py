"""Runs one session of stock kubectl against each server, with the same expected output.

REMIT_KUBECTL may name further binaries (separated as in PATH): old versions ask in other ways.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.harness.client import PATIENCE_SECONDS
from conformance.harness.play import both
from conformance.harness.servers import Server
from conformance.harness.widget import GROUP
from parts import require

MANIFESTS = {
    "widget.yaml": """
apiVersion: conformance.example.com/v1
kind: Widget
metadata: {name: a, labels: {app: shop}}
spec: {size: 1, ports: [{name: web, port: 80, protocol: TCP}], tags: [p, q]}
""",
    "changed.yaml": """
apiVersion: conformance.example.com/v1
kind: Widget
metadata: {name: a, labels: {app: shop}}
spec: {size: 2, color: blue, ports: [{name: web, port: 81}, {name: tls, port: 443}]}
""",
    "typo.yaml": """
apiVersion: conformance.example.com/v1
kind: Widget
metadata: {name: typo}
spec: {siez: 1}
""",
    "invalid.yaml": """
apiVersion: conformance.example.com/v1
kind: Widget
metadata: {name: invalid}
spec: {size: 1000, color: mauve}
""",
    "kindless.yaml": "apiVersion: conformance.example.com/v1\nkind: Gadget\nmetadata: {name: a}\n",
    "generated.yaml": """
apiVersion: conformance.example.com/v1
kind: Widget
metadata: {generateName: made-}
spec: {size: 5}
""",
    "kustomization.yaml": """
resources: [widget.yaml]
namePrefix: custom-
configMapGenerator: [{name: settings, literals: [a=b], options: {disableNameSuffixHash: true}}]
""",
}


@dataclass(frozen=True)
class Step:
    """One command line, its expected exit code, and text that the output must contain."""

    line: str
    says: str = ""
    code: int = 0
    same: bool = True
    """Whether the output must be the same on both servers."""


SESSION = (
    Step("create namespace NAMESPACE", "namespace/NAMESPACE created"),
    Step("label namespace NAMESPACE team=a", "labeled"),
    Step("get namespace NAMESPACE --show-labels", "team=a"),
    Step("api-resources --api-group=conformance.example.com", "wi "),
    Step("explain widget", "A widget.", same=False),
    Step("explain widgets.spec", "What is wished."),
    Step("explain widget.spec.ports --recursive", "protocol"),
    Step("explain widget.spec.nothing", "does not exist", 1),
    Step("get widgets", "No resources found"),
    Step("apply -f widget.yaml", "widget.conformance.example.com/a created"),
    Step("apply -f widget.yaml", "unchanged"),
    Step("diff -f changed.yaml", "+  size: 2", 1),
    Step("apply -f changed.yaml --dry-run=server", "configured (server dry run)"),
    Step("apply -f changed.yaml", "configured"),
    Step("get wi", "SIZE"),
    Step("get widgets -o wide", "blue"),
    Step("get widget a -o yaml", "size: 2"),
    Step("get widget a -o name", "widget.conformance.example.com/a"),
    Step("get widgets -o jsonpath={.items[*].spec.size}", "2"),
    Step("get conformance", "a"),
    Step("get widgets -A --no-headers --field-selector metadata.namespace=NAMESPACE"),
    Step("get widgets -l app=shop --sort-by=.spec.size --show-labels", "app=shop"),
    Step("get widgets --field-selector spec.color=red", "No resources found"),
    Step("describe widget a", "Name:         a"),
    Step("apply -f typo.yaml", 'unknown field "spec.siez"', 1),
    Step("apply -f typo.yaml --validate=warn", 'unknown field "spec.siez"'),
    Step("apply -f typo.yaml --validate=false", "typo configured"),
    Step("apply -f invalid.yaml", "spec.size", 1),
    Step("apply -f kindless.yaml", "no matches for kind", 1),
    Step("create -f widget.yaml", "already exists", 1),
    Step("create -f generated.yaml", "created"),
    Step("get sprockets", "the server doesn't have a resource type", 1),
    Step("get widget none", "not found", 1),
    Step("apply --server-side -f changed.yaml --field-manager=other", "serverside-applied"),
    Step("apply --server-side -f widget.yaml --field-manager=third", "conflict", 1),
    Step("apply --server-side -f widget.yaml --field-manager=third --force-conflicts", "serverside-applied"),
    Step("apply --server-side -f widget.yaml", "serverside-applied"),
    Step('patch widget a --type=merge -p {"spec":{"size":7}}', "patched"),
    Step('patch widget a --type=merge -p {"spec":{"size":7}}', "patched (no change)"),
    Step('patch widget a --type=json -p [{"op":"remove","path":"/spec/tags/0"}]', "patched"),
    Step('patch widget a -p {"spec":{"size":7}}', "", 1),
    Step('patch widget a --subresource=status --type=merge -p {"status":{"phase":"Ready"}}', "patched"),
    Step("get widget a --subresource=status -o jsonpath={.status.phase}", "Ready"),
    Step("wait widget/a --for=jsonpath={.status.phase}=Ready --timeout=20s", "condition met"),
    Step("wait widget/a --for=jsonpath={.status.phase}=Never --timeout=1s", "timed out", 1),
    Step("scale widget a --replicas=3", "scaled"),
    Step("label widget a tier=web", "labeled"),
    Step("label widget a tier=api", "already has a value", 1),
    Step("annotate widget a note=hello --overwrite", "annotate"),
    Step("edit widget a", "edited"),
    Step("replace -f widget.yaml", "replaced"),
    Step("apply -k .", "created"),
    Step("create configmap c --from-literal=a=b", "created"),
    Step("get configmap c -o yaml", "a: b"),
    Step("create secret generic s --from-literal=password=secret", "created"),
    Step("describe secret s", "password:  6 bytes"),
    Step("get configmaps,secrets", "secret/s"),
    Step("auth can-i create widgets", "yes"),
    Step("get events", "No resources found"),
    Step("get widgets --chunk-size=1 -o name", "widget.conformance.example.com/a"),
    Step("get --raw /healthz", "ok"),
    Step("get crd widgets.conformance.example.com -o jsonpath={.spec.names.kind}", "Widget"),
    Step("delete widget a", "deleted"),
    Step("delete widget none --ignore-not-found", ""),
    Step("delete -f widget.yaml", "", 1),
    Step("delete widgets --all", "deleted"),
    Step("delete configmap c secret/s", "", 1),
    Step("delete configmap/c secret/s", "deleted"),
    Step("delete namespace NAMESPACE --wait=false", 'namespace "NAMESPACE" deleted'),
)

_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "<time>"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r'(resourceVersion: |Resource Version: *)"?\d+"?'), r"\1<version>"),
    (re.compile(r"\b\d+(ms|[smh])\b"), "<age>"),
    (re.compile(r"(?<=made-)[a-z0-9]{5}\b"), "*****"),
    (re.compile(r"/tmp/\S+"), "<file>"),
    (re.compile(r"  +"), "  "),
)


def _comparable(step: Step, output: str) -> list[str]:
    for pattern, name in _CHANGING:
        output = pattern.sub(name, output)
    # A real server reports the errors of an object in any order.
    return sorted(output.splitlines()) if step.code else output.splitlines()


def _binaries() -> list[str]:
    more = os.environ.get("REMIT_KUBECTL", "")
    return ["newest", *filter(None, more.split(os.pathsep))]


def _explained(server: Server) -> bool:
    """Returns whether the OpenAPI document has the kind; on a real server it is updated after the CRDs."""
    url = f"{server.url}/openapi/v3/apis/{GROUP}/v1"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {server.token}"})
    with urllib.request.urlopen(request, context=server.tls) as answer:
        return b"Widget" in answer.read()


async def _session(kubectl: str, namespace: str, server: Server, home: Path) -> list[tuple[str, list[str]]]:
    home.mkdir()
    for name, text in MANIFESTS.items():
        (home / name).write_text(text)
    editor = home / "editor"
    editor.write_text("#!/bin/sh\nexec sed -i 's/size: 7/size: 8/' \"$1\"\n")
    editor.chmod(0o755)
    env = {"KUBECONFIG": str(server.kubeconfig(home / "config")), "HOME": str(home), "EDITOR": str(editor)}
    env |= {"PATH": os.environ["PATH"], "KUBECTL_EXTERNAL_DIFF": "diff -U0 --label a --label b -r"}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not _explained(server):
            await asyncio.sleep(0.05)
    transcript, unmet = [], []
    for step in SESSION:
        process = await asyncio.create_subprocess_exec(
            *(kubectl, f"--namespace={namespace}", *step.line.replace("NAMESPACE", namespace).split(" ")),
            cwd=home,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode().replace(namespace, "NAMESPACE")
        if process.returncode != step.code or step.says not in output:
            wanted, got = (step.code, step.says), (process.returncode, output)
            unmet.append(f"kubectl {step.line}\n    wanted {wanted}\n    got {got}")
        transcript.append((step.line, _comparable(step, output) if step.same else []))
    assert not unmet, f"against {server.name}:\n" + "\n".join(unmet)
    return transcript


@pytest.mark.parametrize("binary", _binaries(), ids=lambda path: Path(path).name)
async def test_kubectl_session(binary: str, contestants: list[Server], kubectl: str, tmp_path: Path) -> None:
    chosen = kubectl if binary == "newest" else shutil.which(binary)
    require("kubectl", chosen, f"REMIT_KUBECTL names {binary}, which is not there")
    assert chosen
    namespace = re.sub(r"[^a-z0-9]+", "-", f"session-{Path(binary).name}")
    sessions = await both(*(_session(chosen, namespace, server, tmp_path / server.name) for server in contestants))
    if len(sessions) == 2:
        assert sessions[1] == sessions[0]
