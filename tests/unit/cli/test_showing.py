"""Tests tables, escaped output, and the audit trail as text."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

import commandline
from remit.api.commandpolicy import CommandPolicy
from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.api.phases import DeploymentPhase, Phase
from remit.cli import tables
from remit.cli.terminal import harmless
from remit.describe.ages import age
from remit.execution.durations import human_duration
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent


def task(name: str, **status: Any) -> dict[str, Any]:
    created = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": name, "namespace": "data", "creationTimestamp": created},
        "spec": {"command": {"line": "ls"}},
        "status": status,
    }


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_tasks_are_shown_in_the_order_in_which_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    done = task(
        "b",
        phase="Succeeded",
        attemptCount=2,
        duration="3.1s",
        message="completed",
        operation="command",
        backend="process",
    )
    tables.show("tasks", [task("a"), done], wide=False, namespaces=True)
    header, first, second = lines(capsys)
    assert header[0] == "NAMESPACE"
    assert first == ["data", "a", "command", "Pending", "0", "5m"]
    assert second == ["data", "b", "command", "process", "Succeeded", "2", "3.1s", "5m", "completed"]


def test_a_message_is_text_and_drives_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show("tasks", [task("a", message="[red]\x1b[31m\nnext")], wide=True, namespaces=False)
    shown = capsys.readouterr().out
    assert r"[red]\x1b[31m\nnext" in shown
    assert "\x1b" not in shown


def modelled(kind: str, obj: dict[str, Any], now: datetime.datetime) -> list[str]:
    """Returns the row of an object, computed with the models of its kind."""
    match kind:
        case "tasks":
            task = ExecutionTask.parse(obj)
            status, created = task.status, task.metadata.creation_timestamp
            duration = status.duration or (human_duration(now - status.start_time) if status.start_time else "")
            policy = status.policy
            return [
                task.metadata.name,
                status.operation or task.spec.operation,
                status.backend or task.spec.backend or "",
                status.phase or Phase.PENDING,
                str(status.attempt_count),
                duration,
                age(created, now),
                policy.name if policy else "",
                policy.rule if policy else "",
                "" if status.exit_code is None else str(status.exit_code),
                status.message,
            ]
        case "policies":
            policy = CommandPolicy.parse(obj)
            counts, ready = policy.status, policy.status.ready
            return [
                policy.metadata.name,
                ready.status if ready else "Unknown",
                policy.spec.enforcement,
                str(counts.allowed),
                str(counts.denied),
                age(policy.metadata.creation_timestamp, now),
                ready.message if ready else "",
            ]
    deployment = Deployment.parse(obj)
    state = deployment.status
    return [
        deployment.metadata.name,
        state.phase or DeploymentPhase.PENDING,
        *(state.stage, state.active, state.preview, state.ready),
        age(deployment.metadata.creation_timestamp, now),
        deployment.spec.strategy.type,
        state.message,
    ]


METADATA = {"name": "a", "namespace": "data", "creationTimestamp": "2026-01-31T08:00:00Z"}
READY = {"type": "Ready", "status": "False", "reason": "PolicyInvalid", "message": "a pattern is wrong"}
LIVE = {"stage": "Bake", "active": "app-1.tgz", "preview": "app-2.tgz", "ready": "1/2", "message": "bakes"}
RELEASE = {"artifact": {"path": "/srv/app.tgz"}, "target": {"process": {"command": ["/bin/app"]}}, "ports": []}


@pytest.mark.parametrize(
    ("kind", "spec", "status"),
    [
        ("tasks", {"command": {"line": "ls"}}, None),
        ("tasks", {"http": {"url": "http://127.0.0.1/"}, "backend": "docker"}, {}),
        ("tasks", {"command": {"line": "ls"}}, {"phase": "Running", "startTime": "2026-01-31T08:00:01.000250Z"}),
        (
            "tasks",
            {"command": {"line": "ls"}, "backend": "docker"},
            {
                "phase": "Failed",
                "operation": "command",
                "backend": "process",
                "attemptCount": 3,
                "startTime": "2026-01-31T08:00:01.000250Z",
                "duration": "2.0s",
                "exitCode": 0,
                "policy": {"name": "p", "rule": "commands.allow[2]", "decision": "Allowed"},
                "message": "completed",
            },
        ),
        ("policies", None, None),
        ("policies", {"enforcement": "Audit"}, {"allowed": 7, "denied": 1, "conditions": [READY]}),
        ("policies", {}, {"conditions": [{"type": "Other", "status": "True"}]}),
        ("deployments", RELEASE, None),
        ("deployments", {**RELEASE, "strategy": {"type": "Canary"}}, {"phase": "Progressing", **LIVE}),
        ("deployments", {**RELEASE, "strategy": {}}, {"phase": "Healthy"}),
    ],
)
def test_a_row_says_what_the_models_say(kind: str, spec: object, status: object) -> None:
    """Rows are computed from plain objects, because building the models takes longer than the rest of `remit get`."""
    now = datetime.datetime(2026, 1, 31, 8, 5, tzinfo=datetime.UTC)
    obj = {"metadata": METADATA} | {
        name: part for name, part in (("spec", spec), ("status", status)) if part is not None
    }
    assert [cell.plain for cell in tables.row(kind, obj, now, wide=True)] == modelled(kind, obj, now)


HEADERS = ["NAME", "OPERATION", "BACKEND", "PHASE", "ATTEMPTS", "DURATION", "AGE", "MESSAGE"]
ROW = [Text(cell) for cell in ("nightly-dump", "command", "process", "Succeeded", "1", "0.1s", "5m", "completed " * 9)]


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (200, set()),
        (98, {"BACKEND"}),
        (59, {"BACKEND", "OPERATION", "ATTEMPTS", "DURATION", "AGE"}),
        (30, {"BACKEND", "OPERATION", "ATTEMPTS", "DURATION", "AGE", "MESSAGE"}),
        (1, {"BACKEND", "OPERATION", "ATTEMPTS", "DURATION", "AGE", "MESSAGE"}),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns_and_whole_names(width: int, left_out: set[str]) -> None:
    shown = [HEADERS[index] for index in tables.fitting(HEADERS, [ROW], width)]
    assert shown == [header for header in HEADERS if header not in left_out]


def test_a_table_without_rows_is_as_wide_as_its_headers() -> None:
    assert tables.fitting(HEADERS, [], 90) == list(range(8))


def test_policies(capsys: pytest.CaptureFixture[str]) -> None:
    policy = {
        "metadata": {"name": "p"},
        "spec": {"enforcement": "Audit"},
        "status": {"allowed": 3, "conditions": [{"type": "Ready", "status": "False", "message": "bad pattern"}]},
    }
    tables.show("policies", [policy], wide=True, namespaces=False)
    assert lines(capsys)[1] == ["p", "False", "Audit", "3", "0", "bad", "pattern"]


def test_documents() -> None:
    assert tables.dump({"ü": [1]}, "yaml") == "ü:\n- 1"
    assert tables.dump({"ü": 1}, "json") == '{\n  "ü": 1\n}'


@given(st.text())
def test_harmless_text_has_no_control_characters_but_newlines_and_tabs(text: str) -> None:
    shown = harmless(text)
    assert all(character in "\n\t" or (character >= " " and not "\x7f" <= character <= "\x9f") for character in shown)


def test_plain_text_is_left_alone() -> None:
    assert harmless("a\tb\r\nçà va\n") == "a\tb\nçà va\n"


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        log.append(
            AuditEvent(
                kind="decision",
                namespace="data",
                task="a",
                argv=["ls", "a b"],
                policy="p",
                rule="r[0]",
                verdict="Allowed",
            )
        )
        log.append(AuditEvent(kind="execution", namespace="data", task="a", verdict="Completed", message="completed"))
        log.append(AuditEvent(kind="decision", namespace="other", task="b", verdict="Denied", message="no\nway"))
    return path


def audit(*arguments: str) -> tuple[int, str]:
    result = commandline.invoke("audit", *arguments)
    return result.exit_code, result.stdout


def test_a_whole_trail(trail: Path) -> None:
    code, text = audit("verify", str(trail))
    assert code == 0
    assert "3 records, whole\nhead 3:" in text
    head = text.rsplit(maxsplit=1)[1]
    assert audit("verify", str(trail), "--head", head)[0] == 0
    kept = trail.read_bytes().splitlines(keepends=True)
    trail.write_bytes(b"".join(kept[:-1]))
    assert audit("verify", str(trail))[0] == 0
    code, text = audit("verify", str(trail), "--head", head)
    assert code == 1
    assert "cut" in text


def test_an_edited_trail(trail: Path) -> None:
    trail.write_bytes(trail.read_bytes().replace(b"Denied", b"Agreed"))
    code, text = audit("verify", str(trail))
    assert code == 1
    assert "3: edited:" in text.replace(str(trail), "").replace(":3:", "3:")
    assert "NOT whole" in text


@pytest.mark.parametrize("verdict", ["Denied", "RequestRefused", "SandboxUnavailable"])
def test_a_long_verdict_leaves_the_columns_where_they_are(tmp_path: Path, verdict: str) -> None:
    with AuditLog(tmp_path / "audit.jsonl") as log:
        log.append(AuditEvent(kind="release", namespace="data", task="shop", verdict=verdict, message="so it is"))
    header, row = audit("show", str(tmp_path))[1].splitlines()
    assert row[header.index("TASK") :].startswith("data/shop")
    assert row[header.index("ABOUT") :] == "so it is"


def test_records_are_shown_one_a_line(trail: Path) -> None:
    header, *rows = audit("show", str(trail))[1].splitlines()
    assert header.split() == ["SEQ", "TIME", "KIND", "VERDICT", "TASK", "ABOUT"]
    assert len(rows) == 3
    assert rows[0].split("  ")[-2:] == ["[p r[0]]", "ls 'a b'"]
    assert rows[2].split()[-2:] == ["other/b", r"no\nway"]
    assert audit("show", str(trail), "--task", "a", "--last", "1")[1].splitlines() == [header, rows[1]]
    assert audit("show", str(trail), "-n", "other")[1].splitlines() == [header, rows[2]]
