"""A task that is to run what another one ran. Pure."""

from __future__ import annotations

from typing import Any, Final

from remit.errors import InvalidInput
from remit.execution import schedule

Object = dict[str, Any]

_OWN_LABELS: Final = (
    "remit.dev/",
    "argocd.argoproj.io/",
    "helm.sh/",
    "helm.toolkit.fluxcd.io/",
    "kustomize.toolkit.fluxcd.io/",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
)
"""How labels begin that say whose an object is: a schedule's, a release's, or a tool's that would remove a copy."""


def copy_of(obj: Object, name: str | None = None) -> Object:
    """The task to create. Raises `InvalidInput` for a schedule."""
    metadata = obj["metadata"]
    original = metadata["name"]
    if "schedule" in obj["spec"]:
        raise InvalidInput(f"task {original} has a schedule; run it once with remit run --from-schedule {original}")
    labels = metadata.get("labels") or {}
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {
            **({"name": name} if name else {"generateName": f"{schedule.stem(original)}-"}),
            "namespace": metadata["namespace"],
            "labels": {key: value for key, value in labels.items() if not key.startswith(_OWN_LABELS)},
        },
        "spec": {key: value for key, value in obj["spec"].items() if key != "cancel"},
    }
