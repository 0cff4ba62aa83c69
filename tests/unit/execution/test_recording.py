"""Tests the audit records of a task."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.backends.exceeded import Exceeded
from remit.backends.outcome import Outcome
from remit.describe.audittrail import row
from remit.execution.admission import Admission, Admitted, PolicySet, Refused, redacted, withheld
from remit.execution.recording import decision, execution
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.telemetry.chain import GENESIS, MAX_TEXT, AuditEvent, encode, parse_line
from remit.telemetry.redact import Redactor

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


def test_the_folder_of_a_container_is_on_record() -> None:
    task = task_of("container", {"action": "exec", "name": "web", "argv": ["true"], "workingDir": "/srv/canary"})
    verdict = Admission(performed=frozenset({"container"})).decide(task, PolicySet({}, "remit-system"))
    event = decision(task, "someone", verdict)
    assert event.what == "the container operation exec web in /srv/canary"
    assert event.asks["workingDir"] == "/srv/canary"
    redactor = Redactor()
    with redactor.holding(["canary"]):
        line, _ = encode(event, GENESIS, NOW, redactor)
    assert b"canary" not in line


def test_what_was_asked_is_redacted() -> None:
    task = task_of("file", {"operation": "read", "path": "/srv/canary-secret"})
    verdict = Admission(performed=frozenset({"file"})).decide(task, PolicySet({}, "remit-system"))
    redactor = Redactor()
    with redactor.holding(["canary-secret"]):
        line, _ = encode(decision(task, "someone", verdict), GENESIS, NOW, redactor)
    assert b"canary-secret" not in line
    assert b"read of /srv/[redacted]" in line


def policy_of(name: str, **spec: Any) -> CompiledPolicy:
    return compile_policy(CommandPolicy.parse({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}))


def recorded(event: AuditEvent, redactor: Redactor | None = None) -> tuple[dict[str, Any], str]:
    """Returns the record, and its text for people."""
    line, _ = encode(event, GENESIS, NOW, redactor or Redactor())
    record, whole = parse_line(line.rstrip(b"\n"))
    assert whole
    return record, row(record)


def test_what_a_policy_in_audit_would_have_denied_is_on_record() -> None:
    allowing = policy_of("allowing", commands={"allow": [{"executable": "true"}]})
    auditing = policy_of("auditing", enforcement="Audit", commands={"deny": [{"executable": "true"}]})
    task = task_of("command", {"argv": ["true"]})
    verdict = Admission().decide(task, PolicySet({"ns": [allowing, auditing]}, "remit-system"))
    assert isinstance(verdict, Admitted)
    record, shown = recorded(decision(task, "someone", verdict))
    assert (record["verdict"], record["policy"]) == ("Allowed", "allowing")
    (would_be,) = record["audited"]
    assert (would_be["policy"], would_be["rule"], would_be["reason"]) == (
        "auditing",
        "commands.deny[0]",
        "DeniedByRule",
    )
    assert "is denied by commands.deny[0] of policy ns/auditing" in would_be["message"]
    assert f"would be denied by [auditing commands.deny[0]]: {would_be['message']}" in shown


def test_a_ceiling_in_audit_is_named_with_its_namespace() -> None:
    allowing = policy_of("allowing", commands={"allow": [{"executable": "true"}]})
    body = {"metadata": {"name": "top", "namespace": "remit-system"}, "spec": {"enforcement": "Audit"}}
    task = task_of("command", {"argv": ["true"]})
    policies = PolicySet(
        {"ns": [allowing], "remit-system": [compile_policy(CommandPolicy.parse(body))]}, "remit-system"
    )
    record, _ = recorded(decision(task, "someone", Admission().decide(task, policies)))
    assert [(each["policy"], each["reason"]) for each in record["audited"]] == [("remit-system/top", "CeilingExceeded")]


def test_nothing_is_on_record_where_a_policy_in_audit_would_have_allowed_it_too() -> None:
    auditing = policy_of("auditing", enforcement="Audit", commands={"allow": [{"executable": "true"}]})
    task = task_of("command", {"argv": ["true"]})
    verdict = Admission().decide(task, PolicySet({"ns": [auditing]}, "remit-system"))
    record, shown = recorded(decision(task, "someone", verdict))
    assert (record["verdict"], record.get("audited")) == ("Allowed", None)
    assert "would" not in shown


@pytest.mark.parametrize("enforced", [None, "false"], ids=["allowed", "denied"])
def test_what_would_have_been_denied_is_redacted(enforced: str | None) -> None:
    """Names of policies and rules are not redacted, even if a secret has the same text."""
    auditing = policy_of("auditing", enforcement="Audit", commands={"deny": [{"executable": "true"}]})
    others = [policy_of("enforced", commands={"allow": [{"executable": enforced}]})] if enforced else []
    task = task_of("command", {"argv": ["true", "canary-secret"]})
    verdict: Any = Admission().decide(task, PolicySet({"ns": [auditing, *others]}, "remit-system"))
    assert type(verdict) is (Refused if enforced else Admitted)
    assert "canary-secret" in str(verdict.audited)
    redactor = Redactor()
    with redactor.holding(["canary-secret", "auditing", "DeniedByRule"]):
        told = redacted(verdict, redactor)
        assert "canary-secret" not in f"{told.audited}{told.status}"
        for each in (verdict, told):
            record, shown = recorded(decision(task, "someone", each), redactor)
            assert "canary-secret" not in f"{record}{shown}"
            (would_be,) = record["audited"]
            assert (would_be["policy"], would_be["reason"]) == ("auditing", "DeniedByRule")
            assert "[redacted]" in would_be["message"]


def test_what_would_have_been_denied_is_bounded() -> None:
    record, _ = recorded(AuditEvent(kind="decision", audited=[{"policy": "p", "message": "\udc80" + "x" * 9000}]))
    assert record["audited"] == [{"policy": "p", "message": "\\udc80" + "x" * (MAX_TEXT - 6) + "…"}]


def test_a_refusal_that_must_not_tell_what_was_asked_names_the_policy_in_audit_only() -> None:
    auditing = policy_of("auditing", enforcement="Audit", commands={"deny": [{"executable": "true"}]})
    enforced = policy_of("enforced", commands={"allow": [{"executable": "false"}]})
    task = task_of("command", {"argv": ["true", "canary-secret"]})
    verdict = Admission().decide(task, PolicySet({"ns": [auditing, enforced]}, "remit-system"))
    assert isinstance(verdict, Refused)
    told = withheld(verdict, "it holds secrets")
    record, shown = recorded(decision(task, "someone", told))
    assert record["audited"] == [{"policy": "auditing", "rule": "commands.deny[0]", "reason": "DeniedByRule"}]
    assert "would be denied by [auditing commands.deny[0]]" in shown
    assert "canary-secret" not in f"{told}{record}{shown}"


def test_an_execution_says_which_limits_it_met() -> None:
    result = Outcome(
        reason="Resources", message="out of memory", finished_at=NOW, exceeded=(Exceeded.MEMORY, Exceeded.PIDS)
    )
    event = execution(task_of("command", {"argv": ["true"]}), "someone", "u-1", result)
    assert event.exceeded == ["Memory", "Pids"]
    line, _ = encode(event, GENESIS, NOW, Redactor())
    assert row(parse_line(line.rstrip(b"\n"))[0]).endswith("out of memory  exceeded Memory, Pids")
