"""Reads the status of an object as kstatus (Flux, Helm, kpt) and `kubectl wait` do. Pure."""

from __future__ import annotations

from typing import Any, Literal

Object = dict[str, Any]
Status = Literal["Terminating", "InProgress", "Failed", "Current"]


def kstatus(obj: Object) -> Status:
    """Implements `Compute` of sigs.k8s.io/cli-utils for a kind without rules of its own: `checkGenericProperties` and
    `checkGeneration` in pkg/kstatus/status/generic.go, then `checkReadyCondition` in core.go."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != metadata["generation"]:
        return "InProgress"
    conditions = [(each["type"], each["status"]) for each in status.get("conditions", ())]
    for condition in conditions:
        if condition == ("Reconciling", "True"):
            return "InProgress"
        if condition == ("Stalled", "True"):
            return "Failed"
    ready = next((truth for type_, truth in conditions if type_ == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"


def waits_for(obj: Object, condition: str, wanted: str = "True") -> bool:
    """Returns whether `kubectl wait --for=condition=CONDITION` is satisfied: `checkCondition` and
    `getObservedGeneration` of k8s.io/kubectl/pkg/cmd/wait/condition.go."""
    status = obj.get("status") or {}
    for each in status.get("conditions", ()):
        if each["type"].lower() == condition.lower():
            observed = each.get("observedGeneration", status.get("observedGeneration"))
            stale = observed is not None and observed < obj["metadata"]["generation"]
            return not stale and each["status"].lower() == wanted.lower()
    return False
