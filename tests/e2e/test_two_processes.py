"""`remit up` is a supervisor with two processes: neither holds up the other, and what dies is started again."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from remitup import RemitUp, until

TREE = "setsid sleep 70001 & exec sleep 70002"
"""Two processes, one in a session of its own."""


def submit(up: RemitUp, name: str, script: str, **spec: Any) -> None:
    task = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": name},
        "spec": {"command": {"argv": ["sh", "-c", script]}, **spec},
    }
    up.kubectl("create", "-f", "-", stdin=json.dumps(task))


def below(up: RemitUp, *programs: str) -> list[psutil.Process]:
    """Processes of tasks, by their whole command lines."""
    found = []
    for process in psutil.Process(up.process.pid).children(recursive=True):
        try:
            if " ".join(process.cmdline()) in programs:
                found.append(process)
        except psutil.Error:
            continue
    return found


def dead(processes: Iterable[psutil.Process]) -> bool:
    return not any(process.is_running() for process in processes)


def worker(up: RemitUp, role: str, other_than: psutil.Process | None = None) -> psutil.Process:
    """The process of that role; a new one, if asked."""
    found: psutil.Process = until(lambda: (now := up.worker(role)) != other_than and now, f"the {role}", 60)
    return found


def health(up: RemitUp) -> str:
    port = re.search(r"metrics on port (\d+)", up.log.read_text())
    assert port
    return f"http://127.0.0.1:{port[1]}/healthz"


def ended(up: RemitUp, name: str) -> tuple[str, list[str]]:
    """Phase and reasons of the attempts, once it has ended."""
    up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=50s")
    status = up.task(name)["status"]
    return status["phase"], [attempt["reason"] for attempt in status["attempts"]]


@pytest.mark.slow
def test_tasks_end_in_time_while_the_control_plane_is_stopped(own_up: RemitUp) -> None:
    up = own_up
    submit(up, "timeout", TREE, timeoutSeconds=15)
    submit(up, "deadline", TREE.replace("7000", "7100"), deadlineSeconds=20)
    programs = ("sleep 70001", "sleep 70002", "sleep 71001", "sleep 71002")
    trees = until(lambda: len(found := below(up, *programs)) == 4 and found, "both trees")
    control_plane = worker(up, "control-plane")
    control_plane.suspend()
    try:
        assert not any(dead([process]) for process in trees), "the tasks ended before there was anything to see"
        with urllib.request.urlopen(health(up)) as answer:
            assert answer.status == 200
        until(lambda: dead(trees), "the end of both trees", 60)
        assert control_plane.status() == psutil.STATUS_STOPPED
    finally:
        control_plane.resume()
    assert ended(up, "timeout") == ("TimedOut", ["Timeout"])
    assert ended(up, "deadline")[0] == "TimedOut"
    assert up.task("deadline")["status"]["conditions"][0]["reason"] == "DeadlineExceeded"
    assert worker(up, "control-plane") == control_plane


@pytest.mark.slow
def test_tasks_do_not_notice_a_restart_of_the_control_plane(own_up: RemitUp) -> None:
    up = own_up
    config = (up.state_dir / "kubeconfig").read_text()
    submit(up, "long", TREE.replace("7000", "7200"))
    submit(up, "short", "sleep 8; echo done")
    until(lambda: below(up, "sleep 8"), "the short task to run")
    tree = until(lambda: len(found := below(up, "sleep 72001", "sleep 72002")) == 2 and found, "the long one's tree")
    first, operator = worker(up, "control-plane"), worker(up, "operator")
    first.kill()
    worker(up, "control-plane", other_than=first)
    submit(up, "later", "echo later")  # the new one has the old address, and the operator watches it
    assert ended(up, "later") == ("Succeeded", ["Completed"])
    assert ended(up, "short") == ("Succeeded", ["Completed"])
    assert up.remit("logs", "short").stdout == "done\n"
    assert up.phase("long") == "Running"
    assert all(process.is_running() for process in tree)
    assert worker(up, "operator") == operator
    assert (up.state_dir / "kubeconfig").read_text() == config
    assert "a part ended and is started again" in up.log.read_text()
    up.remit("cancel", "long", "--wait")
    assert ended(up, "long") == ("Cancelled", ["Cancelled"])


@pytest.mark.slow
def test_an_operator_that_was_killed_is_started_again_and_recovers(own_up: RemitUp) -> None:
    up = own_up
    submit(up, "fails", TREE.replace("7000", "7300"), retry={"onInterruption": "Fail"})
    tree = until(lambda: len(found := below(up, "sleep 73001", "sleep 73002")) == 2 and found, "the tree")
    first, control_plane = worker(up, "operator"), worker(up, "control-plane")
    first.kill()
    until(lambda: dead(tree), "the task to die with its operator")
    assert ended(up, "fails") == ("Failed", ["Interrupted"])
    assert worker(up, "operator") != first
    assert worker(up, "control-plane") == control_plane
    with urllib.request.urlopen(health(up)) as answer:  # where it was
        assert answer.status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "before", [{}, {"control-plane": "stop"}, {"operator": "stop"}, {"control-plane": "kill"}], ids=str
)
def test_nothing_outlives_a_supervisor_that_was_killed(own_up: RemitUp, before: dict[str, str]) -> None:
    up = own_up
    submit(up, "long", TREE.replace("7000", "7400"))
    until(lambda: len(below(up, "sleep 74001", "sleep 74002")) == 2, "the tree")
    everything = psutil.Process(up.process.pid).children(recursive=True)
    for role, what in before.items():
        worker(up, role).send_signal(signal.SIGSTOP if what == "stop" else signal.SIGKILL)
    up.kill()
    until(lambda: dead(everything), "everything to be dead")
    up.start()
    assert ended(up, "long") == ("Failed", ["Interrupted"])


@pytest.mark.slow
def test_a_new_operator_waits_for_a_control_plane_that_does_not_answer(own_up: RemitUp) -> None:
    up = own_up
    control_plane, first = worker(up, "control-plane"), worker(up, "operator")
    control_plane.suspend()
    try:
        first.kill()
        until(lambda: "waiting for the control plane" in up.log.read_text(), "the new operator to wait", 60)
    finally:
        control_plane.resume()
    submit(up, "next", "echo next")
    assert ended(up, "next") == ("Succeeded", ["Completed"])
    assert worker(up, "control-plane") == control_plane


def test_a_stop_while_it_starts_leaves_nothing(tmp_path: Path, kubectl: str) -> None:
    up = RemitUp(tmp_path / "state", kubectl)
    up.begin()
    everything = [worker(up, "operator"), worker(up, "control-plane")]
    assert up.stop() == 0
    assert dead(everything)
    assert "Ctrl-C stops it." not in up.log.read_text()


@pytest.mark.slow
def test_it_stops_in_order_although_the_control_plane_does_not_answer(own_up: RemitUp) -> None:
    up = own_up
    submit(up, "long", TREE.replace("7000", "7500"))
    until(lambda: len(below(up, "sleep 75001", "sleep 75002")) == 2, "the tree")
    everything = psutil.Process(up.process.pid).children(recursive=True)
    worker(up, "control-plane").suspend()
    up.process.terminate()
    assert up.process.wait(90) == 0
    assert dead(everything)
    assert "a part did not stop and is killed" in up.log.read_text()
    up.start()
    assert ended(up, "long") == ("Failed", ["Interrupted"])


@pytest.mark.slow
def test_what_does_not_come_up_again_is_given_up_with_the_reason(own_up: RemitUp) -> None:
    up = own_up
    everything = psutil.Process(up.process.pid).children(recursive=True)
    with sqlite3.connect(up.state_dir / "state.db") as database:
        database.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    worker(up, "control-plane").kill()
    assert up.process.wait(90) == 1
    last = up.log.read_text().splitlines()[-1]
    assert re.fullmatch(r"error: the control plane does not come up, after 5 tries: .* has format 99, .*", last)
    assert dead(everything)


def test_signals_for_all_its_processes_stop_it_in_order(own_up: RemitUp) -> None:
    """As a service manager sends them to a whole control group."""
    up = own_up
    submit(up, "long", TREE.replace("7000", "7600"))
    until(lambda: len(below(up, "sleep 76001", "sleep 76002")) == 2, "the tree")
    for process in (worker(up, "control-plane"), worker(up, "operator"), psutil.Process(up.process.pid)):
        process.terminate()
    assert up.process.wait(60) == 0
    up.start()
    status = up.task("long")["status"]
    assert (status["phase"], status["attempts"][0]["reason"]) == ("Failed", "Interrupted")
    events = json.loads(up.kubectl("get", "events", "-o", "json"))["items"]
    assert [event["reason"] for event in events if event["involvedObject"]["name"] == "long"], "it wrote nothing"


def test_each_line_of_the_log_is_whole(own_up: RemitUp) -> None:
    assert own_up.stop() == 0
    said = [line for line in own_up.log.read_text().splitlines() if line.startswith("{")]
    assert {json.loads(line)["logger"].partition(".")[0] for line in said} == {"remit"}
