"""Tests policies for an installation that runs Jobs, or has an image of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import commandline
from remit.policy.testing import parse_policies, parse_suite, run_cases

POLICY = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: p, namespace: default}
spec: {commands: {allow: [{executable: echo}]}%s}
"""
SUITE = """
kind: CommandPolicyTest
policies: [p.yaml]
%s
cases: [{argv: [echo], expect: {decision: Allowed}}]
"""
JOBS = ("--default-backend", "kubernetes", "--default-image", "busybox:1")


@pytest.mark.parametrize(
    ("rules", "flags", "allowed"),
    [
        ("", (), True),
        ("", JOBS, True),
        (", backends: [process]", (), True),
        (", backends: [process]", JOBS, False),
        (", backends: [kubernetes]", (), False),
        (", backends: [kubernetes]", JOBS, True),
        (", backends: [kubernetes]", (*JOBS, "--image", "other:1"), False),
        (", backends: [kubernetes]", (*JOBS, "--backend", "process"), False),
    ],
)
def test_the_answer_is_that_of_the_installation(
    tmp_path: Path, rules: str, flags: tuple[str, ...], allowed: bool
) -> None:
    policy, task = tmp_path / "p.yaml", tmp_path / "t.yaml"
    policy.write_text(POLICY % rules)
    asked = commandline.invoke("policy", "test", "-f", str(policy), *flags, "--", "echo")
    assert (asked.exit_code, asked.stdout.split()[0]) == ((0, "Allowed") if allowed else (1, "Denied")), asked.output
    if {"--image", "--backend"}.isdisjoint(flags):
        task.write_text("kind: ExecutionTask\nmetadata: {name: t}\nspec: {command: {argv: [echo]}}")
        judged = commandline.invoke("policy", "test", "-f", str(policy), *flags, "--task", str(task))
        assert judged.exit_code == asked.exit_code


@pytest.mark.parametrize(
    ("backends", "flags", "allowed"),
    [
        ("", JOBS, True),
        (", backends: [process]", JOBS, False),
        (", backends: [process]", (), True),
        (", backends: [kubernetes]", JOBS, True),
    ],
)
def test_a_file_operation_is_judged_as_a_job_where_the_installation_runs_jobs(
    tmp_path: Path, backends: str, flags: tuple[str, ...], allowed: bool
) -> None:
    policy, task = tmp_path / "p.yaml", tmp_path / "t.yaml"
    policy.write_text(POLICY % f", files: {{allow: [{{paths: [/data/*], operations: [read]}}]}}{backends}")
    task.write_text("kind: ExecutionTask\nmetadata: {name: t}\nspec: {file: {operation: read, path: /data/a}}")
    judged = commandline.invoke("policy", "test", "-f", str(policy), *flags, "--task", str(task))
    assert judged.exit_code == (0 if allowed else 1), judged.output


def test_a_table_says_which_installation_it_is_for_and_flags_win() -> None:
    policies = parse_policies(POLICY % ", backends: [kubernetes]")
    here = "installation: {backend: kubernetes, image: 'busybox:1'}"
    assert [result.passed for result in run_cases(parse_suite(SUITE % ""), policies)] == [False]
    suite = parse_suite(SUITE % here)
    assert [result.passed for result in run_cases(suite, policies)] == [True]
    assert suite.installation is not None
    elsewhere = suite.installation.model_copy(update={"backend": "docker"})
    assert [result.passed for result in run_cases(suite, policies, elsewhere)] == [False]


def test_a_backend_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY % "")
    asked = commandline.invoke("policy", "test", "-f", str(tmp_path / "p.yaml"), "--default-backend", "podman")
    assert asked.exit_code == 2
