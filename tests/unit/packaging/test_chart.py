"""The chart, rendered by Helm's own engine."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import remit
from conftest import require
from remit import safeyaml
from remit.api import CommandPolicy, ExecutionTask, crd
from remit.cli.app import app
from remit.controllers.settings import Settings

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts/remit"
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(autouse=True)
def helm() -> Any:
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    import helm_python

    return helm_python


def render(helm: Any, **values: Any) -> dict[str, str]:
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render(values, name="remit", namespace="remit-system")
    return {Path(name).name: text for name, text in texts.items()}


def objects(texts: dict[str, str]) -> Objects:
    documents = [
        document
        for name, text in texts.items()
        if name != "NOTES.txt"
        for document in safeyaml.load_all(text)
        if document
    ]
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pod(found: Objects) -> dict[str, Any]:
    return found["Deployment", "remit"]["spec"]["template"]["spec"]


def manifest(path: str) -> list[dict[str, Any]]:
    return safeyaml.load_all((ROOT / "manifests" / path).read_text())


def test_helm_finds_nothing_to_blame(helm: Any) -> None:
    verdict = helm.lint(str(CHART))
    assert verdict["errors"] == []
    assert [message["error"] for message in verdict["messages"]] == ["icon is recommended"]


def test_the_chart_speaks_of_this_version() -> None:
    chart = safeyaml.load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == remit.__version__
    assert f'newTag: "{remit.__version__}"' in (ROOT / "manifests/base/kustomization.yaml").read_text()


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


def test_chart_and_kustomize_grant_the_same(helm: Any) -> None:
    everywhere = objects(render(helm))
    role, _binding = manifest("cluster-install/role.yaml")
    assert everywhere["ClusterRole", "remit"]["rules"] == role["rules"]
    role, _binding = manifest("namespace-install/role.yaml")
    assert everywhere["ClusterRole", "remit"]["rules"] == role["rules"]
    role, _binding = manifest("base/lease-role.yaml")
    assert everywhere["Role", "remit-lease"]["rules"] == role["rules"]


JOB_VERBS = {
    ("batch", "jobs"): ["get", "create", "delete"],
    ("", "pods"): ["get", "list", "watch"],
    ("", "pods/log"): ["get"],
    ("", "persistentvolumeclaims"): ["get", "create"],
    ("networking.k8s.io", "networkpolicies"): ["get", "create", "delete"],
}


def granted(found: Objects) -> dict[tuple[str, str], set[str]]:
    """The verbs of each resource, of all roles together."""
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
    assert verbs["", "secrets"] == verbs["", "configmaps"] == {"get", "create", "delete"}


def operator_settings(found: Objects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """What the command line of the pod means to the operator."""
    given: list[Settings] = []

    async def take(settings: Settings, *_: Any) -> None:
        given.append(settings)

    monkeypatch.setattr("remit.cli.serve.operator", take)
    monkeypatch.setattr("remit.cli.logsetup.set_up_logs", lambda *_: None)
    arguments = pod(found)["containers"][0]["args"]
    here = [f"--state-dir={tmp_path}" if argument.startswith("--state-dir") else argument for argument in arguments]
    done = CliRunner().invoke(app, here)
    assert done.exit_code == 0, done.output
    return given[0]


def test_values_reach_the_operator(helm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = operator_settings(objects(render(helm)), monkeypatch, tmp_path)
    assert (usual.backends, usual.image) == ((), f"remit-operator:{remit.__version__}")
    assert not usual.accept_unenforced_network
    values = {
        "backends": ["process", "kubernetes"],
        "defaultImage": "registry.example/tools:1",
        "acceptUnenforcedNetwork": True,
    }
    told = operator_settings(objects(render(helm, **values)), monkeypatch, tmp_path)
    assert (told.backends, told.image) == (("process", "kubernetes"), "registry.example/tools:1")
    assert told.accept_unenforced_network
    assert operator_settings(objects(render(helm, defaultImage="off")), monkeypatch, tmp_path).image == ""


def test_user_namespaces_are_for_the_backend_process(
    helm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = objects(render(helm, sandbox={"userNamespaces": True}))
    assert operator_settings(found, monkeypatch, tmp_path).backends == ("kubernetes", "process")
    with pytest.raises(helm.HelmError, match="add process to backends"):
        render(helm, sandbox={"userNamespaces": True}, backends=["kubernetes"])
    with pytest.raises(helm.HelmError, match="set dockerHost"):
        render(helm, backends=["docker"])


def test_releases_to_kubernetes_are_granted_only_when_asked_for(helm: Any) -> None:
    usual = objects(render(helm))["ClusterRole", "remit"]["rules"]
    more = objects(render(helm, releases={"kubernetes": True}))["ClusterRole", "remit"]["rules"]
    role, _binding = manifest("kubernetes-releases/role.yaml")
    assert more == usual + role["rules"]


def test_chart_and_kustomize_run_the_same_pod(helm: Any) -> None:
    wanted = manifest("base/deployment.yaml")[0]["spec"]["template"]["spec"]
    rendered = pod(objects(render(helm)))
    assert rendered.pop("automountServiceAccountToken") is True
    container = rendered["containers"][0]
    assert container.pop("image") == f"remit-operator:{remit.__version__}"
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    del wanted["containers"][0]["image"]
    assert rendered == wanted


def test_named_namespaces_get_roles_and_nothing_beyond(helm: Any) -> None:
    texts = render(helm, namespaces=["team-a", "team-b"])
    documents = [document for document in safeyaml.load_all(texts["rbac.yaml"]) if document]
    assert not any(document["kind"].startswith("Cluster") for document in documents)
    served = {document["metadata"]["namespace"] for document in documents if document["metadata"]["name"] == "remit"}
    assert served == {"team-a", "team-b", "remit-system"}
    arguments = pod(objects(texts))["containers"][0]["args"]
    assert [argument for argument in arguments if argument.startswith("--namespace")] == [
        "--namespace=team-a",
        "--namespace=team-b",
    ]


def test_user_namespaces_are_granted_only_when_asked_for(helm: Any) -> None:
    usual = pod(objects(render(helm)))
    assert "hostUsers" not in usual
    assert usual["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    granted = pod(objects(render(helm, sandbox={"userNamespaces": True})))
    assert granted["hostUsers"] is False
    assert granted["securityContext"] == usual["securityContext"] | {"seccompProfile": {"type": "Unconfined"}}
    context = usual["containers"][0]["securityContext"]
    assert granted["containers"][0]["securityContext"] == context | {"procMount": "Unmasked"}


def test_a_volume_keeps_the_state(helm: Any) -> None:
    found = objects(render(helm, persistence={"enabled": True, "storageClassName": "fast"}))
    assert found["PersistentVolumeClaim", "remit"]["spec"]["storageClassName"] == "fast"
    assert pod(found)["volumes"][0]["persistentVolumeClaim"] == {"claimName": "remit"}
    found = objects(render(helm, persistence={"enabled": True, "existingClaim": "mine"}))
    assert ("PersistentVolumeClaim", "remit") not in found
    assert pod(found)["volumes"][0]["persistentVolumeClaim"] == {"claimName": "mine"}


def test_a_single_replica_is_told_so_and_never_overlaps(helm: Any) -> None:
    unreachable = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    own = {"key": "team", "operator": "Exists"}
    for count, tolerated in ((1, [unreachable, own]), (2, [own])):
        found = objects(render(helm, replicaCount=count, tolerations=[own]))
        assert found["Deployment", "remit"]["spec"]["strategy"] == {"type": "Recreate"}
        assert f"--replicas={count}" in pod(found)["containers"][0]["args"]
        assert pod(found)["tolerations"] == tolerated
    assert "tolerations" not in pod(objects(render(helm, replicaCount=2)))


def test_an_operator_in_the_image_can_be_killed_by_what_it_started() -> None:
    """The first process of a container cannot."""
    assert 'ENTRYPOINT ["tini", "--", "remit"]' in (ROOT / "Dockerfile").read_text()


def test_the_notes_say_what_is_missing(helm: Any) -> None:
    notes = render(helm)["NOTES.txt"]
    assert "SandboxUnavailable" in notes
    assert "persistence.enabled=true" in notes
    notes = render(helm, sandbox={"userNamespaces": True}, persistence={"enabled": True})["NOTES.txt"]
    assert "SandboxUnavailable" not in notes
    assert "persistence.enabled" not in notes


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 2},
        {"image": {"tagg": "1"}},
        {"namespaces": "all"},
        {"logs": {"format": "xml"}},
        {"replicaCount": -1},
    ],
    ids=json.dumps,
)
def test_wrong_values_are_refused(helm: Any, values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError, match=next(iter(values))):
        render(helm, **values)


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = safeyaml.load((CHART / "values.yaml").read_text())
    assert values.keys() == schema["properties"].keys() - {"global"}


def test_every_value_is_used() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    used = set(re.findall(r"\.Values\.(\w+)", templates))
    assert used == safeyaml.load((CHART / "values.yaml").read_text()).keys()


def test_who_asked_is_believed_only_where_it_is_stamped(helm: Any) -> None:
    stamped = (ROOT / "manifests/requested-by/requested-by.yaml").read_text()
    assert (CHART / "files/requested-by.yaml").read_text() == stamped
    for enabled in (True, False):
        texts = render(helm, requestedBy={"enabled": enabled})
        found = objects(texts)
        (container,) = pod(found)["containers"]
        policies = {kind for kind, _ in found if kind.endswith("AdmissionPolicy")}
        assert policies in (set(), {"MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"} if enabled else set())
        assert ("--trust-requested-by" in container["args"]) == bool(policies)


def test_the_stamp_is_named_after_the_release(helm: Any) -> None:
    """Rendered as on a cluster that has the kind: the engine here knows the kinds of its own Kubernetes only."""
    template = (CHART / "templates/requestedby.yaml").read_text()
    assert all(text in template for text in ("$account", "$name", "files/requested-by.yaml"))
    stamped = (CHART / "files/requested-by.yaml").read_text()
    assert stamped.count("system:serviceaccount:remit-system:remit'") == 2
    assert stamped.count("name: remit-requested-by") == 4
    assert stamped.count("policyName: remit-requested-by") == 2


@pytest.mark.parametrize("namespaces", [True, False])
def test_what_the_notes_have_people_apply_runs_in_the_pod_that_they_got(helm: Any, namespaces: bool) -> None:
    notes = render(helm, sandbox={"userNamespaces": namespaces})["NOTES.txt"]
    shown = notes.partition("<<EOF\n")[2].partition("\n  EOF")[0]
    policy, task = safeyaml.load_all(textwrap.dedent(shown))
    required = CommandPolicy.parse(policy).spec.sandbox.require
    assert required == ([] if namespaces else ["landlock", "seccomp", "rlimits"])
    assert ExecutionTask.parse(task).spec.command
    assert ("SandboxUnavailable" in notes) != namespaces


def test_the_operator_is_stopped_before_anything_is_removed(helm: Any) -> None:
    texts = render(helm, namespaces=["team-a"])
    hooks = safeyaml.load_all(texts["uninstall.yaml"])
    assert [document["kind"] for document in hooks] == ["Role", "RoleBinding", "Job"]
    assert {document["metadata"]["annotations"]["helm.sh/hook"] for document in hooks} == {"pre-delete"}
    role, _binding, job = hooks
    assert [rule["resourceNames"] for rule in role["rules"]] == [["remit"]]
    spec, operator = job["spec"]["template"]["spec"], pod(objects(texts))
    assert spec["serviceAccountName"] == operator["serviceAccountName"]
    assert spec["securityContext"] == operator["securityContext"]
    (container,) = spec["containers"]
    assert container["args"] == [
        "uninstall",
        "--namespace=team-a",
        "--operator-namespace=remit-system",
        "--workload=remit",
        "--timeout=60",
    ]
    parsed = typer.main.get_command(app).commands["uninstall"].make_context("uninstall", container["args"][1:])
    assert parsed.params["workload"] == "remit"
    selected = objects(texts)["Service", "remit"]["spec"]["selector"]
    assert not selected.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_the_job_waits_as_long_as_the_operator_may_take_to_stop(helm: Any) -> None:
    texts = render(helm, terminationGracePeriodSeconds=300)
    job = safeyaml.load_all(texts["uninstall.yaml"])[-1]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][-1] == "--timeout=330"
    assert job["spec"]["activeDeadlineSeconds"] > 3 * 330


def test_without_the_job_the_notes_say_what_to_run(helm: Any) -> None:
    texts = render(helm, uninstall={"enabled": False})
    assert not texts["uninstall.yaml"].strip()
    assert "remit uninstall --operator-namespace remit-system --workload remit" in texts["NOTES.txt"]
