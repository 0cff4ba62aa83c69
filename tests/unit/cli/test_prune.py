"""Tests `remit prune` on a state directory, with and without an operator that uses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import commandline
from remit.backends.outcome import Outcome
from remit.controllers.statedir import locked
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.stored import StoredArtifact
from remit.execution.store import RunStore
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.verifying import verify


def prune(state: Path, *arguments: str) -> tuple[str, str]:
    done = commandline.invoke("prune", "--state-dir", str(state), *arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def filled(state: Path) -> Path:
    run = RunStore(state / "runs").open("data", "u", "u-1")
    (run.path / "stdout.head").write_bytes(b"x" * 1024)
    run.ended(Outcome("Completed", "ok", 0))
    store = FolderStore(state / "artifacts")
    store.stage("data", "t", "t-1", [StoredArtifact("a", (), 0)])
    store.commit("t", "t-1")
    with AuditLog(state / "audit" / "audit.jsonl", max_bytes=300) as audit:
        for number in range(9):
            audit.append(AuditEvent(kind="decision", task=f"t{number}"))
    for path in (
        run.path / "outcome.json",
        state / "artifacts/tasks/data/t/t.json",
        state / "audit/audit-000001.jsonl",
    ):
        os.utime(path, (1, 1))
    return run.path / "stdout.head"


AUDIT = ("--audit-max-age", "30d")


def test_a_dry_run_shows_what_goes_and_removes_nothing(tmp_path: Path) -> None:
    said = filled(tmp_path)
    out, _ = prune(tmp_path, "--dry-run", *AUDIT)
    rows = [line.split() for line in out.splitlines()]
    assert [row[:2] for row in rows[1:-1]] == [
        ["output", "runs/data/u/u-1"],
        ["artifacts", "artifacts/tasks/data/t/t.json"],
        ["audit", "audit/audit-000001.jsonl"],
    ]
    assert {row[-1] for row in rows[1:-1]} == {"age"}
    assert out.splitlines()[-1].startswith("would remove 3 items, ")
    document = json.loads(prune(tmp_path, "--dry-run", "-o", "json", *AUDIT)[0])
    assert (document["count"], document["dryRun"]) == (3, True)
    assert document["bytes"] == sum(each["bytes"] for each in document["items"])
    assert said.exists()
    assert (tmp_path / "audit/audit-000001.jsonl").exists()


def test_where_no_operator_works_everything_goes(tmp_path: Path) -> None:
    said = filled(tmp_path)
    out, err = prune(tmp_path, *AUDIT)
    assert out.splitlines()[-1].startswith("removed 3 items, ")
    assert err == ""
    assert not said.exists()
    assert not (tmp_path / "audit/audit-000001.jsonl").exists()
    assert verify(tmp_path / "audit/audit.jsonl").ok
    assert prune(tmp_path, *AUDIT)[0] == "removed 0 items, 0\n"


def test_while_an_operator_works_only_output_goes(tmp_path: Path) -> None:
    said = filled(tmp_path)
    with locked(tmp_path):
        out, err = prune(tmp_path, *AUDIT)
    assert out.splitlines()[-1].startswith("removed 1 item, ")
    assert "artifacts and audit files are left to the operator that works here" in err
    assert not said.exists()
    assert (tmp_path / "audit/audit-000001.jsonl").exists()


def test_a_damaged_audit_trail_is_not_called_an_operator(tmp_path: Path) -> None:
    filled(tmp_path)
    with (tmp_path / "audit/audit.jsonl").open("a") as trail:
        trail.write("no record\n")
    out, err = prune(tmp_path, *AUDIT)
    assert out.splitlines()[-1].startswith("removed 2 items, ")
    assert "audit.jsonl" in err
    assert "the operator that works here" not in err
    assert (tmp_path / "audit/audit-000001.jsonl").exists()


def test_off_is_without_limit(tmp_path: Path) -> None:
    said = filled(tmp_path)
    flags = ("--output-max-age", "off", "--max-output", "off", "--artifacts-max-age", "off", "--max-audit", "off")
    assert prune(tmp_path, *flags)[0] == "removed 0 items, 0\n"
    assert said.exists()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    done = commandline.invoke("prune", "--state-dir", str(tmp_path / "none"), env={})
    assert done.exit_code != 0
    assert "there is no state directory" in str(done.exception)
