"""Tests the outcome of an attempt in the run store: the previous version's file is read and written."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from remit.api.executiontaskstatus import AttemptStatus, OutputStatus
from remit.backends.egress.usage import DestinationUse, NetworkUse
from remit.backends.exceeded import Exceeded
from remit.backends.outcome import Outcome, Usage
from remit.execution.attemptstatus import closed, destinations, sandbox_status
from remit.execution.store import Run
from remit.sandbox import Layer

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
RECORD: dict[str, Any] = {
    "reason": "OOMKilled",
    "message": "used more; a refused connection: evil.test: not allowed",
    "exit_code": 137,
    "category": "",
    "retryable": False,
    "finished_at": "2026-01-02T03:04:05.678901Z",
    "exceeded": ["Memory"],
    "usage": {
        "cpu_seconds": 1.235,
        "max_memory_bytes": 2097152,
        "read_bytes": 3,
        "written_bytes": 4,
        "throttled_seconds": 6.5,
        "max_pids": 7,
    },
    "output": {
        "stdout_tail": "out",
        "stderr_tail": "",
        "stdout_bytes": 3,
        "stderr_bytes": 0,
        "truncated": False,
        "raw": False,
        "redactions": 0,
        "ref": "/runs/a",
    },
    "output_digest": "sha256:00",
    "sandbox": {
        "layers": ["namespaces", "cgroup"],
        "missing": ["landlock"],
        "limits": {"memory": "memory.max", "openFiles": "rlimit"},
    },
    "network": {
        "connections": 2,
        "denied": 1,
        "sent_bytes": 30,
        "received_bytes": 40,
        "last_denied": "evil.test: not allowed",
    },
    "destinations": [
        {"destination": "api.test:443", "connections": 1, "denied": 0, "sentBytes": 30, "receivedBytes": 40},
        {"destination": "evil.test:80", "connections": 1, "denied": 1, "sentBytes": 0, "receivedBytes": 0},
    ],
}
"""A record as Remit 0.1 wrote it."""
OUTCOME = Outcome(
    reason="OOMKilled",
    message="used more; a refused connection: evil.test: not allowed",
    exit_code=137,
    retryable=False,
    finished_at=NOW,
    exceeded=(Exceeded.MEMORY,),
    usage=Usage(1.235, 2 << 20, 3, 4, throttled_seconds=6.5, max_tasks=7),
    layers=(Layer.NAMESPACES, Layer.CGROUP),
    missing=(Layer.LANDLOCK,),
    enforced_by={"memory_bytes": "memory.max", "open_files": "rlimit"},
    network=NetworkUse(
        2,
        1,
        30,
        40,
        "evil.test: not allowed",
        (DestinationUse("api.test:443", 1, 0, 30, 40), DestinationUse("evil.test:80", 1, 1, 0, 0)),
    ),
    output=OutputStatus(stdout_tail="out", stdout_bytes=3, ref="/runs/a"),
    output_digest="sha256:00",
)


def test_a_record_of_the_version_before_is_read(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_bytes(orjson.dumps(RECORD))
    assert Run(tmp_path).outcome == OUTCOME


def test_words_of_a_later_version_are_kept_as_they_are(tmp_path: Path) -> None:
    later = RECORD | {
        "reason": "Evicted",
        "exceeded": ["Memory", "Swap"],
        "usage": RECORD["usage"] | {"joules": 3},
        "sandbox": {"layers": ["namespaces", "gvisor"], "missing": ["lockdown"], "limits": {"swap": "memory.swap.max"}},
        "destinations": [{"destination": "api.test:443", "connections": 1, "rateLimited": 4}],
        "host": "node-1",
    }
    (tmp_path / "outcome.json").write_bytes(orjson.dumps(later))
    outcome = Run(tmp_path).outcome
    assert outcome is not None
    assert (outcome.reason, outcome.exceeded, outcome.layers) == (
        "Evicted",
        ("Memory", "Swap"),
        ("namespaces", "gvisor"),
    )
    assert (outcome.missing, outcome.enforced_by) == (("lockdown",), {"swap": "memory.swap.max"})
    assert outcome.network is not None
    assert outcome.network.destinations == (DestinationUse("api.test:443", 1, 0, 0, 0),)
    shown = sandbox_status(outcome)
    assert shown is not None
    assert (shown.layers, shown.limits) == (["namespaces", "gvisor"], {"swap": "memory.swap.max"})


def test_a_record_that_cannot_be_read_ends_its_attempt_and_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text('{"result": "of a much later version"}')
    outcome = Run(tmp_path).outcome
    assert outcome is not None
    assert (outcome.reason, outcome.retryable) == ("OutcomeUnreadable", False)
    assert "another version of Remit" in outcome.message


def test_a_record_is_written_as_the_version_before_did(tmp_path: Path) -> None:
    """Fields that the previous version ignores may differ."""
    Run(tmp_path).ended(replace(OUTCOME, retry_after_seconds=7))
    output = RECORD["output"] | {"redacted_streams": [], "binary_streams": []}
    ignored = {"retry_after_seconds": 7, "artifacts": [], "results": [], "output": output}
    assert orjson.loads((tmp_path / "outcome.json").read_bytes()) == {**RECORD, **ignored}
    assert Run(tmp_path).outcome == replace(OUTCOME, retry_after_seconds=7)


def test_an_operation_that_ran_in_no_sandbox(tmp_path: Path) -> None:
    run, outcome = Run(tmp_path), Outcome("StatusMismatch", "503", category="Operation", finished_at=NOW)
    run.ended(outcome)
    assert run.outcome == outcome
    written = orjson.loads((tmp_path / "outcome.json").read_bytes())
    assert [written[name] for name in ("usage", "sandbox", "network", "output", "destinations")] == [None] * 4 + [[]]


def test_an_attempt_shows_its_end() -> None:
    shown = closed(AttemptStatus(number=1, id="u-1", started_at=NOW), OUTCOME)
    assert (shown.reason, shown.exit_code, shown.exceeded, shown.finished_at) == ("OOMKilled", 137, ["Memory"], NOW)
    assert shown.usage is not None
    assert shown.usage.max_pids == 7
    assert shown.network is not None
    assert shown.network.last_denied == "evil.test: not allowed"
    assert [each["destination"] for each in destinations(OUTCOME)] == ["api.test:443", "evil.test:80"]
