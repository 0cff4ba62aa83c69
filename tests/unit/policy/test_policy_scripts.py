"""Tests scripts: both the interpreter and the source must be listed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.api.operations import ScriptOperation
from remit.policy.compile import compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.grant import Grant
from remit.policy.match import Command
from remit.policy.request import PolicyRequest
from remit.policy.verdict import Reason

SOURCE = "print('hello')\n"
DIGEST = hashlib.sha256(SOURCE.encode()).hexdigest()


def decided(scripts: dict[str, Any], source: str = SOURCE, interpreter: str = "python3") -> Decision:
    policy = compile_policy(
        CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"scripts": scripts}})
    )
    command = Command((interpreter, "/run/remit/script"), "/usr/bin/python3", "/usr/bin/python3.11")
    subject = ScriptOperation(interpreter=interpreter, source=source)
    return decide(PolicyRequest(namespace="ns", operation="script", command=command, subject=subject), [policy])


@pytest.mark.parametrize("interpreter", ["python3", "/usr/bin/python3"])
def test_by_digest(interpreter: str) -> None:
    decision = decided({"interpreters": [interpreter], "sha256": ["0" * 64, DIGEST]})
    assert (decision.allowed, decision.rule) == (True, "scripts.sha256[1]")


def test_by_pattern() -> None:
    decision = decided({"interpreters": ["python3"], "patterns": [r"print\('[a-z]+'\)\n"]})
    assert (decision.allowed, decision.rule) == (True, "scripts.patterns[0]")


def test_a_pattern_must_match_the_whole_source() -> None:
    decision = decided({"interpreters": ["python3"], "patterns": [r"print\('[a-z]+'\)\n"]}, SOURCE + "import os\n")
    assert decision.reason is Reason.NOT_ALLOWED


@pytest.mark.parametrize(
    ("scripts", "told"),
    [
        ({}, "spec.scripts.interpreters lists none"),
        ({"interpreters": ["bash"], "sha256": [DIGEST]}, "lists bash"),
        ({"interpreters": ["python3"], "sha256": ["0" * 64]}, f"its digest {DIGEST} would have to be"),
    ],
)
def test_a_denial_says_what_would_allow_it(scripts: dict[str, Any], told: str) -> None:
    decision = decided(scripts)
    assert not decision.allowed
    assert told in decision.message


def test_a_bad_pattern_makes_the_policy_not_ready() -> None:
    decision = decided({"interpreters": ["python3"], "patterns": ["("], "sha256": [DIGEST]})
    assert decision.reason is Reason.POLICY_NOT_READY
    assert "spec.scripts.patterns[0]: column 1" in decision.message


def test_a_grant_asks_the_same_policies_about_something_else() -> None:
    policy = compile_policy(
        CommandPolicy.parse(
            {
                "metadata": {"name": "p", "namespace": "ns"},
                "spec": {"scripts": {"interpreters": ["python3"], "sha256": [DIGEST]}},
            }
        )
    )
    subject = ScriptOperation(interpreter="python3", source=SOURCE)
    command = Command(("python3", "/run/remit/script"), "/usr/bin/python3", "/usr/bin/python3")
    grant = Grant(PolicyRequest(namespace="ns", operation="script", command=command, subject=subject), [policy], [])
    assert grant.ask(subject).allowed
    assert not grant.ask(subject.model_copy(update={"source": "import os"})).allowed
