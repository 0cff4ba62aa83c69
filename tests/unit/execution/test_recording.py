"""What the audit trail says of a task."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.api import CommandPolicy, ExecutionTask
from remit.backends import Exceeded, Outcome
from remit.cli.audittrail import row
from remit.execution.admission import Admission, Admitted, PolicySet
from remit.execution.recording import decision, execution
from remit.policy import compile_policy
from remit.telemetry import GENESIS, Redactor
from remit.telemetry.chain import encode, parse_line

NOW = datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC)
CONNECTION = {"name": "db", "key": "url"}
WHAT: dict[str, tuple[dict[str, Any], str]] = {
    "command": ({"argv": ["true"]}, ""),
    "script": ({"interpreter": "sh", "source": "true"}, "the sh script b5bea41b6c62"),
    "file": ({"operation": "move", "path": "/srv/a", "destination": "/srv/b"}, "move of /srv/a to /srv/b"),
    "http": ({"url": "https://example.com/a?token=hidden"}, "GET https://example.com/a"),
    "postgres": ({"connection": CONNECTION, "statements": [{"sql": "SELECT 'hidden'"}]}, "1 statements on db"),
    "redis": ({"connection": CONNECTION, "commands": [["SET", "k", "hidden"], ["get", "k"]]}, "SET, GET on db"),
    "container": ({"action": "logs", "name": "web"}, "the container operation logs web"),
}
ALLOWING = {
    "commands": {"allow": [{"executable": "true"}]},
    "http": {"allow": [{"hosts": ["example.com"]}]},
}


def task_of(operation: str, subject: dict[str, Any]) -> ExecutionTask:
    return ExecutionTask.parse({"metadata": {"name": "t", "namespace": "ns", "uid": "u"}, "spec": {operation: subject}})


@pytest.mark.parametrize("operation", WHAT)
def test_a_decision_says_what_was_asked_and_no_value_of_it(operation: str) -> None:
    subject, what = WHAT[operation]
    task = task_of(operation, subject)
    policy = compile_policy(CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": ALLOWING}))
    verdict = Admission(performed=frozenset(WHAT)).decide(task, PolicySet({"ns": [policy]}, "remit-system"))
    event = decision(task, "someone", verdict)
    assert (event.operation, event.what) == (operation, what)
    assert (event.verdict == "Allowed") == isinstance(verdict, Admitted) == (operation in {"command", "http"})
    line, _ = encode(event, GENESIS, NOW, Redactor())
    assert b"hidden" not in line
    assert what in row(parse_line(line.rstrip(b"\n"))[0])


def test_what_was_asked_is_redacted() -> None:
    task = task_of("file", {"operation": "read", "path": "/srv/canary-secret"})
    verdict = Admission(performed=frozenset({"file"})).decide(task, PolicySet({}, "remit-system"))
    redactor = Redactor()
    with redactor.holding(["canary-secret"]):
        line, _ = encode(decision(task, "someone", verdict), GENESIS, NOW, redactor)
    assert b"canary-secret" not in line
    assert b"read of /srv/[redacted]" in line


def test_an_execution_says_which_limits_it_met() -> None:
    result = Outcome(
        reason="Resources", message="out of memory", finished_at=NOW, exceeded=(Exceeded.MEMORY, Exceeded.PIDS)
    )
    event = execution(task_of("command", {"argv": ["true"]}), "someone", "u-1", result)
    assert event.exceeded == ["Memory", "Pids"]
    line, _ = encode(event, GENESIS, NOW, Redactor())
    assert row(parse_line(line.rstrip(b"\n"))[0]).endswith("out of memory  exceeded Memory, Pids")
