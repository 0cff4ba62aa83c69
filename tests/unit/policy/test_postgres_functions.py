"""Tests which functions of PostgreSQL an entry of `databases.postgres.functions` matches."""

from __future__ import annotations

import pytest

from policies import policy
from remit.api.executiontask import ExecutionTask
from remit.policy.deciding import decide
from remit.policy.request import request_for


def may_call(entry: str, call: str) -> bool:
    postgres = {"connection": {"name": "db", "key": "url"}, "statements": [{"sql": f"select {call}"}]}
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "data"}, "spec": {"postgres": postgres}})
    rule = {"secrets": ["db"], "statements": ["select"], "functions": [entry]}
    given = policy(databases={"postgres": rule})
    assert given.ready, given.problems
    return decide(request_for(task, None), [given]).allowed


@pytest.mark.parametrize(
    ("entry", "calls"),
    [
        ("f", ["f(1)", "a.f(1)", '"b.c".f(1)']),
        ("a.f", ["a.f(1)", '"a".f(1)']),
        ("a.*", ["a.f(1)", 'a."x.y"(1)']),
        ("*.f", ["a.f(1)", '"a.b".f(1)']),
        ("on*", ["one(1)", "a.one(1)", '"on.off"(1)']),
        ("*", ["f(1)", "a.f(1)", '"a.f"(1)']),
    ],
)
def test_what_an_entry_allows(entry: str, calls: list[str]) -> None:
    assert [call for call in calls if not may_call(entry, call)] == []


@pytest.mark.parametrize(
    ("entry", "calls"),
    [
        ("f", ['"a.f"(1)', "f.g(1)", '"f "(1)', '"F"(1)']),
        ("a.f", ['"a.f"(1)', "f(1)", "b.f(1)", '"x.a".f(1)', 'a."f.g"(1)', 'b."a.f"(1)', '"a.f".g(1)']),
        ("a.*", ['"a.f"(1)', "f(1)", '"a.b".f(1)', 'b."a.f"(1)']),
        ("*.f", ['"a.f"(1)', "f(1)", 'a."b.f"(1)']),
        ("a*.f", ['"ab.f"(1)', 'c."ab.f"(1)']),
        ("on*", ["on_schema.f(1)", '"on.a".f(1)']),
    ],
)
def test_what_it_does_not(entry: str, calls: list[str]) -> None:
    assert [call for call in calls if may_call(entry, call)] == []
