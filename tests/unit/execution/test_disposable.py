"""Tests which tasks may be deleted by default. A task that a client would create again is never deleted."""

from __future__ import annotations

from typing import Any

import pytest

from remit.execution.disposable import is_disposable


def task(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "run-ls-x", "generateName": "run-ls-", **metadata}}


def test_what_was_created_once_with_a_generated_name_is() -> None:
    updates = [{"manager": "remit", "operation": "Update"}]
    status = [{"manager": "remit", "operation": "Apply", "subresource": "status"}]
    assert is_disposable(task())
    assert is_disposable(task(managedFields=updates + status, labels={"team": "data"}, annotations={"note": "helm.sh"}))


@pytest.mark.parametrize(
    "metadata",
    [
        {"generateName": None},
        {"ownerReferences": [{"kind": "ExecutionTask", "name": "nightly"}]},
        {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        {"managedFields": [{"manager": "kubectl", "operation": "Apply"}]},
        {"managedFields": [{"manager": "a", "operation": "Update"}, {"manager": "flux", "operation": "Apply"}]},
        {"labels": {"app.kubernetes.io/managed-by": "Helm"}},
        {"labels": {"app.kubernetes.io/instance": "shop"}},
        {"labels": {"argocd.argoproj.io/instance": "shop"}},
        {"annotations": {"argocd.argoproj.io/tracking-id": "shop:remit.dev/ExecutionTask:default/x"}},
        {"annotations": {"meta.helm.sh/release-name": "shop"}},
        {"annotations": {"helm.sh/hook": "pre-install"}},
        {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}},
        {"labels": {"helm.toolkit.fluxcd.io/name": "shop"}},
        {"annotations": {"config.k8s.io/owning-inventory": "x"}},
    ],
    ids=str,
)
def test_what_has_an_owner_was_applied_or_is_synced_is_not(metadata: dict[str, Any]) -> None:
    assert not is_disposable(task(**metadata))
