"""Tests how the two processes of `remit up` end: in order if possible, and always completely."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from remitup import RemitUp, until
from support import repetitions
from trees import TREE, below, dead, ended, submit, worker

from .conftest import SHELL

HASTY = """
from remit.cli import main
from remit.cli.supervisor import restarts, supervisor
restarts.INITIAL_SECONDS, restarts.MAX_FAILED_STARTS = 0.05, 2
supervisor._STOP_SECONDS = 2.0
supervisor._SILENT_SECONDS = 10.0
main()
"""


@pytest.fixture(scope="module")
def hasty_up(tmp_path_factory: pytest.TempPathFactory, kubectl: str, sandbox: None) -> Iterator[RemitUp]:
    """Provides a supervisor that restarts parts after a moment, once, and does not wait long for parts that do not
    stop."""
    state = tmp_path_factory.mktemp("hasty") / "state"
    with RemitUp(state, kubectl, program=(sys.executable, "-c", HASTY)) as running:
        running.kubectl("apply", "-f", "-", stdin=SHELL)
        yield running


def test_a_stop_while_it_starts_leaves_nothing(tmp_path: Path, kubectl: str) -> None:
    up = RemitUp(tmp_path / "state", kubectl)
    up.begin()
    everything = [worker(up, "operator"), worker(up, "control-plane")]
    assert up.stop() == 0
    assert dead(everything)
    assert "Ctrl-C stops it." not in up.log.read_text()


@pytest.mark.slow
def test_it_stops_in_order_although_the_control_plane_does_not_answer(hasty_up: RemitUp) -> None:
    up = hasty_up
    submit(up, "long", TREE.replace("7000", "7500"))
    until(lambda: len(below(up, "sleep 75001", "sleep 75002")) == 2, "the tree")
    everything = psutil.Process(up.process.pid).children(recursive=True)
    worker(up, "control-plane").suspend()
    up.process.terminate()
    assert up.process.wait(90) == 0
    until(lambda: dead(everything), "the end of all processes")
    assert "a part did not stop and is killed" in up.log.read_text()
    up.start()
    assert ended(up, "long") == ("Failed", ["Interrupted"])


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["operator", "fork-server"][: repetitions(1, soak=2)])
def test_the_first_signal_ends_it_although_a_process_hangs(hasty_up: RemitUp, hangs: str) -> None:
    up = hasty_up
    number = 7800 if hangs == "operator" else 7900
    submit(up, hangs, TREE.replace("7000", str(number)))
    until(lambda: len(below(up, f"sleep {number}1", f"sleep {number}2")) == 2, "the tree")
    everything = psutil.Process(up.process.pid).children(recursive=True)
    operator = worker(up, "operator")
    forks = next(each for each in operator.children() if "forkserver" in " ".join(each.cmdline()))
    (operator if hangs == "operator" else forks).suspend()
    up.process.terminate()
    assert up.process.wait(90) == 0
    until(lambda: dead(everything), "the end of all processes")
    up.start()
    assert ended(up, hangs)[0] == "Failed"


def test_signals_for_all_its_processes_stop_it_in_order(hasty_up: RemitUp) -> None:
    """A service manager sends signals like this to a whole control group."""
    up = hasty_up
    submit(up, "signalled", TREE.replace("7000", "7600"))
    until(lambda: len(below(up, "sleep 76001", "sleep 76002")) == 2, "the tree")
    for process in (worker(up, "control-plane"), worker(up, "operator"), psutil.Process(up.process.pid)):
        process.terminate()
    assert up.process.wait(60) == 0
    structured = [line for line in up.log.read_text().splitlines() if line.startswith("{")]
    assert {json.loads(line)["logger"].partition(".")[0] for line in structured} == {"remit"}, "each line is whole"
    up.start()
    status = up.task("signalled")["status"]
    assert (status["phase"], status["attempts"][0]["reason"]) == ("Failed", "Interrupted")
    events = json.loads(up.kubectl("get", "events", "-o", "json"))["items"]
    assert [event["reason"] for event in events if event["involvedObject"]["name"] == "signalled"], "it wrote nothing"


@pytest.mark.slow
def test_what_does_not_come_up_again_is_given_up_with_the_reason(hasty_up: RemitUp) -> None:
    up = hasty_up
    everything = psutil.Process(up.process.pid).children(recursive=True)
    with sqlite3.connect(up.state_dir / "state.db") as database:
        database.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    worker(up, "control-plane").kill()
    assert up.process.wait(90) == 1
    last = up.log.read_text().splitlines()[-1]
    assert re.fullmatch(r"error: the control plane does not come up, after 2 tries: .* has format 99, .*", last)
    until(lambda: dead(everything), "the end of all processes")
