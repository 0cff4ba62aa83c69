"""Tests the operator with the permissions of chart and manifests, on an API server that enforces them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import installyaml
from conformance.harness.servers import Server, kube_apiserver, real_server_available
from parts import require
from support import Kubectl, wait_until

ROOT = Path(__file__).parents[2]
ACCOUNT = "system:serviceaccount:remit-system:remit"
SELDOM = {(f"{plural}.remit.dev", "get") for plural in ("commandpolicies", "deployments", "executiontasks")}
"""Permissions for the rare case that another client wrote in between."""

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
RELEASE = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "Deployment",
    "metadata": {"name": "shop"},
    "spec": {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["python3", "app.py"]}}},
}
SHORT_LIVED = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "ExecutionTask",
    "metadata": {"name": "short-lived", "labels": {"example": "hello"}},
    "spec": {"command": {"argv": ["echo", "bye"]}, "ttlSecondsAfterFinished": 0},
}
EVERY_MINUTE = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "ExecutionTask",
    "metadata": {"name": "minutely", "labels": {"example": "hello"}},
    "spec": {"command": {"argv": ["sleep", "600"]}, "schedule": {"cron": "* * * * *"}},
}
MAY_SLEEP = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "CommandPolicy",
    "metadata": {"name": "sleepers"},
    "spec": {"selector": {"matchLabels": {"example": "hello"}}, "commands": {"allow": [{"executable": "sleep"}]}},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("permissions")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    require("kube-apiserver", real_server_available(), "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    policy = home / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(AUDIT_POLICY))
    with kube_apiserver(
        home / "server",
        authorization_mode="RBAC",
        audit_policy_file=policy,
        audit_log_path=home / "requests.jsonl",
    ) as server:
        yield server


@contextmanager
def operator(kubeconfig: Path, home: Path, *flags: str) -> Iterator[Path]:
    log = home / "operator.log"
    command = [
        *(sys.executable, "-m", "remit.cli", "operator", "--kubeconfig", str(kubeconfig)),
        *("--operator-namespace", "remit-system", "--metrics-address", "127.0.0.1:0"),
        *("--state-dir", str(home / "state"), "--log-format", "json", "--backend", "process"),
        *flags,
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | {"PYTHONPATH": "operator"}, cwd=ROOT
        )
    try:
        yield log
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def roles() -> installyaml.Objects:
    """Returns the roles of an operator that runs commands beside it, because nothing runs Jobs here."""
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    texts = installyaml.render({"backends": ["process"], "rbac": {"aggregate": {"enabled": False}}})
    return installyaml.objects({name: texts[name] for name in ("serviceaccount.yaml", "rbac.yaml")})


def granted(roles: installyaml.Objects) -> set[tuple[str, str]]:
    rules = [rule for role in roles for rule in role.get("rules", ())]
    return {
        (
            f"{resource.split('/')[0]}.{group}".rstrip(".") + "".join(f"/{part}" for part in resource.split("/")[1:]),
            verb,
        )
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(requests: Path, account: str = ACCOUNT) -> set[tuple[str, str, bool]]:
    """Returns the operator's requests, and whether they were allowed."""
    found = set()
    for line in requests.read_text().splitlines():
        request = json.loads(line)
        if request["user"]["username"] != account or "objectRef" not in request:
            continue
        what = request["objectRef"]
        resource = f"{what['resource']}.{what.get('apiGroup', '')}".rstrip(".")
        subresource = f"/{what['subresource']}" if "subresource" in what else ""
        allowed = request["annotations"]["authorization.k8s.io/decision"] == "allow"
        found.add((resource + subresource, request["verb"], allowed))
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_operator_needs_what_it_is_granted_and_no_more(
    server: Server, kubectl: str, home: Path, roles: installyaml.Objects
) -> None:
    run = Kubectl(kubectl, server.kubeconfig(home / "admin")).ok
    run("apply", "--server-side", "-f", str(ROOT / "crds"))
    run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    run("create", "namespace", "remit-system")
    run("create", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": roles})
    token = run("create", "token", "remit", "--namespace", "remit-system").strip()
    account = replace(server, token=token).kubeconfig(home / "account")

    with operator(account, home) as log:
        for example in ("01-hello.yaml", "04-env-and-secrets.yaml"):
            run("apply", "-f", str(ROOT / "manifests/examples" / example))
        for name in ("hello", "greeter"):
            run("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=60s")
            assert run("get", "executiontask", name, "-o", "jsonpath={.status.phase}") == "Succeeded", log.read_text()
        run("create", "-f", "-", given=RELEASE)
        pending = "jsonpath={.status.phase}=Pending"  # no policy allows it
        run("wait", f"--for={pending}", "deployments.remit.dev/shop", "--timeout=60s")
        run("create", "-f", "-", given=SHORT_LIVED)
        run("wait", "--for=delete", "executiontask/short-lived", "--timeout=60s")
        run("create", "-f", "-", given=MAY_SLEEP)
        run("create", "-f", "-", given=EVERY_MINUTE)
        phases = "jsonpath={.items[*].status.phase}"
        running = ("get", "executiontasks", "-l", "remit.dev/schedule=minutely", "-o", phases)
        wait_until(lambda: "Running" in run(*running), "the next minute", seconds=90)
        run("patch", "executiontask", "minutely", "--type=merge", "-p", '{"spec": {"cancel": true}}')
        run("wait", "--for=condition=Finished", "executiontask/minutely", "--timeout=60s")
        wait_until(lambda: run("get", "events", "-o", "name"), "an Event")
        wait_until(lambda: ("leases.coordination.k8s.io", "update", True) in asked(home / "requests.jsonl"), "renewal")

    requests = asked(home / "requests.jsonl")
    assert {request for request in requests if not request[2]} == set(), "refused"
    used = {(resource, verb) for resource, verb, _ in requests if not resource.startswith("self")}
    assert used - granted(roles) == set()
    assert granted(roles) - used <= SELDOM, "granted and never used"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_operator_of_named_namespaces_needs_nothing_elsewhere(server: Server, kubectl: str, home: Path) -> None:
    """The operator reads the ceiling in its own namespace, and the Secret of a task in the served one only."""
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    run = Kubectl(kubectl, server.kubeconfig(home / "admin")).ok
    run("apply", "--server-side", "-f", str(ROOT / "crds"))
    run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    for namespace in ("operators", "served"):
        run("create", "namespace", namespace)
    values = {"backends": ["process"], "namespaces": ["served"]}
    texts = installyaml.render(values, name="named", namespace="operators")
    roles = installyaml.objects({name: texts[name] for name in ("serviceaccount.yaml", "rbac.yaml")})
    run("create", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": roles})
    token = run("create", "token", "named-remit", "--namespace", "operators").strip()
    account = replace(server, token=token).kubeconfig(home / "named")
    flags = ("--namespace=served", "--operator-namespace=operators", "--lease-name=named-remit-operator")
    state = home / "named-state"
    state.mkdir()
    with operator(account, state, *flags) as log:
        ceiling = {"commands": {"allow": [{"executable": "printenv"}]}, "environment": {"allow": ["*"]}}
        body = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy", "metadata": {"name": "ceiling"}}
        run("create", "-n", "operators", "-f", "-", given=body | {"spec": ceiling})
        ready = ("wait", "--for=condition=Ready", "commandpolicy/ceiling", "-n", "operators", "--timeout=60s")
        run(*ready)
        run("apply", "-n", "served", "-f", str(ROOT / "manifests/examples/04-env-and-secrets.yaml"))
        run("wait", "-n", "served", "--for=condition=Finished", "executiontask/greeter", "--timeout=60s")
        phase = run("get", "-n", "served", "executiontask", "greeter", "-o", "jsonpath={.status.phase}")
        assert phase == "Succeeded", log.read_text()
        who, renewed = "system:serviceaccount:operators:named-remit", ("leases.coordination.k8s.io", "update", True)
        wait_until(lambda: renewed in asked(home / "requests.jsonl", who), "renewal")
    requests = asked(home / "requests.jsonl", who)
    assert {request for request in requests if not request[2]} == set(), "refused"
    may = Kubectl(kubectl, account)
    for namespace, answer in {"served": "yes", "operators": "no", "default": "no"}.items():
        assert may("auth", "can-i", "get", "secrets", "-n", namespace).stdout.strip() == answer, namespace
    other = ("auth", "can-i", "update", "leases.coordination.k8s.io/remit-operator", "-n", "operators")
    assert may(*other).stdout.strip() == "no", "the Lease of another installation"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_who_asked_is_stamped_and_cannot_be_forged(server: Server, kubectl: str, tmp_path: Path) -> None:
    run = Kubectl(kubectl, server.kubeconfig(tmp_path / "admin"))
    run.ok("apply", "--server-side", "-f", str(ROOT / "crds"))
    run.ok("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    run.ok("apply", "-k", str(ROOT / "manifests/requested-by"))
    run.ok("create", "clusterrolebinding", "everyone", "--clusterrole=cluster-admin", "--user=alice", "--user=bob")
    stamped = "jsonpath={.metadata.annotations.remit\\.dev/requested-by}"
    forged = yaml.safe_load(yaml.safe_dump(SHORT_LIVED))
    forged["metadata"]["annotations"] = {"remit.dev/requested-by": "bob"}

    def created() -> str:
        run.ok("delete", "executiontask", "--all")
        # The admission of a real API server knows a new kind later than its discovery.
        if run("create", "--as=alice", "-f", "-", given=forged).returncode != 0:
            return ""
        return run.ok("get", "executiontask", "short-lived", "-o", stamped)

    wait_until(lambda: created() == "alice", "the admission policies to be in force")
    for change in (("remit.dev/requested-by=bob", "--overwrite"), ("remit.dev/requested-by-",)):
        refused = run.refused("annotate", "executiontask", "short-lived", *change, "--as=bob")
        assert "cannot be chosen or changed" in refused
    run.ok("label", "executiontask", "short-lived", "other=change", "--as=bob")
    assert run.ok("get", "executiontask", "short-lived", "-o", stamped) == "alice"
    # What the operator creates for a schedule keeps the name of the schedule's author.
    run.ok("delete", "executiontask", "--all")
    run.ok("create", "clusterrolebinding", "operator", "--clusterrole=cluster-admin", f"--user={ACCOUNT}")
    run.ok("create", f"--as={ACCOUNT}", "-f", "-", given=forged)
    assert run.ok("get", "executiontask", "short-lived", "-o", stamped) == "bob"
