"""Tests ceilings for some namespaces, which are selected by a label that the requester cannot choose."""

from __future__ import annotations

from typing import Any

import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.policy.compile import compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.match import Command
from remit.policy.request import PolicyRequest

OWN = {"metadata": {"name": "own", "namespace": "team"}, "spec": {"commands": {"allow": [{"executable": "ls"}]}}}
NAME = "kubernetes.io/metadata.name"


def ceiling(namespace: str = "remit-system", **selector: Any) -> Any:
    spec = {"namespaceSelector": selector, "commands": {"allow": [{"executable": "cat"}]}}
    return compile_policy(CommandPolicy.parse({"metadata": {"name": "c", "namespace": namespace}, "spec": spec}))


def decided(*ceilings: Any, own: dict[str, Any] = OWN) -> Decision:
    request = PolicyRequest(namespace="team", labels={"team": "data"}, command=Command(("ls",), "/usr/bin/ls"))
    return decide(request, [compile_policy(CommandPolicy.parse(own))], ceilings)


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ({}, True),
        ({"matchLabels": {NAME: "team"}}, True),
        ({"matchLabels": {NAME: "other"}}, False),
        ({"matchExpressions": [{"key": NAME, "operator": "In", "values": ["a", "team"]}]}, True),
        ({"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": ["team"]}]}, False),
        ({"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": ["infra"]}]}, True),
    ],
)
def test_a_ceiling_holds_the_namespaces_that_it_selects(selector: dict[str, Any], holds: bool) -> None:
    policy = ceiling(**selector)
    assert policy.ready
    assert policy.warnings("remit-system") == ()
    assert decided(policy).allowed != holds


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"team": "other"}},
        {"matchExpressions": [{"key": "env", "operator": "Exists"}]},
        {"matchExpressions": [{"key": NAME, "operator": "In"}]},
    ],
)
def test_a_ceiling_with_an_invalid_selector_applies_to_everything(selector: dict[str, Any]) -> None:
    policy = ceiling(**selector)
    assert [problem.field.split(".matchExpressions")[0] for problem in policy.problems] == ["spec.namespaceSelector"]
    assert not decided(policy).allowed


def test_it_goes_with_ceilings() -> None:
    (warning,) = ceiling("team", matchLabels={NAME: "team"}).warnings("remit-system")
    assert str(warning).startswith("spec.namespaceSelector: goes with ceilings")
    own = {**OWN, "spec": {**OWN["spec"], "namespaceSelector": {"matchLabels": {NAME: "x"}}}}
    assert f"own wants {NAME}=x" in decided(own=own).message
