"""Tests `remit logs` of everything that runs, against a real `remit up`."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

from remit.operations.process.record import read_state
from remitup import RemitUp, until
from trees import submit

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def finish(up: RemitUp, name: str, script: str, **spec: object) -> None:
    submit(up, name, script, **spec)
    up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=60s")


def test_the_last_lines_with_their_times(up: RemitUp) -> None:
    finish(up, "lines", "seq 1 20; echo no >&2; printf end")
    assert up.remit_here("logs", "lines", "--tail", "3").stdout == "19\n20\nend\n"
    assert up.remit_here("logs", "lines", "--tail", "0").stdout == ""
    assert up.remit_here("logs", "task/lines", "--tail", "-1").stdout.startswith("1\n2\n")
    stamped = up.remit_here("logs", "lines", "--timestamps", "--tail", "1")
    assert re.fullmatch(rf"{STAMP} end\n", stamped.stdout)
    assert re.fullmatch(rf"{STAMP} no\n", stamped.stderr)
    assert up.remit_here("logs", "lines", "--since", "1h", "--stdout").stdout.endswith("20\nend\n")
    assert up.remit_here("logs", "lines", "--since", "2126-01-01T00:00:00Z").stdout == ""


def test_tasks_by_label_have_a_prefix_each(up: RemitUp) -> None:
    for name in ("left", "right"):
        task = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "ExecutionTask",
            "metadata": {"name": name, "labels": {"team": "prefixed"}},
            "spec": {"command": {"argv": ["sh", "-c", f"seq 1 12; echo {name} >&2"]}},
        }
        up.kubectl("create", "-f", "-", stdin=json.dumps(task))
        up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=60s")
    shown = up.remit_here("logs", "-l", "team=prefixed")
    expected = [f"[task/{name}] {number}" for name in ("left", "right") for number in range(3, 13)]
    assert shown.stdout.splitlines() == expected
    assert shown.stderr.splitlines() == ["[task/left] left", "[task/right] right"]
    followed = up.remit_here("logs", "-f", "-l", "team=prefixed", "--tail", "1", "--stdout")
    assert sorted(followed.stdout.splitlines()) == ["[task/left] 12", "[task/right] 12"]
    too_many = up.remit_here("logs", "-f", "-l", "team=prefixed", "--max-log-requests", "1")
    assert too_many.returncode == 1
    assert "you are attempting to follow 2 log streams, but maximum allowed concurrency is 1" in too_many.stderr
    assert "no tasks found in namespace default" in up.remit_here("logs", "-l", "team=nobody").stderr


def test_a_prefix_is_coloured_and_the_output_after_it_is_harmless(up: RemitUp) -> None:
    finish(up, "colourful", r"printf 'a\rb\033[2Jc\n'")
    first = up.on_a_terminal("logs", "colourful", "--prefix", TERM="xterm", NO_COLOR="")
    assert re.fullmatch(rb"\x1b\[\d+m\[task/colourful\] \x1b\[0ma\\rb\\x1b\[2Jc\r\n", first)
    assert up.on_a_terminal("logs", "colourful", "--prefix", TERM="xterm", NO_COLOR="") == first
    assert up.on_a_terminal("logs", "colourful", "--prefix", TERM="xterm").startswith(b"[task/colourful] a")


def test_a_schedule_shows_its_latest_run_or_all(up: RemitUp) -> None:
    submit(up, "nightly", "echo ran", schedule={"cron": "0 0 1 1 *"})
    for name in ("by-hand-1", "by-hand-2"):
        assert up.remit_here("run", "--from-schedule", "nightly", "--name", name).returncode == 0
    assert up.remit_here("logs", "schedule/nightly").stdout == "ran\n"
    every = up.remit_here("logs", "schedule/nightly", "--all").stdout.splitlines()
    assert every == ["[task/by-hand-1] ran", "[task/by-hand-2] ran"]
    finish(up, "single", "echo once")
    refused = up.remit_here("logs", "schedule/single")
    assert refused.returncode == 1
    assert "task single has no schedule; 'remit logs single' shows its output" in refused.stderr


PROCESS = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: talkers}
spec:
  selector: {matchLabels: {who: talkers}}
  processes: {operations: [start, stop]}
  commands: {allow: [{executable: sh, args: ['-c', '.*']}]}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: start-talker, labels: {who: talkers}}
spec:
  process:
    action: start
    name: talker
    argv: [sh, -c, 'echo begun; trap "echo ended; exit" TERM; sleep 1000 & wait']
"""
STOP = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: stop-talker, labels: {who: talkers}}
spec: {process: {action: stop, name: talker}}
"""


def test_a_supervised_process_is_followed_to_its_end(up: RemitUp) -> None:
    up.kubectl("apply", "-f", "-", stdin=PROCESS)
    up.kubectl("wait", "--for=condition=Finished", "executiontask/start-talker", "--timeout=60s")
    with up.spawn("logs", "-f", "process/talker") as following:
        assert following.stdout.readline() == "begun\n"
        up.kubectl("apply", "-f", "-", stdin=STOP)
        rest, stderr = following.process.communicate(timeout=60)
        assert (rest, following.process.returncode) == ("ended\n", 0), stderr
    stamped = up.remit_here("logs", "process/talker", "--timestamps", "--tail", "1").stdout
    assert re.fullmatch(rf"{STAMP} ended\n", stamped)
    previous = up.remit_here("logs", "-p", "process/talker")
    assert (previous.returncode, previous.stderr) == (
        1,
        "error: previous run of process/talker not found: it was not restarted\n",
    )
    missing = up.remit_here("logs", "process/nobody")
    assert missing.returncode == 1
    assert "there is no process nobody of namespace default on this host; there are: talker; its output is" in (
        missing.stderr
    )


RELEASE = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: criers}
spec:
  selector: {matchLabels: {app: crier}}
  files: {allow: [{paths: ['%(folder)s/**'], operations: [read]}]}
  commands: {allow: [{executable: sh, args: ['-c', '.*']}]}
  networks: [host]
---
apiVersion: remit.dev/v1alpha1
kind: Deployment
metadata: {name: crier, labels: {app: crier}}
spec:
  target: {process: {command: [sh, -c, 'echo run; exec sleep 1000']}}
  artifact: {path: '%(folder)s/v1'}
  replicas: 2
"""


