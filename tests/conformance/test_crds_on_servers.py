"""Tests the CRDs on real API servers: what kubectl shows users, and its messages about mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conformance.harness.servers import Server
from parts import require
from support import Kubectl, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["embedded", "kube-apiserver"])
def cluster(
    request: pytest.FixtureRequest,
    contestants: list[Server],
    kubectl: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Kubectl:
    found = next((server for server in contestants if server.name == request.param), None)
    require(request.param, found, "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    assert found
    run = Kubectl(kubectl, found.kubeconfig(tmp_path_factory.mktemp("client") / "kubeconfig"))
    run.ok("apply", "--server-side", "-f", str(ROOT / "crds"))
    run.ok("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    run.ok("wait", "--for=create", "namespace/default", "--timeout=30s")
    kinds = ("api-resources", "--categories=remit", "-o", "name")  # this also renews kubectl's discovery cache
    wait_until(lambda: len(run.ok(*kinds).split()) == 3, "the kinds in the server's discovery")
    return run


def obj(kind: str, spec: dict[str, Any], name: str = "it") -> dict[str, Any]:
    return {"apiVersion": "remit.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def task(name: str = "it", **spec: Any) -> dict[str, Any]:
    return obj("ExecutionTask", {"command": {"line": "echo hi"}} | spec, name)


def test_crds_apply_again_without_a_change(cluster: Kubectl) -> None:
    applied = cluster.ok("apply", "--server-side", "-f", str(ROOT / "crds"))
    assert applied.count("serverside-applied") == 3
    assert "remit.dev" in cluster.ok("api-resources", "--categories=remit", "-o", "name")


def test_explain_teaches(cluster: Kubectl) -> None:
    text = " ".join(cluster.ok("explain", "executiontask.spec.retry").split())
    assert "When a failed attempt is retried." in text
    assert "maxRetries <integer>" in text
    assert "Number of further attempts after one that failed or timed out." in text
    assert "enum: Fail, Retry" in text
    text = " ".join(cluster.ok("explain", "executiontask.spec.env").split())
    assert "A policy's `environment.allow` must list each name" in text
    text = " ".join(cluster.ok("explain", "commandpolicy.spec.environment.allow").split())
    assert "Names of variables that tasks may set, such as `PGPASSWORD`" in text
    assert "FIELD: backoff <Object>" in " ".join(cluster.ok("explain", "et.spec.retry.backoff").split())


def test_paths_with_dots_and_crons_with_spaces_are_taken(cluster: Kubectl) -> None:
    """The values only look like traversal, or like additional fields."""
    for number, path in enumerate(("/a/..b", "/a/.../b", "/.a/b.", "/a/b..c")):
        cluster.ok(
            "create", "-f", "-", given=obj("ExecutionTask", {"file": {"operation": "stat", "path": path}}, f"p{number}")
        )
    cluster.ok("create", "-f", "-", given=task("spaces", schedule={"cron": " 0  2 * * MON-FRI "}))


def test_what_is_not_said_is_filled_in(cluster: Kubectl) -> None:
    cluster.ok("create", "-f", "-", given=task("defaults"))
    stored = json.loads(cluster.ok("get", "et", "defaults", "-o", "json"))
    assert stored["spec"]["retry"]["backoff"] == {"initialSeconds": 1, "factor": 2, "maxSeconds": 60, "jitter": 0.1}
    assert stored["spec"]["output"] == {"tailBytes": 4096, "maxBytes": "10Mi", "raw": False}
    assert stored["status"] == {"observedGeneration": -1, "phase": "Pending"}, (
        "kstatus would call it finished otherwise"
    )
    assert "resources" not in stored["spec"]


def test_columns_and_short_names_and_selectors(cluster: Kubectl) -> None:
    cluster.ok("create", "-f", "-", given=task("columns", backend="docker", image="busybox"))
    cluster.ok("create", "-f", "-", given=obj("CommandPolicy", {}, "columns"))
    release = {"artifact": {"image": "shop:v2"}, "target": {"docker": {}}}
    cluster.ok("create", "-f", "-", given=obj("Deployment", release, "columns"))
    header = cluster.ok("get", "et").splitlines()[0].split()
    assert header == ["NAME", "OPERATION", "BACKEND", "PHASE", "ATTEMPTS", "DURATION", "AGE"]
    header = cluster.ok("get", "rdeploy").splitlines()[0].split()
    assert header == ["NAME", "PHASE", "STAGE", "ACTIVE", "PREVIEW", "READY", "AGE"]
    assert "Enforce" in cluster.ok("get", "cmdpol", "columns")
    assert "columns" in cluster.ok("get", "remit", "-A")
    selected = cluster.ok("get", "et", "--field-selector=spec.backend=docker", "-o", "name")
    assert selected.split() == ["executiontask.remit.dev/columns"]


def test_a_release_scales_by_kubectl(cluster: Kubectl) -> None:
    release = {"artifact": {"image": "shop:v2"}, "target": {"docker": {}}}
    cluster.ok("create", "-f", "-", given=obj("Deployment", release, "scaled"))
    cluster.ok("scale", "deployments.remit.dev/scaled", "--replicas=3")
    assert cluster.ok("get", "rdeploy", "scaled", "-o", "jsonpath={.spec.replicas}") == "3"


MISTAKES: list[tuple[dict[str, Any], str]] = [
    (task(comand={}), 'unknown field "spec.comand"'),
    (
        task(http={"url": "http://example/"}),
        "set exactly one of command, script, file, process, http, redis, postgres or container",
    ),
    (obj("ExecutionTask", {}), "set exactly one of command"),
    (task(command={"line": "x", "argv": ["x"]}), "spec.command: Invalid value: set exactly one of argv or line"),
    (task(backend="process", image="debian:12"), "image goes with backends docker and kubernetes"),
    (task(schedule={"cron": "every day"}), "spec.schedule.cron: Invalid value: cron has five fields"),
    (task(schedule={"cron": "61 * * * *"}), "spec.schedule.cron: Invalid value: the minute of cron is 0 to 59"),
    (task(schedule={"cron": "0 24 * * *"}), "spec.schedule.cron: Invalid value: the hour of cron is 0 to 23"),
    (task(schedule={"cron": "0 0 0 * *"}), "spec.schedule.cron: Invalid value: the day of month of cron is 1 to 31"),
    (task(schedule={"cron": "0 0 * jax *"}), "spec.schedule.cron: Invalid value: the month of cron is 1 to 12"),
    (task(schedule={"cron": "0 0 * * 1-8"}), "spec.schedule.cron: Invalid value: the day of week of cron is 0 to 7"),
    (task(schedule={"cron": "*/0 * * * *"}), "spec.schedule.cron: Invalid value: the minute of cron"),
    (task(schedule={"cron": "0 2 * * *", "timeZone": "Europe Paris"}), "timeZone is an IANA name"),
    *(
        (obj("ExecutionTask", {"command": {"line": line}}), "spec.command.line: Invalid value: a quote is not closed")
        for line in ("echo 'a", 'echo "a', "echo \\", 'echo "a\\"', "echo 'a' \"b'")
    ),
    *(
        (
            obj("ExecutionTask", {"file": {"operation": "copy", "path": "/a", "destination": "/b", field: path}}),
            f"spec.file.{field}: Invalid value: write the path without '..', '.', '//' or a final '/'",
        )
        for field, path in (("path", "/a/../b"), ("path", "/a/."), ("path", "/a//b"), ("destination", "/a/"))
    ),
    (task(backend="dokcer"), 'supported values: "process", "docker", "kubernetes"'),
    (task(resources={"memory": "lots"}), 'spec.resources.memory: Invalid value: "lots"'),
    (task(resources={"cpu": -1}), "spec.resources.cpu: Invalid value: -1: must be a quantity, such as 500m"),
    (task(retry={"maxRetries": -1}), "spec.retry.maxRetries in body should be greater than or equal to 0"),
    (task(command={"argv": "echo"}), "spec.command.argv in body must be of type array"),
    (task(env=[{"name": "A"}, {"name": "A"}]), "spec.env[1]: Duplicate value"),
    (task(env=[{"name": "A", "value": "1", "valueFrom": {}}]), "spec.env[0].valueFrom"),
    (task(env=[{"name": "BASH_FUNC_ls%%", "value": "1"}]), "spec.env[0].name"),
    (task(envFrom=[{"prefix": "A\nB=", "configMapRef": {"name": "a"}}]), "spec.envFrom[0].prefix"),
    *(
        (task(workingDir=path), "spec.workingDir: Invalid value: workingDir is /workspace, which is private")
        for path in ("/run/p", "/etc", "/tmp/a", "/workspacex", "/")
    ),
    *(
        (
            obj("ExecutionTask", {**operation, "workingDir": "/workspace/a"}),
            "spec.workingDir: Invalid value: workingDir goes with command, script and the start of a process",
        )
        for operation in (
            {"container": {"action": "exec", "name": "web", "argv": ["ls"]}},
            {"file": {"operation": "stat", "path": "/a"}},
            {"process": {"action": "stop", "name": "web"}},
        )
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"docker": {}},
                "stages": {"prePromotion": [{"name": "a", "task": {"command": {"line": "a"}, "workingDir": "/a"}}]},
            },
        ),
        "workingDir is /workspace, which is private",
    ),
    (obj("CommandPolicy", {"environment": {"allow": ["A B"]}}), "spec.environment.allow[0]"),
    (
        task("a" * 53, schedule={"cron": "* * * * *"}),
        "metadata.name: Invalid value: a scheduled task's name has at most 52 characters",
    ),
    (
        obj("CommandPolicy", {"commands": {"allow": [{"pattern": "a", "executable": "b"}]}}),
        "spec.commands.allow[0]: Invalid value: set exactly one of pattern or executable",
    ),
    (
        obj("CommandPolicy", {"limits": {"timeoutSeconds": {"default": 5, "max": 2}}}),
        "spec.limits.timeoutSeconds: Invalid value: default must not be above max",
    ),
    (
        obj("Deployment", {"artifact": {"image": "x"}, "target": {"process": {"command": ["x"]}}}),
        "target process needs artifact.path or artifact.archive, not an image",
    ),
    (
        obj(
            "Deployment",
            {"artifact": {"archive": "https://a.example/b.tgz"}, "target": {"process": {"command": ["x"]}}},
        ),
        "an archive at an address needs sha256",
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"docker": {}},
                "healthCheck": {"command": {"argv": ["x"]}, "successThreshold": 2},
            },
        ),
        "leave successThreshold at 1",
    ),
    (
        obj(
            "Deployment",
            {"artifact": {"image": "x"}, "target": {"docker": {}}, "healthCheck": {"http": {"port": "web"}}},
        ),
        "healthCheck.http.port names none of ports",
    ),
    (
        obj(
            "Deployment",
            {"artifact": {"image": "x"}, "target": {"docker": {}}, "livenessCheck": {"tcp": {"port": "web"}}},
        ),
        "livenessCheck.tcp.port names none of ports",
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"docker": {}},
                "livenessCheck": {"tcp": {"port": 80}, "successThreshold": 2},
            },
        ),
        "should be less than or equal to 1",
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"docker": {}},
                "healthCheck": {"command": {"argv": ["x"]}},
                "livenessCheck": {"command": {"argv": ["x"]}},
            },
        ),
        "a Docker engine runs one command for a container",
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"kubernetes": {}},
                "stages": {"failureThresholdPercent": 1},
            },
        ),
        "on Kubernetes nothing counts requests",
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"docker": {}},
                "ports": [{"name": "a", "containerPort": 80}, {"name": "b", "containerPort": 81, "published": 80}],
            },
        ),
        "two of ports are published at the same one",
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"docker": {}},
                "ports": [{"name": "a", "containerPort": 80}],
                "strategy": {"blueGreen": {"previewPort": 80}},
            },
        ),
        "previewPort is published already",
    ),
    (
        obj("Deployment", {"artifact": {"image": "x"}, "target": {"docker": {}}, "strategy": {"type": "Canary"}}),
        "type Canary needs canary.steps",
    ),
    (
        obj(
            "Deployment",
            {
                "artifact": {"image": "x"},
                "target": {"docker": {}},
                "strategy": {"type": "Rolling", "rolling": {"maxSurge": "0%"}},
            },
        ),
        "maxSurge and maxUnavailable must not both be 0",
    ),
]


@pytest.fixture(scope="module")
def complaints(cluster: Kubectl) -> list[str]:
    """Returns kubectl's message about each mistake. One call creates all objects, because separate processes would take
    a minute."""
    items = [given | {"metadata": {"name": _name(number, given)}} for number, (given, _) in enumerate(MISTAKES)]
    told = cluster.refused("create", "-f", "-", given="\n---\n".join(map(json.dumps, items)))
    return re.split(r"^(?=Error from server|The \S+ \".*\" is invalid)", told, flags=re.MULTILINE)[1:]


def _name(number: int, given: dict[str, Any]) -> str:
    name = given["metadata"]["name"]
    return f"mistake-{number}" if name == "it" else name


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[told for _, told in MISTAKES])
def test_a_mistake_is_told(complaints: list[str], number: int) -> None:
    assert len(complaints) == len(MISTAKES), complaints
    assert MISTAKES[number][1] in complaints[number]


def test_no_mistake_is_stored(cluster: Kubectl, complaints: list[str]) -> None:
    stored = cluster.ok("get", "remit", "-o", "name").splitlines()
    names = {_name(number, given) for number, (given, _) in enumerate(MISTAKES)}
    assert not names & {each.partition("/")[2] for each in stored}


def patch(name: str, **spec: Any) -> tuple[str, ...]:
    return ("patch", "et", name, "--type=merge", "--patch", json.dumps({"spec": spec}))


def test_what_a_task_does_cannot_be_changed_later(cluster: Kubectl) -> None:
    cluster.ok("create", "-f", "-", given=task("fixed"))
    for field, value in {
        "command": {"line": "echo other"},
        "env": [{"name": "A", "value": "b"}],
        "timeoutSeconds": 5,
        "retry": {"maxRetries": 5},
        "resources": {"memory": "1Gi"},
        "network": "host",
        "stdin": "text",
    }.items():
        told = cluster.refused(*patch("fixed", **{field: value}))
        assert f"{field} cannot be changed after the task is created" in told, field
    assert "schedule cannot be added or removed" in cluster.refused(*patch("fixed", schedule={"cron": "* * * * *"}))


def test_a_task_can_be_cancelled_and_that_holds(cluster: Kubectl) -> None:
    cluster.ok("create", "-f", "-", given=task("cancelled"))
    cluster.ok(*patch("cancelled", cancel=True, ttlSecondsAfterFinished=60))
    assert "cancel cannot be taken back" in cluster.refused(*patch("cancelled", cancel=False))
    assert "cancel cannot be taken back" in cluster.refused(*patch("cancelled", cancel=None))
    cluster.ok(*patch("cancelled", ttlSecondsAfterFinished=None))


def test_of_a_schedule_only_suspend_changes(cluster: Kubectl) -> None:
    cluster.ok("create", "-f", "-", given=task("scheduled", schedule={"cron": "0 2 * * *"}))
    cluster.ok(*patch("scheduled", schedule={"suspend": True}))
    cluster.ok(*patch("scheduled", schedule={"suspend": False}))
    for field, value in {"cron": "0 3 * * *", "startingDeadlineSeconds": 60, "timeZone": "Europe/Paris"}.items():
        told = cluster.refused(*patch("scheduled", schedule={field: value}))
        assert "of schedule only suspend can be changed" in told, field
    assert "schedule cannot be added or removed" in cluster.refused(*patch("scheduled", schedule=None))


def test_what_runs_does_not_move(cluster: Kubectl) -> None:
    """Remit would otherwise have to clean up in two places at once."""
    for kind, place in {
        "docker": {"host": "unix:///run/other.sock"},
        "kubernetes": {"namespace": "elsewhere"},
    }.items():
        release = obj("Deployment", {"artifact": {"image": "shop:v1"}, "target": {kind: {}}}, f"moved-{kind}")
        cluster.ok("create", "-f", "-", given=release)
        change = ("patch", "deployments.remit.dev", f"moved-{kind}", "--type=merge", "--patch")
        cluster.ok(*change, json.dumps({"spec": {"target": {kind: {"command": ["/serve"]}}}}))
        assert "what runs cannot move" in cluster.refused(*change, json.dumps({"spec": {"target": {kind: place}}}))
        other = {"docker": "kubernetes", "kubernetes": "docker"}[kind]
        told = cluster.refused(*change, json.dumps({"spec": {"target": {kind: None, other: {}}}}))
        assert "what runs cannot move to another kind of target" in told


def test_the_examples_are_accepted(cluster: Kubectl) -> None:
    for path in sorted((ROOT / "manifests/examples").glob("0[1-9]-*.yaml")):
        cluster.ok("apply", "--dry-run=server", "-f", str(path))
