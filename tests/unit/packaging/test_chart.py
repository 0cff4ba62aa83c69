"""Tests the chart, rendered by Helm's own engine."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import installyaml
import remit
from parts import require
from remit import safeyaml
from remit.api import crd
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.api.quantity import parse_bytes
from remit.cli.app import app
from remit.controllers.settings import Settings
from remit.notifications.alert import AlertName
from remit.notifications.config import NotificationConfig

pytestmark = pytest.mark.no_cover

ROOT, CHART = installyaml.ROOT, installyaml.CHART
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def helm() -> Any:
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    import helm_python

    return helm_python


def render(helm: Any, **values: Any) -> dict[str, str]:
    return installyaml.render(values)


def objects(texts: dict[str, str]) -> Objects:
    """Returns the objects by kind and name, without the CRDs, which take longer to parse than all others."""
    found = installyaml.objects({name: text for name, text in texts.items() if name != "crds.yaml"})
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def workload(found: Objects) -> dict[str, Any]:
    return next(document for (kind, _), document in found.items() if kind in {"Deployment", "StatefulSet"})


def pod(found: Objects) -> dict[str, Any]:
    return workload(found)["spec"]["template"]["spec"]


def operator_container(found: Objects) -> dict[str, Any]:
    (container,) = pod(found)["containers"]
    return container


def test_helm_finds_nothing_to_blame(helm: Any) -> None:
    verdict = helm.lint(str(CHART))
    assert verdict["errors"] == []
    assert [message["error"] for message in verdict["messages"]] == ["icon is recommended"]


def test_the_chart_speaks_of_this_version() -> None:
    chart = safeyaml.load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == remit.__version__


def test_crds_are_the_generated_ones(helm: Any) -> None:
    text = render(helm, crds={"keep": False})["crds.yaml"]
    for name, content in crd.files().items():
        assert content in text, name
        assert (CHART / "files/crds" / name).read_text() == content


def test_crds_outlive_the_chart(helm: Any) -> None:
    kept = [document for document in safeyaml.load_all(render(helm)["crds.yaml"]) if document]
    for document in kept:
        assert document["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert sorted(kept, key=str) == sorted(crd.crds(), key=str)
    assert not render(helm, crds={"install": False})["crds.yaml"].strip()


OPERATOR = typer.main.get_command(app).commands["operator"]
JOB_VERBS = {
    ("batch", "jobs"): ["get", "create", "delete"],
    ("", "pods"): ["list", "watch"],
    ("", "pods/log"): ["get"],
    ("", "persistentvolumeclaims"): ["get", "list", "create", "patch", "delete"],
    ("networking.k8s.io", "networkpolicies"): ["get", "create", "delete"],
}


def granted(found: Objects) -> dict[tuple[str, str], set[str]]:
    """Returns the verbs of each resource, of all roles together."""
    verbs: dict[tuple[str, str], set[str]] = {}
    for (kind, _), role in found.items():
        for rule in role["rules"] if kind in {"Role", "ClusterRole"} else ():
            for group, resource in itertools.product(rule["apiGroups"], rule["resources"]):
                verbs.setdefault((group, resource), set()).update(rule["verbs"])
    return verbs


@pytest.mark.parametrize("backends", [[], ["kubernetes"], ["process", "kubernetes"], ["process"]], ids=str)
def test_jobs_are_granted_where_tasks_run_as_jobs(helm: Any, backends: list[str]) -> None:
    verbs = granted(objects(render(helm, backends=backends)))
    if backends == ["process"]:
        assert not verbs.keys() & JOB_VERBS.keys()
        assert verbs["", "secrets"] == {"get"}
        return
    assert {key: sorted(verbs[key]) for key in JOB_VERBS} == {key: sorted(JOB_VERBS[key]) for key in JOB_VERBS}
    assert verbs["", "events"] == {"create", "list"}
    assert verbs["", "secrets"] == {"get", "create", "delete"}
    assert verbs["", "configmaps"] == {"get"}


def operator_settings(found: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Returns the operator's settings that follow from the command line and the environment of the pod."""
    given: list[Settings] = []

    async def take(settings: Settings, *_: Any) -> None:
        given.append(settings)

    monkeypatch.setattr("remit.cli.serve.operator", take)
    monkeypatch.setattr("remit.cli.logsetup.set_up_logs", lambda *_, **__: None)
    container = operator_container(found)
    environment = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    assert environment.keys() <= {parameter.envvar for parameter in OPERATOR.params}
    here = [f"--state-dir={tmp_path}" if each.startswith("--state-dir") else each for each in container["args"]]
    done = CliRunner().invoke(app, here, env={"REMIT_DEFAULT_IMAGE": "", "REMIT_IMAGE": ""} | environment)
    assert done.exit_code == 0, done.output
    return given[0]