def test_instances_of_a_release_by_side_and_name_and_before_their_restart(up: RemitUp, tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "file").write_text("1")
    up.kubectl("apply", "-f", "-", stdin=RELEASE % {"folder": tmp_path})
    try:
        folders = up.state_dir / "instances" / "default" / "crier"
        until(lambda: len(list(folders.glob("blue-*/stdout.log"))) == 2, "two instances")
        both = ["[deploy/crier/blue-0] run", "[deploy/crier/blue-1] run"]
        until(lambda: up.remit_here("logs", "deploy/crier").stdout.splitlines() == both, "both to have said so")
        assert up.remit_here("logs", "deploy/crier", "--instance", "blue-1").stdout == "run\n"
        none = up.remit_here("logs", "deploy/crier", "--side", "green")
        assert none.returncode == 1
        assert "deployment default/crier has no instance on side green; there are: blue-0, blue-1" in none.stderr

        previous = ("logs", "deploy/crier", "--instance", "blue-0", "--previous")
        assert up.remit_here(*previous).returncode == 1
        # Before the Deployment is healthy, a crash fails the release, which removes the instance.
        up.kubectl("wait", "deployments.remit.dev/crier", "--for=condition=Healthy", "--timeout=60s")
        os.kill(read_state(folders / "blue-0")["process"]["pid"], signal.SIGKILL)

        def restarted() -> bool:
            state = read_state(folders / "blue-0")
            return (state.get("restarts"), state.get("phase")) == (1, "Running")

        until(restarted, "the restart")
        assert up.remit_here(*previous).stdout == "run\n"
        # Shows the output of this run alone, like kubectl.
        until(lambda: up.remit_here("logs", "deploy/crier", "--instance", "blue-0").stdout == "run\n", "the next run")
        assert (folders / "blue-0" / "stdout.log").read_text() == "run\nrun\n"
    finally:
        up.kubectl("delete", "deployments.remit.dev", "crier", "--timeout=60s")
