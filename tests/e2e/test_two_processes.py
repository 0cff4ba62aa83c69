"""Tests that `remit up` is a supervisor with two processes: neither blocks the other, and one that dies is
restarted."""

from __future__ import annotations

import re
import signal
import urllib.request

import psutil
import pytest

from remitup import RemitUp, until
from trees import TREE, below, dead, ended, submit, worker


def health(up: RemitUp) -> str:
    port = re.search(r"metrics on port (\d+)", up.log.read_text())
    assert port
    return f"http://127.0.0.1:{port[1]}/healthz"


@pytest.mark.slow
def test_tasks_end_in_time_while_the_control_plane_is_stopped(up: RemitUp) -> None:
    submit(up, "timeout", TREE, timeoutSeconds=10)
    submit(up, "deadline", TREE.replace("7000", "7100"), deadlineSeconds=12)
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
def test_tasks_do_not_notice_a_restart_of_the_control_plane(up: RemitUp) -> None:
    config = (up.state_dir / "kubeconfig").read_text()
    submit(up, "long", TREE.replace("7000", "7200"))
    submit(up, "short", "sleep 4; echo done")
    until(lambda: below(up, "sleep 4"), "the short task to run")
    tree = until(lambda: len(found := below(up, "sleep 72001", "sleep 72002")) == 2 and found, "the long one's tree")
    first, operator = worker(up, "control-plane"), worker(up, "operator")
    first.kill()
    worker(up, "control-plane", other_than=first)
    submit(up, "later", "echo later")  # the new process has the old address, and the operator watches it
    assert ended(up, "later") == ("Succeeded", ["Completed"])
    assert ended(up, "short") == ("Succeeded", ["Completed"])
    assert up.remit_here("logs", "short").stdout == "done\n"
    assert up.phase("long") == "Running"
    assert all(process.is_running() for process in tree)
    assert worker(up, "operator") == operator
    assert (up.state_dir / "kubeconfig").read_text() == config
    assert "a part ended and is started again" in up.log.read_text()
    up.remit_here("cancel", "long", "--wait")
    assert ended(up, "long") == ("Cancelled", ["Cancelled"])


@pytest.mark.slow
def test_an_operator_that_was_killed_is_started_again_and_recovers(up: RemitUp) -> None:
    submit(up, "fails", TREE.replace("7000", "7300"), retry={"onInterruption": "Fail"})
    tree = until(lambda: len(found := below(up, "sleep 73001", "sleep 73002")) == 2 and found, "the tree")
    first, control_plane = worker(up, "operator"), worker(up, "control-plane")
    first.kill()
    until(lambda: dead(tree), "the task to die with its operator")
    assert ended(up, "fails") == ("Failed", ["Interrupted"])
    assert worker(up, "operator") != first
    assert worker(up, "control-plane") == control_plane
    with urllib.request.urlopen(health(up)) as answer:  # at the same address
        assert answer.status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "before", [{}, {"control-plane": "stop", "operator": "stop"}, {"control-plane": "kill"}], ids=str
)
def test_nothing_outlives_a_supervisor_that_was_killed(up: RemitUp, before: dict[str, str]) -> None:
    name = "-".join(["before", *before])
    submit(up, name, TREE.replace("7000", "7400"))
    until(lambda: len(below(up, "sleep 74001", "sleep 74002")) == 2, "the tree")
    everything = psutil.Process(up.process.pid).children(recursive=True)
    for role, what in before.items():
        worker(up, role).send_signal(signal.SIGSTOP if what == "stop" else signal.SIGKILL)
    up.kill()
    until(lambda: dead(everything), "everything to be dead")
    up.start()
    assert ended(up, name) == ("Failed", ["Interrupted"])


@pytest.mark.slow
def test_a_new_operator_waits_for_a_control_plane_that_does_not_answer(up: RemitUp) -> None:
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
