from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import installyaml
import remit
from parts import require
from remit import safeyaml

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path for path in (ROOT / "manifests/examples").glob("*.yaml") if not path.match("*.test.yaml"))


def build(kubectl: str, name: str) -> list[dict[str, Any]]:
    built = subprocess.run([kubectl, "kustomize", str(ROOT / name)], capture_output=True, text=True, check=True)
    return safeyaml.load_all(built.stdout)


def identified(documents: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = {
        (document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]): document
        for document in documents
    }
    assert len(found) == len(documents)
    return found


@pytest.fixture(scope="module")
def chart() -> dict[str, str]:
    require("helm", importlib.util.find_spec("helm_python"), "pip install helm-python-sdk, or make .venv/.develops")
    return installyaml.render()


def test_install_is_what_the_chart_makes_by_default(kubectl: str, chart: dict[str, str]) -> None:
    """They contain everything except for Helm's own objects, and have a namespace with the strictest Pod Security
    Standard."""
    built = identified(build(kubectl, "manifests/install"))
    namespace = built.pop(("Namespace", "", "remit-system"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    without_hooks = {name: text for name, text in chart.items() if name not in {"uninstall.yaml", "requestedby.yaml"}}
    assert built == identified([installyaml.without_helm(obj) for obj in installyaml.objects(without_hooks)])


@pytest.mark.parametrize(
    "path", [path for path in installyaml.FILES if path.is_relative_to(ROOT / "manifests")], ids=str
)
def test_manifests_are_what_the_chart_renders(chart: dict[str, str], path: Path) -> None:
    assert path.read_text() == installyaml.text(installyaml.FILES[path]()), "run `make manifests`"


def test_one_file_has_all_of_it(kubectl: str, chart: dict[str, str]) -> None:
    whole = safeyaml.load_all(installyaml.text(installyaml.install()))
    assert identified(whole) == identified(build(kubectl, "manifests/install"))
    assert whole[0]["kind"] == "Namespace"


@pytest.mark.parametrize("name", ["install", "namespace-install"])
def test_the_default_image_follows_the_image(kubectl: str, name: str, tmp_path: Path) -> None:
    copied = shutil.copytree(ROOT / "manifests", tmp_path / "manifests") / name / "kustomization.yaml"
    shutil.copytree(ROOT / "crds", tmp_path / "crds")
    own = "images: [{name: remit-operator, newName: registry.example/remit, newTag: '2'}]\n"
    copied.write_text(copied.read_text() + own)
    done = subprocess.run([kubectl, "kustomize", str(copied.parent)], capture_output=True, text=True, check=True)
    running = next(each for each in safeyaml.load_all(done.stdout) if each["kind"] == "Deployment")
    (container,) = running["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/remit:2"
    for variable in ("REMIT_IMAGE", "REMIT_DEFAULT_IMAGE"):
        assert {"name": variable, "value": container["image"]} in container["env"]


def test_namespace_install_asks_for_nothing_cluster_wide(kubectl: str) -> None:
    documents = build(kubectl, "manifests/namespace-install")
    assert not [each for each in documents if each["kind"].startswith(("Cluster", "CustomResource"))]
    assert "remit-system" not in str(documents)
    operator = next(document for document in documents if document["kind"] == "Deployment")
    assert operator["spec"]["template"]["spec"]["containers"][0]["args"][:3] == [
        "operator",
        "--namespace=$(POD_NAMESPACE)",
        "--operator-namespace=$(POD_NAMESPACE)",
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
