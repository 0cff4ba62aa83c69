"""Tests suggested policies as text: the text parses to the policy that was evaluated, whatever it contains, and hides
nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from remit.api.executiontask import ExecutionTask
from remit.describe import policyyaml
from remit.policy.deciding import decide
from remit.policy.suggestion import LeftOut, Options, Run, Suggestion, suggest, written
from remit.policy.testing import parse_policies, request_of
from remit.safeyaml import load_documents
from remit.telemetry.logs import escape
from support import repetitions

WORDS = st.text(min_size=1, max_size=8) | st.sampled_from(
    ["yes", "1e3", "0o17", "~", "null", "# x", "- a", "a: b", "{}", "*", "&a", "!t", "'", '"', "\\", "…", "日本", "="]
)  # fmt: skip


def run(name: str, *argv: str, **spec: Any) -> Run:
    metadata = {"name": "t", "namespace": "data"}
    task = ExecutionTask.parse({"metadata": metadata, "spec": {"command": {"argv": list(argv)}, **spec}})
    return Run(name=name, request=request_of(task))


@settings(max_examples=repetitions(30, soak=2000), deadline=None)
@given(st.lists(st.lists(WORDS, max_size=3), min_size=1, max_size=3), WORDS)
def test_what_is_read_is_what_was_judged(arguments: list[list[str]], name: str) -> None:
    runs = [run(name, "echo", *each) for each in arguments]
    found = suggest(runs, "data", [])
    text, objects = policyyaml.as_yaml(found), [policy.object for policy in found.policies]
    assert load_documents(text) == objects
    assert all(escape(line) == line for line in text.split("\n"))
    read = json.loads(policyyaml.as_json(found))
    assert [read] == objects or read["items"] == objects
    refused = {id(each.run) for each in found.left_out}
    policies = parse_policies(text)
    assert all(decide(each.request, policies).allowed for each in runs if id(each) not in refused)


def test_a_comment_cannot_become_a_rule() -> None:
    evil = "x\n  commands: {allow: [{pattern: .*}]}\u2028- {executable: sh}\x1b[2J"
    found = suggest([run(f"task {evil}", "ls")], "data", [])
    found = Suggestion(found.policies, (LeftOut(run("b", "rm"), evil),))
    text = policyyaml.as_yaml(found)
    assert load_documents(text) == [policy.object for policy in found.policies]
    assert "\x1b" not in text
    assert "\u2028" not in text


def test_rules_say_for_whom_they_are() -> None:
    first = run(
        "task a", "pg_dump", "--format=custom", "app", env=[{"name": "PGHOST", "value": "db"}], timeoutSeconds=600
    )
    second = run("schedule nightly", "pg_dump", "--format=custom", "shop", env=[{"name": "PGHOST", "value": "db"}])
    found = suggest([first, second, second], "data", [])
    assert (
        policyyaml.as_yaml(found)
        == """\
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: suggested, namespace: data}
spec:
  commands:
    allow:
    # 3 runs: schedule nightly (2), task a
    - {executable: pg_dump, args: [--format=custom, app|shop]}
  # 3 runs: schedule nightly (2), task a
  environment:
    allow: [PGHOST]
  # the most that was asked for
  limits:
    timeoutSeconds: {max: 600}"""
    )


def test_a_difference_shows_what_today_s_policy_gets() -> None:
    today = {"commands": {"allow": [{"executable": "ls"}]}, "limits": {"pids": {"max": 5}}, "backends": ["process"]}
    text = "kind: CommandPolicy\nmetadata: {name: team, namespace: data}\nspec: " + json.dumps(today)
    policies = parse_policies(text)
    found = suggest([run("task a", "cat", "x")], "data", policies, (), Options(name="team"))
    assert policyyaml.difference(found, {"team": written(policies[0])}).splitlines() == [
        "--- data/team today",
        "+++ data/team suggested",
        "@@ -5,5 +5,7 @@",
        "   commands:",
        "     allow:",
        "     - {executable: ls}",
        "+    # 1 run: task a",
        "+    - {executable: cat, args: [x]}",
        "   limits:",
        "     pids: {max: 5}",
    ]
    new = suggest([run("task a", "cat", "x")], "data", policies)
    assert all(line.startswith(("---", "+++", "@@", "+")) for line in policyyaml.difference(new, {}).splitlines())


def test_where_there_are_no_comments_it_is_told_which_rules_allow_more() -> None:
    runs = [
        *(run("task a", "cat", f"/srv/{number}.csv") for number in range(20)),
        run("task b\x1b[2J", "sh", "-c", "ls"),
    ]
    found = suggest(runs, "data", [])
    told = policyyaml.cautions(found)
    assert len(told) == 2
    assert told[0].startswith("suggested: commands.allow[0]: generalized: argument 1 had 20 values")
    assert told[1].startswith("suggested: commands.allow[1]: warning: sh runs whatever text")
    assert policyyaml.cautions(suggest(runs[:1], "data", [])) == []
