"""Renders the chart for tests and as the manifests for users without Helm (`make manifests`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from remit import safeyaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts/remit"
NAMESPACE = "remit-system"
WITHOUT_HELM: dict[str, Any] = {"requestedBy": {"enabled": False}, "uninstall": {"enabled": False}}
"""Values for manifests without Helm: without admission policies, which some versions of Kubernetes lack, and without
Helm's uninstall hook."""
_HEADER = "# Generated from charts/remit by `make manifests`. Do not edit.\n"
_OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")

Objects = list[dict[str, Any]]


def render(values: dict[str, Any] | None = None, *, name: str = "remit", namespace: str = NAMESPACE) -> dict[str, str]:
    """Returns the text of each template by file name, rendered by Helm's own engine. Raises `helm_python.HelmError`."""
    import helm_python

    with helm_python.Chart.load(str(CHART)) as chart:
        texts: dict[str, str] = chart.render(values or {}, name=name, namespace=namespace)
    return {Path(path).name: text for path, text in texts.items()}


def objects(texts: dict[str, str]) -> Objects:
    """Returns the objects of all templates."""
    return [
        document
        for name, text in texts.items()
        if name != "NOTES.txt"
        for document in safeyaml.load_all(text)
        if document
    ]


def without_helm(obj: dict[str, Any]) -> dict[str, Any]:
    """Returns the object without fields that only Helm uses."""
    for metadata in _metadata(obj):
        for key in _OF_HELM:
            metadata.get("labels", {}).pop(key, None)
        metadata.get("annotations", {}).pop("helm.sh/resource-policy", None)
        if not metadata.get("annotations", {"": ""}):
            del metadata["annotations"]
    return obj


def _metadata(obj: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield obj["metadata"]
    with contextlib.suppress(KeyError):
        yield obj["spec"]["template"]["metadata"]


def install() -> Objects:
    """Returns all objects of an installation for every namespace, including its namespace and the CRDs."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"app.kubernetes.io/name": "remit", "pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    return [namespace, *(without_helm(obj) for obj in objects(render(WITHOUT_HELM)))]


def operator() -> Objects:
    """Returns the same without the CRDs, of which the manifests need no copy."""
    return [obj for obj in install() if obj["kind"] != "CustomResourceDefinition"]


def namespace_install() -> Objects:
    """Returns an installation for the namespace that it is applied to. Its manifests name no namespace and contain no
    CRDs."""
    rendered = [without_helm(obj) for obj in objects(render(WITHOUT_HELM | {"namespaces": [NAMESPACE]}))]
    for obj in rendered:
        del obj["metadata"]["namespace"]
        suffix = f".{NAMESPACE}"
        obj["metadata"]["name"] = obj["metadata"]["name"].removesuffix(suffix)
        if "roleRef" in obj:
            obj["roleRef"]["name"] = obj["roleRef"]["name"].removesuffix(suffix)
        for subject in obj.get("subjects", ()):
            del subject["namespace"]
        if obj["kind"] == "Deployment":
            (container,) = obj["spec"]["template"]["spec"]["containers"]
            served = {f"--namespace={NAMESPACE}": "--namespace=$(POD_NAMESPACE)"}
            container["args"] = [served.get(argument, argument) for argument in container["args"]]
    return rendered


def releases() -> Objects:
    """Returns the additional objects that an installation for every namespace needs for releases to Kubernetes."""
    usual, found = install(), objects(render(WITHOUT_HELM | {"releases": {"kubernetes": True}}))
    return [obj for obj in map(without_helm, found) if obj not in usual]


FILES = {
    ROOT / "dist/install.yaml": install,
    ROOT / "manifests/install/operator.yaml": operator,
    ROOT / "manifests/namespace-install/operator.yaml": namespace_install,
    ROOT / "manifests/kubernetes-releases/role.yaml": releases,
}


def text(found: Objects) -> str:
    """Returns the objects as YAML."""
    documents = (
        yaml.dump(obj, Dumper=safeyaml.Dumper, sort_keys=False, width=120, allow_unicode=True) for obj in found
    )
    return _HEADER + "---\n".join(documents)


def main() -> None:
    for path, made in FILES.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text(made()))


if __name__ == "__main__":
    main()
