"""Tests suggestions for connections that a proxy refused, or that policies in Audit mode allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policies import policy
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.hosts import Destination
from remit.policy.suggestion import Options, Run, Suggestion, suggest
from remit.policy.testing import request_of

CURL = {"commands": {"allow": [{"executable": "curl"}]}, "networks": ["none", "restricted"]}


def run(line: str, *destinations: str, name: str = "fetch") -> Run:
    spec = {"command": {"line": line}, "network": "restricted"}
    request = request_of(ExecutionTask.parse({"metadata": {"name": "t", "namespace": "data"}, "spec": spec}))
    return Run(name=f"task {name}", request=request, destinations=frozenset(map(Destination.parse, destinations)))


def suggested(*runs: Run, policies: tuple[CompiledPolicy, ...] = (), **more: Any) -> Suggestion:
    return suggest(runs, "data", policies, more.pop("ceilings", ()), Options(**more))


def with_it(found: Suggestion, each: Run, *policies: CompiledPolicy) -> Decision:
    added = [compile_policy(CommandPolicy.parse(each.object)) for each in found.policies]
    names = {one.name for one in added}
    return decide(each.request, [*added, *(one for one in policies if one.name not in names)])


def egress(found: Suggestion) -> list[dict[str, Any]]:
    (one,) = found.policies
    allow: list[dict[str, Any]] = one.spec["egress"]["allow"]
    return allow


def test_what_it_connected_to_is_listed_and_nothing_else() -> None:
    one = run("curl x", "b.test:443", "a.test:443", "[2001:db8::1]:8443", "c.test:80")
    found = suggested(one)
    assert egress(found) == [
        {"hosts": ["2001:db8::1"], "ports": [8443]},
        {"hosts": ["a.test", "b.test"], "ports": [443]},
        {"hosts": ["c.test"], "ports": [80]},
    ]
    decision = with_it(found, one)
    assert decision.allowed
    assert decision.objection(one.destinations) is None
    for other in ("a.test:80", "x.a.test:443", "test:443", "c.test:443"):
        assert decision.objection([Destination.parse(other)])


def test_runs_of_one_command_are_one_and_another_command_does_not_get_its_hosts() -> None:
    runs = [run("curl x", "a.test:443"), run("curl x", "b.test:443", name="again"), run("curl y", "c.test:443")]
    found = suggested(*runs)
    assert not found.left_out
    for each in runs:
        assert with_it(found, each).objection(each.destinations) is None
    assert with_it(found, runs[2]).objection([Destination.parse("a.test:443")])


@pytest.mark.parametrize("enforcement", ["Enforce", "Audit"])
def test_the_policy_that_allows_the_command_is_added_to(enforcement: str) -> None:
    there = policy(
        "web", **CURL, egress={"allow": [{"hosts": ["a.test"]}]}, enforcement=enforcement, limits={"pids": {"max": 9}}
    )
    one = run("curl x", "a.test:443", "b.test:443")
    found = suggested(one, policies=(there,), name="other")
    assert [each.name for each in found.policies] == ["web"]
    assert egress(found) == [{"hosts": ["a.test"]}, {"hosts": ["b.test"], "ports": [443]}]
    assert found.policies[0].spec["commands"] == CURL["commands"]
    assert with_it(found, one, there).objection(one.destinations) is None


def test_what_an_enforced_policy_lets_through_is_allowed_already() -> None:
    there = policy("web", **CURL, egress={"allow": [{"hosts": ["*.test"]}]})
    found = suggested(run("curl x", "a.test:443"), policies=(there,))
    assert (found.policies, found.left_out, len(found.allowed)) == ((), (), 1)


def test_what_a_ceiling_does_not_let_through_is_reported() -> None:
    ceiling = policy("top", "remit-system", **CURL, egress={"allow": [{"hosts": ["a.test"]}]})
    for there in ((), (policy("web", **CURL),)):
        found = suggested(run("curl x", "b.test:443"), policies=there, ceilings=(ceiling,))
        assert not found.policies
        (left,) = found.left_out
        assert "policy remit-system/top names b.test" in left.why


@pytest.mark.parametrize("address", ["169.254.169.254:80", "[fd00:ec2::254]:80"])
def test_a_clouds_metadata_address_is_never_suggested(address: str) -> None:
    found = suggested(run("curl x", address), policies=(policy("web", **CURL),))
    assert not found.policies
    (left,) = found.left_out
    assert "no rule can say exactly that" in left.why


def test_more_than_a_policy_may_list_is_reported() -> None:
    found = suggested(run("curl x", *(f"h{number}.test:{number}" for number in range(1, 70))))
    assert not found.policies
    assert len(found.left_out) == 1


def test_a_host_that_is_a_secret_is_not_reported() -> None:
    one = run("curl x", "hunter22.test:443")
    hidden = replace(one, mask=lambda text: text.replace("hunter22", "?"))
    found = suggested(hidden)
    assert not found.policies
    assert "hunter22" not in found.left_out[0].why
