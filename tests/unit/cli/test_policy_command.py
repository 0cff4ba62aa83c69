from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import commandline
from remit.cli.errors import report
from remit.errors import InvalidInput

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"
POLICY = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: team}
spec:
  selector: {matchLabels: {team: data}}
  commands: {allow: [{executable: ls, args: [-l]}]}
  limits: {timeoutSeconds: {max: 60}}
"""
SUITE = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicyTest
policies: [team.yaml]
cases:
- {line: ls -l, labels: {team: data}, expect: {decision: Allowed}}
- {line: ls -a, labels: {team: data}, expect: {decision: %s}}
"""


def invoke(*arguments: str) -> tuple[int, str]:
    result = commandline.invoke("policy", "test", *arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def team(tmp_path: Path) -> str:
    (tmp_path / "team.yaml").write_text(POLICY)
    return str(tmp_path / "team.yaml")


def test_an_allowed_command_exits_with_0_and_says_by_which_rule(team: str) -> None:
    code, text = invoke("-f", team, "-l", "team=data", "--", "ls", "-l")
    assert code == 0
    assert text.startswith("Allowed\n")
    assert "commands.allow[0]" in text
    assert "timeoutSeconds 60" in text


@pytest.mark.parametrize(
    ("flags", "argv", "reason"),
    [
        (["-l", "team=data"], ["rm", "-rf", "/"], "NotAllowed"),
        ([], ["ls", "-l"], "NoPolicy"),
        (["-l", "team=data", "--timeout", "61"], ["ls", "-l"], "LimitExceeded"),
        (["-l", "team=data", "-n", "other"], ["ls", "-l"], "NoPolicy"),
        (["-l", "team=data", "--network", "host"], ["ls", "-l"], "NetworkNotAllowed"),
        (["-l", "team=data", "--raw-output"], ["ls", "-l"], "RawOutputNotAllowed"),
    ],
)
def test_a_denied_command_exits_with_1_and_says_why(team: str, flags: list[str], argv: list[str], reason: str) -> None:
    code, text = invoke("-f", team, *flags, "--", *argv)
    assert code == 1
    assert text.startswith("Denied\n")
    assert f"reason:   {reason}" in text


def test_the_same_for_programs(team: str, tmp_path: Path) -> None:
    code, text = invoke("-f", team, "-l", "team=data", "-o", "json", "--", "ls", "-l")
    allowed = json.loads(text)
    assert (code, allowed["decision"], allowed["rule"]) == (0, "Allowed", "commands.allow[0]")
    assert allowed["limits"]["timeoutSeconds"] == 60
    code, text = invoke("-f", team, "-o", "json", "--", "ls", "-l")
    assert (code, json.loads(text)["reason"]) == (1, "NoPolicy")
    code, text = invoke("-f", team, "-o", "json")
    assert (code, [each["ready"] for each in json.loads(text)]) == (0, [True])
    (tmp_path / "team.test.yaml").write_text(SUITE % "Allowed")
    code, text = invoke("-f", str(tmp_path / "team.test.yaml"), "-o", "json")
    failed = [each for each in json.loads(text) if not each["passed"]]
    assert (code, len(failed), failed[0]["decision"]) == (1, 1, "Denied")
    assert failed[0]["mismatches"]


def test_the_starter_policys_own_table_holds() -> None:
    code, text = invoke("-f", str(EXAMPLES / "00-starter-policy.test.yaml"))
    assert code == 0, text
    assert "none not as expected" in text


@pytest.mark.parametrize(("expected", "code"), [("Denied", 0), ("Allowed", 1)])
def test_a_table_must_hold(team: str, tmp_path: Path, expected: str, code: int) -> None:
    (tmp_path / "team.test.yaml").write_text(SUITE % expected)
    for arguments in (
        ["-f", str(tmp_path / "team.test.yaml")],
        ["-f", team, "--cases", str(tmp_path / "team.test.yaml")],
    ):
        found, text = invoke(*arguments)
        assert found == code
        assert "2 cases" in text
        assert ("FAIL  ls -a" in text) == bool(code)


def test_a_broken_policy_is_told_and_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY.replace("args: [-l]", "args: ['(']"))
    code, text = invoke("-f", str(tmp_path / "p.yaml"), "-l", "team=data", "--", "ls", "-l")
    assert code == 1
    assert "policy team is not ready: spec.commands.allow[0].args[0]" in text
    assert "PolicyNotReady" in text