def test_values_reach_the_operator(helm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = operator_settings(objects(render(helm)), monkeypatch, tmp_path)
    assert (usual.backends, usual.image) == ((), f"remit-operator:{remit.__version__}")
    assert usual.remit_image == usual.image
    assert (usual.max_concurrent, usual.artifact_bytes) == (32, 5 << 30)
    assert (usual.lease_name, usual.replicas, usual.namespaces) == ("remit-operator", 1, ())
    assert not (usual.accept_unenforced_network or usual.trust_requested_by)
    values = {
        "backends": ["process", "kubernetes"],
        "defaultImage": "registry.example/tools:1",
        "acceptUnenforcedNetwork": True,
        "workspaces": {"storageClassName": "shared"},
        "maxConcurrent": 5,
        "maxArtifacts": "1Gi",
        "anomalies": False,
        "retention": {
            "outputMaxAge": "12h",
            "maxOutput": "3Gi",
            "artifactsMaxAge": "2w",
            "auditMaxAge": "365d",
            "maxAudit": "off",
            "finishedTaskTTL": "off",
        },
        "replicaCount": 2,
        "namespaces": ["team-a", "team-b"],
        "requestedBy": {"trust": True},
        "fullnameOverride": "other",
        "logs": {"level": "debug"},
        "extraArgs": ["--read-only-path=/opt"],
    }
    told = operator_settings(objects(render(helm, **values)), monkeypatch, tmp_path)
    assert (told.backends, told.image) == (("process", "kubernetes"), "registry.example/tools:1")
    assert told.remit_image == usual.image
    assert (told.max_concurrent, told.artifact_bytes, told.storage_class) == (5, 1 << 30, "shared")
    assert (told.output_age_seconds, told.output_bytes) == (43_200, 3 << 30)
    assert (told.artifact_age_seconds, told.audit_age_seconds, told.audit_bytes) == (14 * 86_400, 365 * 86_400, None)
    assert told.finished_task_ttl is None
    assert (usual.anomalies, told.anomalies) == (True, False)
    assert (told.lease_name, told.replicas, told.namespaces) == ("other-operator", 2, ("team-a", "team-b"))
    assert told.accept_unenforced_network
    assert told.trust_requested_by
    assert told.read_only_paths == (Path("/opt"),)
    assert operator_settings(objects(render(helm, defaultImage="off")), monkeypatch, tmp_path).image == ""


def test_what_is_kept_fits_the_volume(helm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = objects(render(helm))
    usual = operator_settings(found, monkeypatch, tmp_path)
    (size,) = [each["emptyDir"]["sizeLimit"] for each in pod(found)["volumes"] if each["name"] == "state"]
    limits = (usual.artifact_bytes, usual.output_bytes, usual.audit_bytes)
    running = 2 * usual.max_concurrent * (10 << 20)
    assert sum(limit or parse_bytes(size) for limit in limits) + running <= parse_bytes(size) - (1 << 30)


def test_the_image_may_be_a_digest(helm: Any) -> None:
    digest = "sha256:" + "a" * 64
    found = objects(render(helm, image={"repository": "r.example/remit", "tag": "1", "digest": digest}))
    container = operator_container(found)
    assert container["image"] == f"r.example/remit@{digest}"
    for variable in ("REMIT_IMAGE", "REMIT_DEFAULT_IMAGE"):
        assert {"name": variable, "value": container["image"]} in container["env"]


def test_user_namespaces_are_for_the_backend_process(
    helm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = objects(render(helm, sandbox={"userNamespaces": True}))
    assert operator_settings(found, monkeypatch, tmp_path).backends == ("kubernetes", "process")
    with pytest.raises(helm.HelmError, match="add process to backends"):
        render(helm, sandbox={"userNamespaces": True}, backends=["kubernetes"])
    with pytest.raises(helm.HelmError, match="set dockerHost"):
        render(helm, backends=["docker"])


def test_user_namespaces_are_granted_only_when_asked_for(helm: Any) -> None:
    usual = pod(objects(render(helm)))
    assert "hostUsers" not in usual
    assert usual["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    granted = pod(objects(render(helm, sandbox={"userNamespaces": True})))
    assert granted["hostUsers"] is False
    assert granted["securityContext"] == usual["securityContext"] | {"seccompProfile": {"type": "Unconfined"}}
    context = usual["containers"][0]["securityContext"]
    assert granted["containers"][0]["securityContext"] == context | {"procMount": "Unmasked"}


def test_an_operator_in_the_image_can_be_killed_by_what_it_started() -> None:
    """The first process of a container cannot be killed from inside."""
    assert 'ENTRYPOINT ["tini", "--", "remit"]' in (ROOT / "Dockerfile").read_text()


def test_every_value_is_used() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    used = set(re.findall(r"\.Values\.(\w+)", templates))
    assert used == safeyaml.load((CHART / "values.yaml").read_text()).keys()


def test_each_feature_has_a_role_of_its_own(helm: Any) -> None:
    usual = {name for kind, name in objects(render(helm)) if kind == "ClusterRole"}
    assert {name for name in usual if "view" not in name and "edit" not in name} == {
        "remit.remit-system",
        "remit-jobs.remit-system",
    }
    found = objects(render(helm, releases={"kubernetes": True}))
    assert {name for kind, name in found if kind == "ClusterRole"} - usual == {"remit-releases.remit-system"}
    assert granted(found)["apps", "deployments"] == {"get", "list", "create", "patch", "delete"}
    assert ("apps", "deployments") not in granted(objects(render(helm)))
    assert not [
        kind for kind, _ in objects(render(helm, rbac={"create": False})) if "Role" in kind and "hook" not in kind
    ]


def test_the_operator_has_its_own_lease_and_no_other(helm: Any) -> None:
    found = objects(render(helm, fullnameOverride="other"))
    named, unnamed = found["Role", "other-lease"]["rules"]
    assert (named["resourceNames"], named["verbs"]) == (["other-operator"], ["get", "update"])
    assert ("resourceNames" in unnamed, unnamed["verbs"]) == (False, ["create"])
    assert "--lease-name=other-operator" in operator_container(found)["args"]


EVERYTHING = {
    "releases": {"kubernetes": True},
    "networkPolicy": {"enabled": True},
    "persistence": {"enabled": True},
    "replicaCount": 2,
    "podDisruptionBudget": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "metrics": {"tokenSecret": {"name": "metrics-token"}},
    "rbac": {"aggregate": {"policies": True}},
    "artifacts": {"s3": {"bucket": "kept", "existingSecret": "store", "caConfigMap": "authorities"}},
}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["usual", "everything"])
def test_named_namespaces_get_roles_and_the_cluster_nothing(helm: Any, values: dict[str, Any]) -> None:
    found = installyaml.objects(render(helm, namespaces=["team-a", "team-b"], **values))
    assert all(document["metadata"].get("namespace") for document in found), "all of it is in namespaces"
    reading_secrets = {
        document["metadata"]["namespace"]
        for document in found
        if document["kind"] == "Role"
        for rule in document["rules"]
        if "secrets" in rule["resources"]
    }
    assert reading_secrets == {"team-a", "team-b"}, "and not the operator's own"
    own = [document for document in found if document["metadata"]["name"] == "remit-ceiling"]
    assert [document["kind"] for document in own] == ["Role", "RoleBinding"]
    assert {document["metadata"]["namespace"] for document in own} == {"remit-system"}
    bound = [document for document in found if document["kind"] == "RoleBinding"]
    assert {(each["name"], each["namespace"]) for document in bound for each in document["subjects"]} == {
        ("remit", "remit-system")
    }


def test_an_operator_that_serves_its_own_namespace_needs_no_other_role_there(helm: Any) -> None:
    found = installyaml.objects(render(helm, namespaces=["remit-system"]))
    assert {document["metadata"]["namespace"] for document in found} == {"remit-system"}
    assert "remit-ceiling" not in {document["metadata"]["name"] for document in found}


def names(found: installyaml.Objects) -> set[tuple[str, str, str]]:
    return {
        (document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"])
        for document in found
        if document["kind"] != "CustomResourceDefinition"
    }


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ({"namespace": "one"}, {"namespace": "another"}),
        (
            {"namespace": "one", "values": {"namespaces": ["team-a", "shared"]}},
            {"namespace": "another", "values": {"namespaces": ["team-b", "shared"]}},
        ),
        (
            {"name": "one", "namespace": "same", "values": {"namespaces": ["team-a"]}},
            {"name": "another", "namespace": "same", "values": {"namespaces": ["team-b"]}},
        ),
        ({"name": "a.b", "namespace": "c"}, {"name": "a", "namespace": "b"}),
    ],
    ids=["one name", "one name and named namespaces", "one namespace", "dots"],
)
def test_two_installations_share_no_object(one: dict[str, Any], another: dict[str, Any]) -> None:
    rendered = [installyaml.objects(installyaml.render(**given)) for given in (one, another)]
    assert names(rendered[0]) & names(rendered[1]) == set()
    leases, selectors = [], []
    for found in rendered:
        (running,) = [document for document in found if document["kind"] == "Deployment"]
        (container,) = running["spec"]["template"]["spec"]["containers"]
        lease = next(each for each in container["args"] if each.startswith("--lease-name="))
        leases.append((running["metadata"]["namespace"], lease))
        selectors.append((running["metadata"]["namespace"], running["spec"]["selector"]["matchLabels"]))
    assert leases[0] != leases[1]
    assert selectors[0] != selectors[1]


@pytest.mark.parametrize(
    ("values", "brought"),
    [
        ({}, True),
        ({"namespaces": ["team-a"]}, False),
        ({"namespaces": ["team-a"], "crds": {"install": True}}, True),
        ({"crds": {"install": False}}, False),
        # A release that does not keep the CRDs created them, so removing them would delete them and every task.
        ({"namespaces": ["team-a"], "crds": {"keep": False}}, True),
    ],
    ids=str,
)
def test_of_several_installations_one_at_most_brings_the_crds(helm: Any, values: dict[str, Any], brought: bool) -> None:
    texts = render(helm, **values)
    assert ("CustomResourceDefinition" in texts["crds.yaml"]) == brought
    assert ("kubectl apply --server-side -k manifests/crds" in texts["NOTES.txt"]) != brought


def test_roles_for_people_give_what_the_roles_of_kubernetes_do(helm: Any) -> None:
    def into(found: Objects, role: str) -> dict[tuple[str, str], set[str]]:
        label = f"rbac.authorization.k8s.io/aggregate-to-{role}"
        return granted({key: each for key, each in found.items() if label in each["metadata"].get("labels", {})})

    read = {"get", "list", "watch"}
    write = {"create", "update", "patch", "delete", "deletecollection"}
    usual = objects(render(helm))
    kinds = {("remit.dev", plural) for plural in ("executiontasks", "deployments", "commandpolicies")}
    assert into(usual, "view") == dict.fromkeys(kinds, read)
    for role in ("edit", "admin"):
        verbs = into(usual, role)
        assert verbs["remit.dev", "executiontasks"] == verbs["remit.dev", "deployments"] == read | write
        assert verbs["remit.dev", "commandpolicies"] == read, "they decide what the operator does with its own rights"
        assert not any("/status" in resource for _, resource in verbs)
    told = objects(render(helm, rbac={"aggregate": {"policies": True}}))
    assert into(told, "admin")["remit.dev", "commandpolicies"] == read | write
    assert into(told, "edit")["remit.dev", "commandpolicies"] == read
    without = objects(render(helm, rbac={"aggregate": {"enabled": False}}))
    assert not into(without, "view")


def test_without_volumes_the_pod_cannot_fill_its_node(helm: Any) -> None:
    found = objects(render(helm))
    assert workload(found)["kind"] == "Deployment"
    empty = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod(found)["volumes"]}
    assert empty == {"state": "10Gi", "tmp": "1Gi"}
    found = objects(render(helm, persistence={"size": "3Gi"}, tmp={"sizeLimit": "2Gi"}))
    assert [volume["emptyDir"] for volume in pod(found)["volumes"]] == [{"sizeLimit": "3Gi"}, {"sizeLimit": "2Gi"}]
    job = safeyaml.load_all(render(helm)["uninstall.yaml"])[-1]
    assert [volume["emptyDir"] for volume in job["spec"]["template"]["spec"]["volumes"]] == [{"sizeLimit": "1Gi"}]


def test_each_replica_has_a_volume_of_its_own(helm: Any) -> None:
    values = {"persistence": {"enabled": True, "storageClassName": "fast"}, "replicaCount": 2}
    found = objects(render(helm, **values))
    assert {kind for kind, _ in found} & {"Deployment", "PersistentVolumeClaim"} == set()
    spec = found["StatefulSet", "remit"]["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "state"
    assert (claim["spec"]["storageClassName"], claim["spec"]["resources"]["requests"]) == ("fast", {"storage": "10Gi"})
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}, "it holds the audit trail"
    assert [volume["name"] for volume in pod(found)["volumes"]] == ["tmp"]
    assert {"name": "state", "mountPath": "/var/lib/remit"} in operator_container(found)["volumeMounts"]
    # Immutable fields must not change with the version of the chart.
    assert claim["metadata"]["labels"] == spec["selector"]["matchLabels"]


def test_a_claim_that_is_there_is_for_one_replica(helm: Any) -> None:
    found = objects(render(helm, persistence={"enabled": True, "existingClaim": "mine"}))
    spec = found["StatefulSet", "remit"]["spec"]
    assert "volumeClaimTemplates" not in spec
    assert pod(found)["volumes"][0] == {"name": "state", "persistentVolumeClaim": {"claimName": "mine"}}
    with pytest.raises(helm.HelmError, match="each replica needs its own"):
        render(helm, persistence={"enabled": True, "existingClaim": "mine"}, replicaCount=2)


def test_the_label_of_a_stateful_set_has_room_for_its_hash(helm: Any) -> None:
    found = objects(render(helm, persistence={"enabled": True}, fullnameOverride="x" * 63))
    name = workload(found)["metadata"]["name"]
    assert len(f"{name}-1234567890") <= 63
    texts = render(helm, persistence={"enabled": True}, fullnameOverride="x" * 63)
    assert f"--workload=statefulset/{name}" in texts["uninstall.yaml"]


@pytest.mark.parametrize("persistence", [False, True])
def test_a_single_replica_is_configured_as_such_and_never_overlaps(helm: Any, persistence: bool) -> None:
    unreachable = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    own = {"key": "team", "operator": "Exists"}
    for count, tolerated in ((1, [unreachable, own]), (2, [own])):
        values = {"replicaCount": count, "tolerations": [own], "persistence": {"enabled": persistence}}
        found = objects(render(helm, **values))
        assert f"--replicas={count}" in operator_container(found)["args"]
        assert pod(found)["tolerations"] == tolerated
        if not persistence:  # a StatefulSet never has two pods with the same name
            at_once = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
            strategy = workload(found)["spec"]["strategy"]
            assert strategy == ({"type": "Recreate"} if count == 1 else at_once)
    assert "tolerations" not in pod(objects(render(helm, replicaCount=2)))


def test_a_budget_is_for_several_replicas(helm: Any) -> None:
    found = objects(render(helm, replicaCount=3, podDisruptionBudget={"enabled": True}))
    spec = found["PodDisruptionBudget", "remit"]["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["selector"] == workload(found)["spec"]["selector"]
    with pytest.raises(helm.HelmError, match="set replicaCount to 2"):
        render(helm, podDisruptionBudget={"enabled": True})


def test_the_network_policy_lets_metrics_be_read_and_the_operator_connect(helm: Any) -> None:
    assert ("NetworkPolicy", "remit") not in objects(render(helm))
    found = objects(render(helm, networkPolicy={"enabled": True}))
    spec = found["NetworkPolicy", "remit"]["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    assert (
        spec["podSelector"]["matchLabels"].items() <= workload(found)["spec"]["template"]["metadata"]["labels"].items()
    )
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    found = objects(render(helm, networkPolicy={"enabled": True, "from": peers}))
    assert found["NetworkPolicy", "remit"]["spec"]["ingress"][0]["from"] == peers


NOTIFICATIONS: dict[str, Any] = {
    "receivers": [{"name": "ops", "apprise": {"urlsFile": "/etc/remit/notifications/urls"}}],
    "routes": [{"receivers": ["ops"]}],
}


def test_notifications_are_a_secret_that_the_operator_reads(helm: Any, tmp_path: Path) -> None:
    found = objects(render(helm, notifications={"config": NOTIFICATIONS}))
    (text,) = found["Secret", "remit-notifications"]["stringData"].values()
    (file := tmp_path / "notifications.yaml").write_text(text)
    assert NotificationConfig.load(file) == NotificationConfig.model_validate(NOTIFICATIONS)
    assert "--notifications=/etc/remit/notifications/notifications.yaml" in operator_container(found)["args"]
    volume = {"name": "notifications", "secret": {"secretName": "remit-notifications"}}
    assert volume in pod(found)["volumes"]
    others = objects(render(helm, notifications={"config": NOTIFICATIONS | {"groupWait": "1m"}}))
    before, after = (workload(each)["spec"]["template"]["metadata"]["annotations"] for each in (found, others))
    assert before != after, "a changed configuration restarts the operator"


def test_notifications_may_be_in_a_secret_that_is_there(helm: Any) -> None:
    found = objects(render(helm, notifications={"existingSecret": "mine", "config": NOTIFICATIONS}))
    assert not any(kind == "Secret" for kind, _ in found)
    assert {"name": "notifications", "secret": {"secretName": "mine"}} in pod(found)["volumes"]


def test_the_schema_of_notifications_has_the_fields_of_the_model() -> None:
    model = NotificationConfig.model_json_schema(by_alias=True)
    fields = SCHEMA["properties"]["notifications"]["properties"]["config"]["properties"]
    receiver = fields["receivers"]["items"]["properties"]
    route = fields["routes"]["items"]["properties"]
    for part, of in [
        (fields, model),
        (receiver, model["$defs"]["Receiver"]),
        (route, model["$defs"]["Route"]),
        *(
            (receiver[name]["properties"], model["$defs"][f"{name.title()}Receiver"])
            for name in receiver.keys() - {"name"}
        ),
    ]:
        assert part.keys() == of["properties"].keys()
    assert route["alerts"]["items"]["enum"] == list(AlertName)


def test_the_pod_takes_what_is_added(helm: Any) -> None:
    values = {
        "extraArgs": ["--read-only-path=/opt"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
        "extraVolumes": [{"name": "opt", "hostPath": {"path": "/opt"}}],
        "extraVolumeMounts": [{"name": "opt", "mountPath": "/opt", "readOnly": True}],
        "priorityClassName": "system-cluster-critical",
        "logs": {"level": "debug"},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            {
                "maxSkew": 1,
                "topologyKey": "host",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"a": "b"}},
            },
        ],
    }
    found = objects(render(helm, **values))
    container = operator_container(found)
    assert container["args"][-1] == "--read-only-path=/opt"
    assert "--log-level=debug" in container["args"]
    assert container["env"][-1:] == values["extraEnv"]
    assert container["volumeMounts"][-1:] == values["extraVolumeMounts"]
    assert pod(found)["volumes"][-1:] == values["extraVolumes"]
    assert pod(found)["priorityClassName"] == "system-cluster-critical"
    first, second = pod(found)["topologySpreadConstraints"]
    assert first["labelSelector"] == workload(found)["spec"]["selector"]
    assert second["labelSelector"] == {"matchLabels": {"a": "b"}}


