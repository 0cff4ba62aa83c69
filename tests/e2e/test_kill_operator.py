"""Kills `remit up` with SIGKILL while tasks run, and tests that each ends with one correct outcome and no unrecorded
run.

Every attempt reports its task and number to a socket of this test as the first thing it does: a witness that neither
the operator's status nor its files can make up.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from remit.execution.lifecycle import MAX_INTERRUPTIONS
from remit.telemetry.verifying import verify
from remitup import RemitUp, until
from support import repetitions

TASKS = 20
ROUNDS = repetitions(2, soak=20)


@contextmanager
def witness() -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Provides a port, and the reports to it: pairs of a task's name and an attempt's number."""
    reports: list[tuple[str, int]] = []

    class Report(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            name, number = self.rfile.readline().split()
            reports.append((name.decode(), int(number)))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Report) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], reports
        server.shutdown()
        thread.join()


def task(name: str, port: int, then: str, on_interruption: str) -> dict[str, Any]:
    report = f'echo "$REMIT_TASK_NAME $REMIT_ATTEMPT" > /dev/tcp/127.0.0.1/{port}'
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": name},
        "spec": {
            "command": {"argv": ["bash", "-c", f"{report}; {then}"]},
            "network": "host",
            "retry": {"onInterruption": on_interruption, "backoff": {"initialSeconds": 0}},
        },
    }


def submit(up: RemitUp, tasks: list[dict[str, Any]]) -> None:
    up.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": tasks}))


def statuses(up: RemitUp, prefix: str = "") -> dict[str, dict[str, Any]]:
    items = [item for item in up.read("executiontasks")["items"] if item["metadata"]["name"].startswith(prefix)]
    return {item["metadata"]["name"]: item.get("status", {}) for item in items}


def finished(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Finished" and c["status"] == "True" for c in status.get("conditions", []))


def everything_is_recorded(up: RemitUp, reports: list[tuple[str, int]]) -> None:
    """Asserts that the witness, status, the audit trail and the run store agree."""
    assert [report for report, times in Counter(reports).items() if times > 1] == [], "an attempt ran twice"
    recorded = {
        (name, attempt["number"]): attempt["id"]
        for name, status in statuses(up).items()
        for attempt in status["attempts"]
    }
    assert set(reports) <= set(recorded), "an attempt ran that status does not know"
    trail = up.state_dir / "audit" / "audit.jsonl"
    report = verify(trail)
    assert report.ok, report.problems
    records = [orjson.loads(line) for line in trail.read_bytes().splitlines()]
    allowed = {r["attempt"] for r in records if r["kind"] == "decision" and r["verdict"] == "Allowed"}
    ended = {r["attempt"] for r in records if r["kind"] == "execution"}
    assert set(recorded.values()) <= allowed, "an attempt ran without a decision on record"
    assert set(recorded.values()) == ended, "an attempt's end is not on record"
    kept = {path.name for path in (up.state_dir / "runs").glob("*/*/*")}
    assert kept <= set(recorded.values()), "the run store has an attempt that status does not know"


@pytest.mark.slow
def test_twenty_running_tasks_reach_one_honest_end(up: RemitUp) -> None:
    with witness() as (port, reports):
        wait = "test $REMIT_ATTEMPT -ge 2 || sleep 600"
        submit(up, [task(f"t{n:02}", port, wait, "Retry" if n % 2 else "Fail") for n in range(TASKS)])
        until(lambda: len(reports) == TASKS, "all tasks to run")
        up.kill()
        up.start()
        until(lambda: all(map(finished, statuses(up).values())), "all tasks to end", 60)
        ends = statuses(up, "t")
        assert len(ends) == TASKS
        for number in range(TASKS):
            status = ends[f"t{number:02}"]
            reasons = [attempt["reason"] for attempt in status["attempts"]]
            if number % 2:
                assert (status["phase"], reasons) == ("Succeeded", ["Interrupted", "Completed"])
            else:
                assert (status["phase"], reasons) == ("Failed", ["Interrupted"])
                assert status["error"]["category"] == "Interrupted"
        everything_is_recorded(up, reports)


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * ROUNDS)
def test_killed_again_and_again_while_tasks_come_and_go(up: RemitUp) -> None:
    with witness() as (port, reports):
        for number in range(ROUNDS):
            tasks = [task(f"r{number}-{n}", port, "sleep 0.2", "Retry" if n % 2 else "Fail") for n in range(TASKS)]
            # Counted before the tasks exist, because kubectl is slow.
            seen = len(reports) + min(5 * (number + 1), TASKS)
            submit(up, tasks)
            until(lambda seen=seen: len(reports) >= seen, "some tasks to run", 300)
            up.kill()
            up.start()
        until(lambda: all(map(finished, statuses(up).values())), "all tasks to end", 300)
        ends = statuses(up, "r")
        assert len(ends) == ROUNDS * TASKS
        for name, status in ends.items():
            retried = int(name.rsplit("-", 1)[1]) % 2
            last = status["attempts"][-1]["reason"]
            assert (status["phase"], last) in {("Succeeded", "Completed"), ("Failed", "Interrupted")}
            if retried and status["phase"] == "Failed":  # on a slow machine
                assert len(status["attempts"]) > MAX_INTERRUPTIONS, status
        everything_is_recorded(up, reports)
