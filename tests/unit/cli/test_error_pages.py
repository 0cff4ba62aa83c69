"""Tests `remit errors CODE`, and how a failed command refers to it."""

from __future__ import annotations

import pytest

import commandline
from remit.cli.errors import report
from remit.errors import ApiError, DeploymentError, InvalidInput, RemitError


@pytest.mark.parametrize("written", ["OOMKilled", "oomkilled"])
def test_the_page_of_a_code_says_what_to_do(written: str) -> None:
    result = commandline.invoke("errors", written)
    assert result.exit_code == 0
    assert result.stdout.startswith("OOMKilled: It used more memory than its limit.\n")
    assert "\nCategory Resources: " in result.stdout
    assert "\nWhat to do: Raise 'resources.memory'" in result.stdout


def test_a_code_that_is_none_is_wrong_usage_and_tells_the_nearest() -> None:
    result = commandline.invoke("errors", "OOMKiled", env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "'OOMKiled' is no code of Remit's; did you mean OOMKilled?" in result.stderr
    assert "docs/errors.md" in commandline.invoke("errors", "\x1b[2Jzzz", env={"COLUMNS": "200"}).stderr


@pytest.mark.parametrize(
    ("error", "pointer"),
    [
        (DeploymentError("port 80 is taken", reason="PortTaken"), " (see 'remit errors PortTaken')"),
        (DeploymentError("PortTaken: port 80", reason="PortTaken"), ""),
        (InvalidInput("is no number", field="spec.replicas"), ""),
        (ApiError("tasks is forbidden", status=403, reason="Forbidden"), ""),
        (DeploymentError("no", reason="NoSuchCode"), ""),
        (RemitError("there is no kubeconfig"), ""),
    ],
)
def test_a_failed_command_points_to_the_remedy_of_its_code(
    error: RemitError, pointer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == 1
    told = capsys.readouterr().err
    assert ("see 'remit errors" in told) is bool(pointer)
    assert pointer in told
