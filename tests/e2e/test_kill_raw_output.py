"""Kills `remit up` with SIGKILL while a task writes raw output: the output stays in the file and out of status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remitup import RemitUp, until

OLD, NEW = "correct horse battery staple", "another secret altogether"
POLICY = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: raw}
spec:
  selector: {matchLabels: {kept: raw}}
  commands: {allow: [{executable: sh, args: [-c, '(?s).*']}]}
  environment: {allow: [PASSWORD]}
  output: {allowRaw: true}
---
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: %s}
"""


def submit(up: RemitUp, name: str, *, raw: bool) -> None:
    password = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    spec = {
        "command": {"argv": ["sh", "-c", 'echo "row $PASSWORD"; sleep 600']},
        "env": [password],
        "output": {"raw": raw},
    }
    metadata = {"name": name, "labels": {"kept": "raw"}}
    task = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": metadata, "spec": spec}
    up.kubectl("create", "-f", "-", stdin=json.dumps(task))


def kept(up: RemitUp, name: str, pattern: str) -> list[bytes]:
    uid = up.task(name)["metadata"]["uid"]
    return [path.read_bytes() for path in (up.state_dir / "runs").glob(f"*/{uid}/*/{pattern}")]


def ended(up: RemitUp, name: str) -> Any:
    def status() -> Any:
        found = up.task(name).get("status", {})
        return found if found.get("phase") == "Failed" else None

    return until(status, f"{name} to end", 60)


def told(up: RemitUp, name: str) -> Any:
    """Waits for the Event about the task's output, and returns its message."""
    events = json.loads(up.kubectl("get", "events", "-o", "json", "--field-selector", f"involvedObject.name={name}"))[
        "items"
    ]
    return next((each["message"] for each in events if each["reason"] == "OutputRedacted"), "")


@pytest.mark.slow
def test_after_sigkill_the_file_has_the_secret_and_nothing_else_has(own_up: RemitUp) -> None:
    up = own_up
    up.kubectl("apply", "-f", "-", stdin=POLICY % OLD)
    submit(up, "raw", raw=True)
    submit(up, "redacted", raw=False)
    until(lambda: kept(up, "raw", "raw/stdout.head") == [f"row {OLD}\n".encode()], "the output to be kept")
    until(lambda: kept(up, "redacted", "stdout.head") == [b"row [redacted]\n"], "the other's to be kept")
    up.kubectl("apply", "-f", "-", stdin=POLICY % NEW)  # the previous secret is not known any more
    logs = up.log.read_text()
    operator = up.worker("operator")
    assert operator is not None
    operator.suspend()  # otherwise it may notice the supervisor's end before its own, and end the tasks in order
    up.kill()
    up.start()
    raw, redacted = ended(up, "raw"), ended(up, "redacted")
    assert (raw["output"]["raw"], raw["output"].get("stdoutTail", "")) == (True, "")
    assert "raw" in raw["error"]["message"]
    assert (redacted["output"]["stdoutTail"], redacted["output"]["redactions"]) == ("row [redacted]\n", 1)
    assert "once" in until(lambda: told(up, "redacted"), "the Event")
    assert Path(raw["output"]["ref"], "stdout.head").read_text() == f"row {OLD}\n"
    shown = up.remit("logs", "raw")
    assert shown.stdout == f"row {OLD}\n"
    assert "kept as written" in shown.stderr
    ran = up.remit("run", "-l", "kept=raw", "--raw-output", "--name", "by-hand", "--", "sh", "-c", "echo hello")
    assert (ran.returncode, ran.stdout) == (0, "hello\n")
    assert "'remit logs by-hand' shows it" in ran.stderr
    assert kept(up, "by-hand", "raw/stdout.head") == [b"hello\n"]
    everything = up.kubectl("get", "executiontasks,commandpolicies,events", "-o", "json")
    trail = (up.state_dir / "audit" / "audit.jsonl").read_text()
    for text in (everything, trail, logs, up.log.read_text(), shown.stderr):
        assert OLD not in text
