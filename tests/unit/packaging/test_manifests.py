from __future__ import annotations

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import remit
from remit import safeyaml

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path for path in (ROOT / "manifests/examples").glob("*.yaml") if not path.match("*.test.yaml"))


def build(kubectl: str, name: str) -> list[dict[str, Any]]:
    built = subprocess.run([kubectl, "kustomize", str(ROOT / name)], capture_output=True, text=True, check=True)
    return safeyaml.load_all(built.stdout)


def test_install_is_crds_and_namespace_and_operator(kubectl: str) -> None:
    kinds = [document["kind"] for document in build(kubectl, "manifests/install")]
    assert kinds.count("CustomResourceDefinition") == 3
    assert {"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Deployment", "Service"} <= set(kinds)


def test_all_of_cluster_install_is_in_one_namespace(kubectl: str) -> None:
    for document in build(kubectl, "manifests/cluster-install"):
        assert document["kind"].startswith("Cluster") or document["metadata"]["namespace"] == "remit-system"
        for subject in document.get("subjects", []):
            assert subject["namespace"] == "remit-system"


def test_namespace_install_asks_for_nothing_cluster_wide(kubectl: str) -> None:
    documents = build(kubectl, "manifests/namespace-install")
    assert not [document for document in documents if document["kind"].startswith("Cluster")]
    operator = next(document for document in documents if document["kind"] == "Deployment")
    assert operator["spec"]["template"]["spec"]["containers"][0]["args"][:2] == [
        "operator",
        "--namespace=$(POD_NAMESPACE)",
    ]


def test_crds_can_be_applied_as_a_folder_and_as_a_kustomization(kubectl: str) -> None:
    assert len(build(kubectl, "crds")) == len(list((ROOT / "crds").glob("*.yaml"))) == 3


def test_examples_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:2]) for path in EXAMPLES]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_constraints_pin_every_dependency_and_name_no_registry() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = chain.from_iterable(project["project"]["optional-dependencies"].values())
    declared = [*project["project"]["dependencies"], *extras, *project["build-system"]["requires"]]
    names = {_normal(re.split(r"[<>=!\[; ]", item)[0]) for item in declared}
    text = (ROOT / "constraints.txt").read_text()
    pinned = {_normal(line.split("==")[0]) for line in text.splitlines() if "==" in line}
    assert names - {"remit-operator"} <= pinned
    assert "://" not in text


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == remit.__version__
    assert f"## [{remit.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
