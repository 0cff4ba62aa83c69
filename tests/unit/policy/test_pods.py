"""Tests which options the pod of a Job may have."""

from __future__ import annotations

from typing import Any

import pytest

from policies import allowing
from remit.api.executiontask import ExecutionTask
from remit.api.pods import PodOptions
from remit.errors import InvalidInput
from remit.policy import needs
from remit.policy.deciding import Decision, decide
from remit.policy.match import Command
from remit.policy.request import request_for
from remit.policy.verdict import Reason

POD: dict[str, Any] = {
    "nodeSelector": {"gpu": "a100", "zone/name": "b"},
    "tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "spot", "operator": "Exists"}],
    "runtimeClassName": "gvisor",
    "priorityClassName": "low",
    "serviceAccountName": "builder",
    "imagePullSecrets": ["registry"],
}
PODS: dict[str, list[str]] = {
    "nodeSelectors": ["gpu=*", "zone/name=b"],
    "tolerations": ["gpu=yes:NoSchedule", "spot"],
    "runtimeClasses": ["gvisor"],
    "priorityClasses": ["l*"],
    "serviceAccounts": ["builder"],
    "pullSecrets": ["registry"],
}


POD_OPTIONS = PodOptions.model_validate(POD)


def task(pod: dict[str, Any]) -> ExecutionTask:
    spec = {"command": {"line": "ls"}, "backend": "kubernetes", "image": "i", "pod": pod}
    return ExecutionTask.parse({"metadata": {"name": "t", "namespace": "data"}, "spec": spec})


def decided(pod: dict[str, Any], pods: dict[str, Any], *ceilings: Any) -> Decision:
    policy = allowing("ls", backends=["kubernetes"], images={"allow": ["i"]}, pods=pods)
    return decide(request_for(task(pod), Command(("ls",), None)), [policy], list(ceilings))


def test_all_that_is_listed_and_nothing_else() -> None:
    assert decided(POD, PODS).allowed
    for field in PODS:
        denied = decided(POD, {**PODS, field: ["other"]})
        assert (denied.reason, denied.rule) == (Reason.POD_NOT_ALLOWED, f"pods.{field}")
        listed = POD_OPTIONS.wishes[field]
        assert needs.pods(field, listed) == {"pods": {field: listed}}
        assert decided(POD, {**PODS, field: listed}).allowed
    assert decided({}, {}).allowed


def test_a_ceiling_denies_it_too() -> None:
    tight = allowing("ls", name="top", namespace="remit-system", backends=["kubernetes"], images={"allow": ["i"]})
    assert not decided(POD, PODS, tight).allowed


@pytest.mark.parametrize(
    ("toleration", "words", "listed", "allowed"),
    [
        ({"operator": "Exists"}, "*", ["gpu", "gpu*"], False),
        ({"operator": "Exists"}, "*", ["*"], True),
        ({"operator": "Exists", "effect": "NoExecute"}, "*:NoExecute", ["gpu:NoExecute"], False),
        ({"key": "gpu", "operator": "Exists"}, "gpu", ["gpu=yes"], False),
        ({"key": "gpu"}, "gpu=", ["gpu"], False),
        ({"key": "gpu", "value": "yes"}, "gpu=yes", ["gpu=yes:NoSchedule"], False),
        ({"key": "gpu", "value": "yes"}, "gpu=yes", ["gpu=y*"], True),
    ],
)
def test_a_wider_toleration_is_another_one(toleration: Any, words: str, listed: list[str], allowed: bool) -> None:
    pod = {"tolerations": [toleration]}
    asked = task(pod).spec.pod
    assert asked is not None
    assert asked.tolerations[0].words == words
    assert decided(pod, {"tolerations": listed}).allowed is allowed


@pytest.mark.parametrize(
    "pod",
    [
        {"nodeSelector": {"a": "b c"}},
        {"nodeSelector": {"a": "x" * 64}},
        {"serviceAccountName": "../x"},
        {"hostNetwork": True},
        {"tolerations": [{"key": "a b"}]},
    ],
)
def test_what_cannot_be_right_is_refused(pod: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        task(pod)
