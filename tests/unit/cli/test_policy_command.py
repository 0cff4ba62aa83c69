from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from remit.cli.app import app
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
    result = CliRunner().invoke(app, ["policy", "test", *arguments])
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
    ],
)
def test_a_denied_command_exits_with_1_and_says_why(team: str, flags: list[str], argv: list[str], reason: str) -> None:
    code, text = invoke("-f", team, *flags, "--", *argv)
    assert code == 1
    assert text.startswith("Denied\n")
    assert f"reason:   {reason}" in text


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


def test_usage(team: str) -> None:
    assert invoke("-f", team)[0] == 2
    code, text = invoke("-f", team, "--backend", "mars", "--", "ls")
    assert code == 2
    assert "backend" in text