def test_a_ceiling_with_a_selector_is_warned_of(tmp_path: Path, team: str) -> None:
    ceiling = POLICY.replace("name: team", "name: ceiling, namespace: remit-system")
    (tmp_path / "ceiling.yaml").write_text(ceiling)
    code, text = invoke("-f", team, "-f", str(tmp_path / "ceiling.yaml"), "-l", "team=data", "--", "ls", "-l")
    assert code == 0
    assert "warning: policy ceiling: spec.selector: " in text
    assert "leave the selector out" in text
    assert "warning: policy team" not in text
    (tmp_path / "suite.yaml").write_text(SUITE % "Denied" + "operatorNamespace: ops\n")
    (tmp_path / "team.yaml").write_text(POLICY + "---" + ceiling.replace("remit-system", "ops"))
    code, text = invoke("-f", str(tmp_path / "suite.yaml"))
    assert code == 0
    assert "warning: policy ceiling: spec.selector: " in text


def test_a_ceiling_without_a_selector_is_not_warned_of(tmp_path: Path, team: str) -> None:
    ceiling = POLICY.replace("name: team", "name: ceiling, namespace: remit-system")
    (tmp_path / "ceiling.yaml").write_text(ceiling.replace("selector: {matchLabels: {team: data}}", "selector: {}"))
    _, text = invoke("-f", team, "-f", str(tmp_path / "ceiling.yaml"), "-l", "team=data", "--", "ls", "-l")
    assert "warning" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("kind: ConfigMap", "there is no CommandPolicy in"),
        (POLICY + "  nonsense: 1", "nonsense"),
    ],
)
def test_a_file_that_holds_no_policy(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        invoke("-f", str(tmp_path / "p.yaml"), "--", "ls")


def test_policies_alone_are_checked_for_mistakes(team: str, tmp_path: Path) -> None:
    code, text = invoke("-f", team)
    assert code == 0
    assert re.search(r"^policy \S+/\S+ is ready$", text, re.MULTILINE)
    (tmp_path / "p.yaml").write_text(POLICY.replace("allow:", "deny: [{pattern: 'rm ('}], allow:"))
    code, text = invoke("-f", team, "-f", str(tmp_path / "p.yaml"))
    assert code == 1
    assert "is not ready: spec.commands.deny[0].pattern: column 4: missing )" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: ComandPolicy", "but ComandPolicy; did you mean CommandPolicy?"),
        (POLICY + "  comands: {}", "spec.comands: is not a known field; did you mean commands?"),
        (POLICY + "  enforcement: enforce", "spec.enforcement: must be 'Enforce' or 'Audit'"),
    ],
)
def test_what_was_meant_is_suggested(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        invoke("-f", str(tmp_path / "p.yaml"))


def test_usage(team: str) -> None:
    code, text = invoke("-f", team, "--backend", "mars", "--", "ls")
    assert code == 2
    assert "backend" in text


@pytest.mark.parametrize(("path", "code"), [("/srv/a", 0), ("/etc/a", 1)])
def test_a_whole_task_is_judged(tmp_path: Path, path: str, code: int) -> None:
    (tmp_path / "p.yaml").write_text(
        POLICY.replace("commands:", "files: {allow: [{paths: ['/srv/*'], operations: [read]}]}\n  commands:")
        + "---\nkind: ExecutionTask\nmetadata: {name: t, labels: {team: data}}\n"
        + f"spec: {{file: {{operation: read, path: {path}}}}}\n"
    )
    found, text = invoke("-f", str(tmp_path / "p.yaml"), "--task", str(tmp_path / "p.yaml"))
    assert found == code
    assert text.startswith(f"default/t: read of {path}\n{'Denied' if code else 'Allowed'}\n")
    assert ("rule:     files.allow[0]" if code == 0 else "it allows read in /srv/* (spec.files.allow)") in text
    assert invoke("-f", str(tmp_path / "p.yaml"), "--task", str(tmp_path / "p.yaml"), "-n", "other")[0] == 1
    assert invoke("-f", str(tmp_path / "p.yaml"), "--task", str(tmp_path / "p.yaml"), "--", "ls")[0] == 2


def test_it_says_which_variables_a_policy_would_need(team: str, tmp_path: Path) -> None:
    code, text = invoke("-f", team, "-l", "team=data", "-e", "TZ=UTC", "-e", "TOKEN=x", "--", "ls", "-l")
    assert code == 1
    assert "reason:   EnvironmentNotAllowed" in text
    assert 'environment: {allow: ["TOKEN"]}' in text
    assert invoke("-f", team, "-l", "team=data", "-e", "TZ=UTC", "--", "ls", "-l")[0] == 0
    assert invoke("-f", team, "-e", "A=b", "--task", team)[0] == 2


def test_what_env_from_brings_is_read_from_the_same_file(team: str, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "{kind: ConfigMap, metadata: {name: c}, data: {MODE: x, LANG: C}, binaryData: {BLOB: eA==}}\n---\n"
        "{kind: Secret, metadata: {name: s}, stringData: {KEY: x}, data: {PIN: eA==}}\n---\n"
        "{kind: ConfigMap, metadata: {name: s, namespace: other}, data: {OTHER: x}}\n---\n"
        "{kind: Secret, metadata: {name: tz}, data: {TZ: RXVyb3BlL1BhcmlzCg==, LANG: Qy5VVEYtOA==}}\n---\n"
        "{kind: ExecutionTask, metadata: {name: t, labels: {team: data}}, spec: {command: {line: ls -l}, envFrom: ["
        "{configMapRef: {name: c}}, {prefix: A_, secretRef: {name: s}}, {secretRef: {name: tz}}, "
        "{secretRef: {name: absent}}]}}"
    )
    code, text = invoke("-f", team, "--task", str(tmp_path / "task.yaml"))
    assert code == 1
    # The value of TZ ends with a line feed.
    assert 'environment: {allow: ["A_KEY", "A_PIN", "BLOB", "MODE", "TZ"]}' in text
    assert "envFrom: Secret absent is not in" in text


TAKES_C = (
    "{kind: ExecutionTask, metadata: {name: t}, spec: {command: {line: ls}, envFrom: [{configMapRef: {name: c}}]}}"
    "\n---\n"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: ConfigMap", "there is no ExecutionTask in"),
        ("{kind: ExecutionTask, metadata: {name: t}, spec: {http: {}}}", "spec.http.url"),
        ("{kind: ExecutionTask, metadata: {name: t}, spec: {command: {line: a | b}}}", "default/t: column 3"),
        (
            TAKES_C + "{kind: ConfigMap, metadata: c}\n---\n{kind: ConfigMap, metadata: {name: c}, data: x}",
            "data: must",
        ),
        (TAKES_C + "{kind: ConfigMap, metadata: {name: c}, data: {PORT: 80}}", "data.PORT: must be a text"),
        (TAKES_C + "{kind: ConfigMap, metadata: {name: c}, binaryData: 3}", "binaryData: must"),
    ],
)
def test_a_file_that_holds_no_task_to_judge(team: str, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        invoke("-f", team, "--task", str(tmp_path / "t.yaml"))


def failing(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Returns exit code and standard error of `remit policy test` when the error reaches the outermost handler."""
    result = commandline.invoke("policy", "test", *map(str, arguments))
    assert result.exception is not None
    code = report(result.exception) if not isinstance(result.exception, SystemExit) else result.exit_code
    return code, result.stderr + capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[" * 200_000, "exceeded max depth of 250"),
        ("a: " + "1" * 5000, "a value cannot be read"),
        ("a: 2026-13-45", "there is no CommandPolicy"),
        ("", "there is no CommandPolicy"),
        ('kind: CommandPolicy\nmetadata: {name: "\\e]0;owned\\a"}\nspec: {"\\e[31m": 1}', r"is not a known field"),
    ],
)
def test_a_file_that_cannot_be_meant(
    tmp_path: Path, content: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(content)
    code, text = failing("-f", tmp_path / "p.yaml", "--", "ls", capsys=capsys)
    assert (code, told in text) == (1, True), text
    assert "mistake of Remit's own" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("option", ["-f", "--cases", "--task"])
def test_only_regular_files_are_read(
    team: str, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, text = failing("-f", team, option, tmp_path / "pipe", capsys=capsys)
    assert (code, "it is a pipe, not a regular file" in text) == (1, True), text


def test_a_name_cannot_drive_the_terminal(tmp_path: Path) -> None:
    broken = 'kind: CommandPolicy\nmetadata: {name: "\\e]0;owned\\a"}\nspec: {commands: {allow: [{pattern: "("}]}}'
    (tmp_path / "p.yaml").write_text(broken)
    code, text = invoke("-f", str(tmp_path / "p.yaml"), "--", "ls")
    assert code == 1
    assert "is not ready" in text
    assert "\x1b" not in text