def with_mistake(values: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """Adds a value at `path` that the chart does not have."""
    return {path[0]: with_mistake(values[path[0]], path[1:])} if path else {"mistake": 1}


def closed(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yields all objects of the schema except for maps of texts or amounts and parts of Kubernetes' own types."""
    if schema.get("type") == "object" and not isinstance(schema.get("additionalProperties"), dict):
        yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from closed(part, (*path, name))
    if "items" in schema:
        yield from closed(schema["items"], (*path, "[]"))


SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = safeyaml.load((CHART / "values.yaml").read_text())
MAPS = {"podAnnotations", "podLabels", "nodeSelector", "annotations", "labels"}


def objects_of(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, value in values.items():
        if isinstance(value, dict) and name not in MAPS and path[:1] != ("resources",):
            yield from objects_of(value, (*path, name))


@pytest.mark.parametrize(
    "path",
    [path for path in objects_of(VALUES) if path not in {("resources", "requests"), ("resources", "limits")}],
    ids=".".join,
)
def test_a_misspelt_value_is_refused_wherever_it_is(helm: Any, path: tuple[str, ...]) -> None:
    with pytest.raises(helm.HelmError, match="mistake"):
        render(helm, **with_mistake(VALUES, path))


def test_every_object_of_the_schema_is_closed() -> None:
    open_ = [".".join(path) for path, part in closed(SCHEMA) if part.get("additionalProperties") is not False]
    kubernetes = {"affinity", "extraEnv.[].valueFrom", "extraVolumes.[]"}
    assert [path for path in open_ if path.rpartition(".")[0] not in kubernetes] == ["global"]


def described(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yields the values that the schema does not describe."""
    for name, value in values.items():
        part = schema.get("properties", {}).get(name)
        if part is None and not isinstance(schema.get("additionalProperties"), dict) and "$ref" not in schema:
            yield f"{path}{name}"
        elif isinstance(value, dict):
            yield from described(value, part or {"additionalProperties": {}}, f"{path}{name}.")


def test_every_value_is_in_the_schema() -> None:
    assert VALUES.keys() == SCHEMA["properties"].keys() - {"global"}
    assert list(described(VALUES, SCHEMA)) == []


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"replicas": 2}, "replicas"),
        ({"namespaces": "all"}, "namespaces"),
        ({"notifications": {"config": {"receivers": NOTIFICATIONS["receivers"]}}}, "routes"),
        ({"notifications": {"config": NOTIFICATIONS | {"groupwait": "1m"}}}, "groupwait"),
        ({"namespaces": ["Team"]}, "namespaces"),
        ({"logs": {"format": "xml"}}, "format"),
        ({"logs": {"level": "loud"}}, "level"),
        ({"replicaCount": -1}, "replicaCount"),
        ({"backends": ["dokcer"]}, "backends"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"crds": {"install": "yes"}}, "install"),
        ({"maxConcurrent": 0}, "maxConcurrent"),
        ({"maxArtifacts": "lots"}, "maxArtifacts"),
        ({"retention": {"outputMaxAge": "a month"}}, "outputMaxAge"),
        ({"retention": {"maxAudit": "30d"}}, "maxAudit"),
        ({"retention": {"auditMaxAge": False}}, "auditMaxAge"),  # the YAML value `off` without quotes
        ({"retention": {"maxLogs": "1Gi"}}, "maxLogs"),
        ({"extraVolumes": [{"name": "state", "emptyDir": {}}]}, "extraVolumes"),
        ({"extraVolumes": [{"name": "mine", "emptydir": {}}]}, "extraVolumes"),
        ({"extraArgs": ["read-only-path"]}, "extraArgs"),
        ({"extraEnv": [{"name": "A", "valu": "b"}]}, "extraEnv"),
        ({"tolerations": [{"kee": "a"}]}, "tolerations"),
        ({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone"}]}, "topologySpreadConstraints"),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "podDisruptionBudget"),
        ({"networkPolicy": {"from": [{"podselector": {}}]}}, "networkPolicy"),
        ({"resources": {"request": {"cpu": 1}}}, "resources"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(helm: Any, values: dict[str, Any], where: str) -> None:
    with pytest.raises(helm.HelmError, match=where):
        render(helm, **values)


CLOUDS = sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_the_values_for_a_cloud_give_two_replicas_with_volumes_in_two_zones(helm: Any, path: Path) -> None:
    found = objects(render(helm, **safeyaml.load(path.read_text())))
    spec = found["StatefulSet", "remit"]["spec"]
    assert spec["replicas"] == 2
    assert spec["volumeClaimTemplates"][0]["spec"]["storageClassName"]
    assert {"NetworkPolicy", "PodDisruptionBudget"} <= {kind for kind, _ in found}
    assert pod(found)["topologySpreadConstraints"][0]["labelSelector"] == spec["selector"]


def test_there_are_values_for_the_usual_clouds() -> None:
    assert [path.stem for path in CLOUDS] == ["aks-values", "eks-values", "gke-values"]


def test_the_page_of_the_chart_has_all_values() -> None:
    page = (CHART / "README.md").read_text()
    assert [name for name in VALUES if f"`{name}" not in page] == []


def test_the_requester_is_trusted_only_if_it_is_stamped(helm: Any) -> None:
    stamped = (ROOT / "manifests/requested-by/requested-by.yaml").read_text()
    assert (CHART / "files/requested-by.yaml").read_text() == stamped
    for enabled in (True, False):
        found = objects(render(helm, requestedBy={"enabled": enabled}))
        policies = {kind for kind, _ in found if kind.endswith("AdmissionPolicy")}
        assert policies in (set(), {"MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"} if enabled else set())
        assert ("--trust-requested-by" in operator_container(found)["args"]) == bool(policies)
    found = objects(render(helm, requestedBy={"trust": True}, namespaces=["team-a"]))
    assert "--trust-requested-by" in operator_container(found)["args"]


def test_the_stamp_is_named_after_the_release(helm: Any) -> None:
    """Rendered as on a cluster with that kind, because the engine here knows only the kinds of its own Kubernetes
    version."""
    template = (CHART / "templates/requestedby.yaml").read_text()
    assert all(text in template for text in ("$account", "$name", "files/requested-by.yaml"))
    stamped = (CHART / "files/requested-by.yaml").read_text()
    assert stamped.count("'system:serviceaccount:remit-system:remit'") == 2
    assert stamped.count("name: remit-requested-by") == 4
    assert stamped.count("policyName: remit-requested-by") == 2


@pytest.mark.parametrize(
    ("values", "required"),
    [
        ({}, []),
        ({"backends": ["process"]}, ["landlock", "seccomp", "rlimits"]),
        ({"backends": ["process"], "sandbox": {"userNamespaces": True}}, []),
    ],
    ids=str,
)
def test_what_the_notes_have_people_apply_runs_in_what_they_got(
    helm: Any, values: dict[str, Any], required: list[str]
) -> None:
    notes = render(helm, **values)["NOTES.txt"]
    shown = notes.partition("<<EOF\n")[2].partition("\n  EOF")[0]
    policy, task = safeyaml.load_all(textwrap.dedent(shown))
    assert CommandPolicy.parse(policy).spec.sandbox.require == required
    assert ExecutionTask.parse(task).spec.command
    assert ("no user namespaces" in notes) == bool(required)


def test_the_notes_say_what_is_missing(helm: Any) -> None:
    notes = render(helm)["NOTES.txt"]
    assert "persistence.enabled=true" in notes
    assert "acceptUnenforcedNetwork=true" in notes
    assert f"in the image remit-operator:{remit.__version__}" in notes
    notes = render(helm, defaultImage="off", persistence={"enabled": True}, acceptUnenforcedNetwork=True)["NOTES.txt"]
    assert "A task has to name its image" in notes
    assert not any(value in notes for value in ("persistence.enabled", "acceptUnenforcedNetwork"))


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_the_operator_is_stopped_before_anything_is_removed(helm: Any, kind: str) -> None:
    texts = render(helm, namespaces=["team-a"], persistence={"enabled": kind == "StatefulSet"})
    hooks = safeyaml.load_all(texts["uninstall.yaml"])
    assert [document["kind"] for document in hooks] == ["Role", "RoleBinding", "Job"]
    assert {document["metadata"]["annotations"]["helm.sh/hook"] for document in hooks} == {"pre-delete"}
    role, _binding, job = hooks
    assert role["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": [f"{kind.lower()}s/scale"],
            "resourceNames": ["remit"],
            "verbs": ["patch"],
        }
    ]
    spec, found = job["spec"]["template"]["spec"], objects(texts)
    assert workload(found)["kind"] == kind
    assert spec["serviceAccountName"] == pod(found)["serviceAccountName"]
    assert spec["securityContext"] == pod(found)["securityContext"]
    (container,) = spec["containers"]
    assert container["args"] == [
        "uninstall",
        "--namespace=team-a",
        "--operator-namespace=remit-system",
        "--lease-name=remit-operator",
        f"--workload={kind.lower()}/remit",
        "--timeout=60",
    ]
    parsed = typer.main.get_command(app).commands["uninstall"].make_context("uninstall", container["args"][1:])
    assert parsed.params["workload"] == f"{kind.lower()}/remit"
    selected = found["Service", "remit"]["spec"]["selector"]
    assert not selected.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_job_waits_as_long_as_the_operator_may_take_to_stop(helm: Any) -> None:
    texts = render(helm, terminationGracePeriodSeconds=300)
    job = safeyaml.load_all(texts["uninstall.yaml"])[-1]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][-1] == "--timeout=330"
    assert job["spec"]["activeDeadlineSeconds"] > 3 * 330


def test_without_the_job_the_notes_say_what_to_run(helm: Any) -> None:
    texts = render(helm, uninstall={"enabled": False})
    assert not texts["uninstall.yaml"].strip()
    wanted = "remit uninstall --operator-namespace remit-system --lease-name remit-operator"
    assert f"{wanted} --workload deployment/remit`" in " ".join(texts["NOTES.txt"].split())


def test_artifacts_go_to_object_storage_with_credentials_from_files(helm: Any) -> None:
    store = {"bucket": "kept", "endpoint": "https://minio:9000", "region": "r1", "existingSecret": "store"}
    found = objects(render(helm, artifacts={"s3": store | {"caConfigMap": "authorities"}}))
    arguments = operator_container(found)["args"]
    given = dict(each.split("=", 1) for each in arguments if each.startswith(("--artifact-store", "--s3-")))
    assert given == {
        "--artifact-store": "s3://kept/remit",
        "--s3-endpoint": "https://minio:9000",
        "--s3-region": "r1",
        "--s3-credentials": "/run/artifact-store/credentials",
        "--s3-ca-file": "/run/artifact-store/authorities/ca.crt",
    }
    mounts = {each["name"]: each for each in operator_container(found)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod(found)["volumes"]}
    for name, folder in (("artifact-store", "credentials"), ("artifact-store-authorities", "authorities")):
        assert mounts[name]["mountPath"] == f"/run/artifact-store/{folder}"
        assert mounts[name]["readOnly"] is True
    files = [item["path"] for item in volumes["artifact-store"]["secret"]["items"]]
    assert files == ["access-key-id", "secret-access-key"]
    assert set(given) <= {name for parameter in OPERATOR.params for name in parameter.opts}


def test_artifacts_stay_on_the_volume_without_a_bucket(helm: Any) -> None:
    found = objects(render(helm, artifacts={"s3": {"existingSecret": "store", "caConfigMap": "authorities"}}))
    assert not [each for each in operator_container(found)["args"] if each.startswith(("--artifact-store", "--s3-"))]
    assert not [each for each in pod(found)["volumes"] if each["name"].startswith("artifact-store")]


@pytest.mark.parametrize(
    "wrong",
    [{"bucket": "Not A Bucket"}, {"endpoint": "https://user:password@host"}, {"prefix": "/x"}, {"secretKey": "inline"}],
)
def test_values_of_object_storage_that_cannot_be_meant_are_refused(helm: Any, wrong: dict[str, str]) -> None:
    with pytest.raises(helm.HelmError, match="artifacts"):
        render(helm, artifacts={"s3": wrong})
