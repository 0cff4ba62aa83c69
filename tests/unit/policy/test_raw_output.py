"""Tests that output is kept unredacted only if the policy and every ceiling allow it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.policy.compile import compile_policy
from remit.policy.deciding import Decision
from remit.policy.testing import decide_on, parse_policies, parse_suite, request_of, run_cases
from remit.policy.verdict import Reason

ALLOWED = {"output": {"allowRaw": True}}
SUITE = """
policies: [p.yaml]
cases:
- {line: ls, output: {raw: true}, expect: {decision: Denied, reason: RawOutputNotAllowed, rule: output.allowRaw}}
- {line: ls, expect: {decision: Allowed}}
"""


def decided(own: dict[str, Any], ceiling: dict[str, Any] | None = None, *, raw: bool = True) -> Decision:
    def policy(namespace: str, spec: dict[str, Any]) -> CommandPolicy:
        metadata = {"name": "p", "namespace": namespace}
        return CommandPolicy.parse({"metadata": metadata, "spec": {"commands": {"allow": [{"pattern": ".*"}]}, **spec}})

    spec = {"command": {"argv": ["ls"]}, **({"output": {"raw": True}} if raw else {})}
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "default"}, "spec": spec})
    policies = [policy("default", own), *([policy("remit-system", ceiling)] if ceiling is not None else [])]
    return decide_on(request_of(task), [compile_policy(each) for each in policies], "remit-system")


def test_raw_output_is_denied_by_default_and_by_every_ceiling() -> None:
    assert decided({}, raw=False).allowed
    assert decided({}).reason is Reason.RAW_OUTPUT_NOT_ALLOWED
    assert decided({"output": {"allowRaw": False}}).reason is Reason.RAW_OUTPUT_NOT_ALLOWED
    assert decided(ALLOWED).allowed
    assert decided(ALLOWED, {}).reason is Reason.CEILING_EXCEEDED
    assert decided({}, ALLOWED).reason is Reason.RAW_OUTPUT_NOT_ALLOWED
    assert decided(ALLOWED, ALLOWED).allowed


@pytest.mark.parametrize(("own", "ceiling"), [({}, None), (ALLOWED, {})])
def test_the_denial_has_the_line_that_the_policy_lacks(own: dict[str, Any], ceiling: dict[str, Any] | None) -> None:
    decision = decided(own, ceiling)
    assert decision.rule == "output.allowRaw"
    line = re.search(r"`(.*)`", decision.message)
    assert line is not None
    added = yaml.safe_load(line[1])
    assert decided({**own, **added}, None if ceiling is None else added).allowed


def test_a_table_of_policy_tests_knows_it() -> None:
    policies = parse_policies("kind: CommandPolicy\nmetadata: {name: p}\nspec: {commands: {allow: [{pattern: ls}]}}\n")
    assert [result.mismatches for result in run_cases(parse_suite(SUITE), policies)] == [(), ()]
