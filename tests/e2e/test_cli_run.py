"""Tests `remit run` against a real `remit up`: output, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from remitup import RemitUp, until

TASK = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: from-a-file}
spec:
  command: {argv: [sh, -c, "echo from a file"]}
"""


def test_output_and_exit_code_are_the_commands_own(up: RemitUp) -> None:
    done = up.remit("run", "-q", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize(
    ("flags", "argv", "code", "said"),
    [
        ([], ["sh", "-c", "kill -9 $$"], 137, "ended by SIGKILL"),
        (["--timeout", "1"], ["sh", "-c", "sleep 60"], 124, "timed out after 1 s"),
        ([], ["rm", "-rf", "/"], 126, "no rule of policy"),
        (["-l", "unselected=yes"], ["sh", "-c", "true"], 126, "selects"),
        ([], ["no-such-program"], 127, "not a program"),
    ],
)
def test_other_ends_have_codes_of_their_own(
    up: RemitUp, flags: list[str], argv: list[str], code: int, said: str
) -> None:
    done = up.remit_here("run", *flags, "--", *argv)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == ""


def test_environment_and_standard_input_reach_the_program(up: RemitUp) -> None:
    done = up.remit(
        "run", "-q", "-i", "-e", "WHO=ada", "--", "sh", "-c", "read line; echo $line, $WHO", stdin="hello\n"
    )
    assert (done.returncode, done.stdout) == (0, "hello, ada\n")


def test_retries_are_told_and_their_output_shown(up: RemitUp) -> None:
    done = up.remit_here("run", "--retries", "1", "--", "sh", "-c", "echo try $REMIT_ATTEMPT; test $REMIT_ATTEMPT = 2")
    assert (done.returncode, done.stdout) == (0, "try 1\ntry 2\n")
    assert "exited with code 1; next attempt in" in done.stderr


def test_a_task_from_a_file_is_removed_when_asked(up: RemitUp, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(TASK)
    done = up.remit_here("run", "-q", "--rm", "-f", str(file))
    assert (done.returncode, done.stdout) == (0, "from a file\n")
    assert up.kubectl("get", "executiontasks", "from-a-file", "--ignore-not-found") == ""
    assert up.remit("run", "-q", "--rm", "-f", "-", "--name", "by-stdin", stdin=TASK).stdout == "from a file\n"


def test_without_waiting_the_name_is_printed(up: RemitUp) -> None:
    done = up.remit_here("run", "--no-wait", "--name", "not-waited-for", "--", "sh", "-c", "true")
    assert (done.returncode, done.stdout) == (0, "executiontask.remit.dev/not-waited-for\n")
    until(lambda: up.phase("not-waited-for") == "Succeeded", "the task")


def test_a_name_that_is_taken_is_one_clear_line(up: RemitUp) -> None:
    assert up.remit_here("run", "-q", "--name", "taken", "--", "sh", "-c", "true").returncode == 0
    done = up.remit_here("run", "--name", "taken", "--", "sh", "-c", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("error: ")
    assert "already exists" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_cancels_and_waits_for_the_end(up: RemitUp) -> None:
    with up.spawn("run", "--name", "interrupted", "--", "sh", "-c", "echo started; sleep 600") as running:
        assert running.stdout.readline() == "started\n"
        running.process.send_signal(signal.SIGINT)
        _, stderr = running.process.communicate(timeout=60)
        assert running.process.returncode == 130, stderr
    assert up.phase("interrupted") == "Cancelled"
    assert "Traceback" not in stderr


def test_a_second_ctrl_c_leaves_at_once(up: RemitUp) -> None:
    script = "trap '' TERM; echo started; sleep 600"
    with up.spawn("run", "--name", "stubborn", "--", "sh", "-c", script) as running:
        assert running.stdout.readline() == "started\n"
        running.process.send_signal(signal.SIGINT)
        until(lambda: "Ctrl-C again" in running.stderr.readline(), "the first to be taken")
        running.process.send_signal(signal.SIGINT)
        running.process.communicate(timeout=60)
        assert running.process.returncode == 130
    assert up.phase("stubborn") == "Running"  # its grace period has not ended
    up.kubectl("delete", "executiontask", "stubborn")


def test_a_scheduled_task_is_run_by_hand(up: RemitUp) -> None:
    task = TASK.replace("from-a-file", "yearly").replace("spec:", 'spec:\n  schedule: {cron: "0 0 1 1 *"}')
    up.kubectl("apply", "-f", "-", stdin=task)
    done = up.remit_here("run", "--from-schedule", "yearly", "--rm")
    assert (done.returncode, done.stdout) == (0, "from a file\n")
    assert "yearly-manual-" in done.stderr
    for name, said in (("none", "there is no ExecutionTask none"), ("yearly", "cannot be used with -f or")):
        flags = ["--memory", "1Gi"] if name == "yearly" else []
        done = up.remit_here("run", *flags, "--from-schedule", name)
        assert done.returncode != 0
        assert said in done.stderr


def test_what_a_task_left_is_listed_and_copied(up: RemitUp, tmp_path: Path) -> None:
    script = "mkdir site; echo hello > site/index.html; echo x > site/a; echo done"
    done = up.remit_here("run", "-q", "--name", "site", "--artifact", "site", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "done\n")
    listed = up.remit_here("artifacts", "site").stdout
    assert [line.split()[:3] for line in listed.splitlines()[1:]] == [["site", "a", "2"], ["site", "index.html", "6"]]
    copied = up.remit_here("cp", "task/site:index.html", str(tmp_path))
    assert (copied.returncode, (tmp_path / "index.html").read_text()) == (0, "hello\n")
    assert up.remit_here("cp", "site:site", str(tmp_path / "all")).returncode == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["a", "index.html"]
    missing = up.remit_here("cp", "task/site:none", str(tmp_path))
    assert (missing.returncode, "its artifacts are site" in missing.stderr) == (1, True)


def test_a_dry_run_shows_the_task_and_creates_none(up: RemitUp) -> None:
    shown = up.remit_here("run", "--dry-run", "--workspace", "cache:/cache", "--workdir", "/cache", "--", "ls")
    assert shown.returncode == 0, shown.stderr
    assert "generateName: run-ls-" in shown.stdout
    assert "mountPath: /cache" in shown.stdout
    assert "run-ls" not in up.remit_here("get").stdout
    refused = up.remit_here("run", "--dry-run", "--workdir", "/elsewhere", "--", "ls")
    assert "workingDir is /workspace" in refused.stderr


def test_rerun_makes_a_copy_that_is_nobody_elses(up: RemitUp) -> None:
    task = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {
            "name": "once",
            "labels": {"team": "a", "app.kubernetes.io/instance": "shop", "remit.dev/schedule": "other"},
            "annotations": {"argocd.argoproj.io/tracking-id": "shop"},
        },
        "spec": {"command": {"argv": ["sh", "-c", "echo again; exit 3"]}},
    }
    up.kubectl("apply", "-f", "-", stdin=json.dumps(task))
    up.kubectl("wait", "executiontask/once", "--for=condition=Finished", "--timeout=60s")
    done = up.remit_here("rerun", "once", "--name", "twice")
    assert (done.returncode, done.stdout) == (3, "again\n"), done.stderr
    made, original = up.task("twice"), up.task("once")
    assert made["spec"] == original["spec"]
    assert made["metadata"]["labels"] == {"team": "a"}
    assert set(made["metadata"].get("annotations", {})) <= {"remit.dev/requested-by"}
    assert "ownerReferences" not in made["metadata"]
    up.kubectl("patch", "executiontask/once", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    shown = up.remit_here("rerun", "once", "--dry-run").stdout
    assert "generateName: once-" in shown
    assert "cancel: true" not in shown
    missing = up.remit_here("rerun", "nobody")
    assert (missing.returncode, "nobody" in missing.stderr) == (125, True)


def test_rerun_of_a_schedule_says_how(up: RemitUp) -> None:
    yearly = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": "each-year"},
        "spec": {"command": {"argv": ["sh", "-c", "true"]}, "schedule": {"cron": "0 0 1 1 *"}},
    }
    up.kubectl("apply", "-f", "-", stdin=json.dumps(yearly))
    refused = up.remit_here("rerun", "each-year")
    assert refused.returncode == 125
    assert "run it once with remit run --from-schedule each-year" in refused.stderr
