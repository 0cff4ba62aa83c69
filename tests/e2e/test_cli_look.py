"""Tests `remit logs`, `get` and `cancel` against a real `remit up`."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.execution.workspaces import WorkspaceStore
from remitup import REMIT, RemitUp, until
from trees import submit

HEADER = ["NAME", "OPERATION", "BACKEND", "PHASE", "ATTEMPTS", "DURATION", "AGE", "MESSAGE"]


def finish(up: RemitUp, name: str, script: str, **spec: object) -> None:
    submit(up, name, script, **spec)
    up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=60s")


def test_logs_are_followed_while_the_program_runs(up: RemitUp) -> None:
    submit(up, "talker", "trap 'echo second; exit' TERM; echo first; sleep 600 & wait")
    with up.spawn("logs", "-f", "talker") as following:
        assert following.stdout.readline() == "first\n"
        assert up.phase("talker") == "Running"
        up.kubectl("patch", "executiontask", "talker", "--type=merge", "-p", '{"spec": {"cancel": true}}')
        rest, stderr = following.process.communicate(timeout=60)
        assert (rest, following.process.returncode) == ("second\n", 0), stderr
    assert up.phase("talker") == "Cancelled"


def test_following_goes_on_over_retries(up: RemitUp) -> None:
    retry = {"maxRetries": 1, "backoff": {"initialSeconds": 1}}
    submit(up, "twice", "echo attempt $REMIT_ATTEMPT; test $REMIT_ATTEMPT = 2", retry=retry)
    until(lambda: up.task("twice").get("status", {}).get("attempts"), "the first attempt")
    done = up.remit_here("logs", "-f", "twice", "--attempt", "1")
    assert done.stdout == "attempt 1\nattempt 2\n"


def test_streams_and_attempts_are_kept_apart(up: RemitUp) -> None:
    script = "echo out $REMIT_ATTEMPT; echo err $REMIT_ATTEMPT >&2; test $REMIT_ATTEMPT = 2"
    finish(up, "apart", script, retry={"maxRetries": 1, "backoff": {"initialSeconds": 0}})
    both = up.remit_here("logs", "apart")
    assert (both.stdout, both.stderr) == ("out 2\n", "err 2\n")
    assert up.remit_here("logs", "apart", "--stdout").stderr == ""
    assert up.remit_here("logs", "apart", "--stderr", "--attempt", "1").stderr == "err 1\n"
    missing = up.remit_here("logs", "apart", "--attempt", "3")
    assert missing.returncode == 1
    assert "has no attempt 3 in its status; there are: 1, 2" in missing.stderr


def test_all_bytes_come_through_where_no_terminal_is(up: RemitUp) -> None:
    finish(up, "bytes", r"printf '\033]0;title\007\000\377'")
    done = subprocess.run([*REMIT, "logs", "bytes"], env=up.env, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"\x1b]0;title\x07\x00\xff"


def test_a_terminal_is_not_driven_by_output_unless_asked(up: RemitUp) -> None:
    finish(up, "escapes", r"printf 'a\tb\n\033]0;title\007'")
    assert up.on_a_terminal("logs", "escapes") == b"a\tb\r\n\\x1b]0;title\\x07"
    assert up.on_a_terminal("logs", "escapes", "--raw") == b"a\tb\r\n\x1b]0;title\x07"


def test_away_from_the_operators_host_the_tails_are_shown(up: RemitUp, tmp_path: Path) -> None:
    finish(up, "remote", "seq 1 2000", output={"tailBytes": 100})
    kubeconfig = yaml.safe_load((up.state_dir / "kubeconfig").read_text())
    del kubeconfig["clusters"][0]["cluster"]["extensions"]
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(yaml.safe_dump(kubeconfig))
    done = up.remit_here("logs", "remote", "--kubeconfig", str(elsewhere))
    assert done.stdout.endswith("\n1999\n2000\n")
    assert len(done.stdout) == 100
    assert "only the end of 8893 bytes of stdout" in done.stderr
    assert up.remit_here("logs", "remote").stdout.startswith("1\n2\n")


def test_a_task_that_is_not_there(up: RemitUp) -> None:
    for command in ("logs", "cancel", "get"):
        done = up.remit_here(command, "nobody")
        assert done.returncode == 1
        assert done.stderr == "error: there is no ExecutionTask nobody in namespace default; 'remit get -A' lists all\n"


def test_cancel_ends_what_runs_and_leaves_what_ended(up: RemitUp) -> None:
    finish(up, "done-already", "true")
    submit(up, "endless", "sleep 600")
    until(lambda: up.phase("endless") == "Running", "the task to run")
    done = up.remit_here("cancel", "--wait", "endless", "done-already")
    assert done.returncode == 0
    assert "default/endless is being cancelled" in done.stdout
    assert "default/done-already had already ended (Succeeded)" in done.stdout
    assert up.phase("endless") == "Cancelled"


def test_get_shows_tables_and_documents(up: RemitUp) -> None:
    finish(up, "shown", "exit 3")
    table = up.remit_here("get").stdout
    assert table.splitlines()[0].split() == HEADER
    row = next(line for line in table.splitlines() if line.startswith("shown "))
    assert row.split()[1:5] == ["command", "process", "Failed", "1"]
    assert "exited with code 3" in row
    assert "NAMESPACE" in up.remit_here("get", "-A").stdout
    assert "commands.allow[0]" in up.remit_here("get", "tasks", "shown", "-o", "wide").stdout
    assert up.remit_here("get", "task", "shown", "-o", "name").stdout == "executiontask.remit.dev/shown\n"
    assert json.loads(up.remit_here("get", "shown", "-o", "json").stdout)["status"]["exitCode"] == 3
    assert (
        yaml.safe_load(up.remit_here("get", "policies", "-o", "yaml").stdout)["items"][0]["metadata"]["name"] == "tests"
    )
    until(lambda: "True" in up.remit_here("get", "policy", "tests").stdout, "the policy to be ready")
    assert up.remit_here("get", "-n", "elsewhere").stderr == "no tasks in namespace elsewhere\n"


def test_names_of_tasks_are_completed(up: RemitUp) -> None:
    finish(up, "complete-me", "true")
    env = {**up.env, "_REMIT_COMPLETE": "complete_bash", "COMP_WORDS": "remit logs comp", "COMP_CWORD": "2"}
    script = "import sys; sys.argv[0] = 'remit'; from remit.cli import main; main()"
    done = subprocess.run([REMIT[0], "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert "complete-me" in done.stdout.split(), done


def test_the_audit_trail_is_whole_and_readable(up: RemitUp) -> None:
    finish(up, "audited", "true")
    verified = up.remit_here("audit", "verify", "--state-dir", str(up.state_dir))
    assert verified.returncode == 0
    assert "whole\nhead " in verified.stdout
    shown = up.remit_here("audit", "show", "--state-dir", str(up.state_dir), "--task", "audited").stdout.splitlines()
    assert shown[0].split() == ["SEQ", "TIME", "KIND", "VERDICT", "TASK", "ABOUT"]
    assert [line.split()[2:4] for line in shown[1:]] == [["decision", "Allowed"], ["execution", "Completed"]]
    assert "sh -c true" in shown[1]


def test_failures_are_counted_also_of_tasks_that_are_gone(up: RemitUp) -> None:
    up.kubectl("create", "namespace", "failing")
    policy = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "CommandPolicy",
        "metadata": {"name": "shells", "namespace": "failing"},
        "spec": {"selector": {"matchLabels": {"app": "shell"}}, "commands": {"allow": [{"executable": "sh"}]}},
    }
    up.kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    up.kubectl("wait", "-n", "failing", "--for=condition=Ready", "commandpolicy/shells", "--timeout=60s")
    for name, labels, script in (
        ("kept", {"app": "shell"}, "exit 3"),
        ("gone", {}, "exit 0"),
        ("well", {"app": "shell"}, "exit 0"),
    ):
        spec = {"command": {"argv": ["sh", "-c", script]}}
        metadata = {"name": name, "namespace": "failing", "labels": labels}
        task = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": metadata, "spec": spec}
        up.kubectl("apply", "-f", "-", stdin=json.dumps(task))
        up.kubectl("wait", "-n", "failing", "--for=condition=Finished", f"executiontask/{name}", "--timeout=60s")
    up.kubectl("delete", "-n", "failing", "executiontask", "gone")
    told = json.loads(up.remit_here("errors", "-n", "failing", "-o", "json").stdout)
    counted = {(each["category"], each["code"], each["policy"]): each["newest"]["name"] for each in told["groups"]}
    assert counted == {("ExitCode", "ExitCode", "shells"): "kept", ("Denied", "NoPolicy", ""): "gone"}
    assert (told["count"], told["countBefore"], told["incomplete"]) == (2, 0, [])
    assert up.task("kept", "failing")["status"]["error"]["reason"] == "ExitCode"
    shown = up.remit_here("errors", "-n", "failing", "--since", "1h").stdout
    assert shown.startswith("2 failed or denied in the last 1h, 0 in the 1h before\n")
    assert "failing/gone" in shown


def test_get_shows_several_kinds_and_chooses(up: RemitUp) -> None:
    finish(up, "chosen", "exit 4")
    finish(up, "passed-over", "exit 0")
    both = up.remit_here("get", "tasks,policies")
    assert [line.split()[0] for line in both.stdout.splitlines() if "NAME" in line] == ["NAME", "NAME"]
    failed = up.remit_here("get", "--phase", "failed", "--since", "1h", "-o", "name").stdout.split()
    assert "executiontask.remit.dev/chosen" in failed
    assert "executiontask.remit.dev/passed-over" not in failed
    newest = up.remit_here("get", "--sort-by", "created", "-o", "json").stdout
    created = [each["metadata"]["creationTimestamp"] for each in json.loads(newest)["items"]]
    assert created == sorted(created, reverse=True)
    kinds = {each["kind"] for each in json.loads(up.remit_here("get", "all", "-o", "json").stdout)["items"]}
    assert kinds == {"ExecutionTask", "CommandPolicy"}
    assert up.remit_here("get", "--phase", "TimedOut").stderr == "no tasks like that in namespace default\n"


def test_a_watch_gives_programs_a_line_for_each_change(up: RemitUp) -> None:
    with up.spawn("get", "-w", "-o", "json", "-l", "app=watched") as watching:
        metadata = {"name": "watched", "labels": {"app": "watched"}}
        task = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": metadata}
        up.kubectl(
            "create", "-f", "-", stdin=json.dumps({**task, "spec": {"command": {"argv": ["sh", "-c", "exit 0"]}}})
        )
        phases = []
        while "Succeeded" not in phases:
            obj = json.loads(watching.stdout.readline())
            assert obj["metadata"]["name"] == "watched"
            phases.append((obj.get("status") or {}).get("phase"))
        watching.process.send_signal(signal.SIGINT)
        assert watching.process.wait(timeout=60) == 0, watching.stderr.read()


@pytest.fixture
def quiet(up: RemitUp) -> Iterator[str]:
    """Provides an empty namespace, in which no policy allows anything."""
    up.kubectl("create", "namespace", "quiet")
    yield "quiet"
    up.kubectl("delete", "namespace", "quiet", "--timeout=60s")


def manifest(kind: str, name: str, spec: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "quiet"},
            "spec": spec,
        }
    )


NOTHING = {"command": {"argv": ["true"]}}
RELEASE = {"artifact": {"image": "shop:1"}, "target": {"docker": {}}, "strategy": {"blueGreen": {}}}


def test_several_kinds_are_watched_on_a_terminal(up: RemitUp, quiet: str) -> None:
    lines = 12
    with up.spawn_on_a_terminal("get", "tasks,deployments", "-w", "-n", quiet, lines=lines) as terminal:

        def shown(*rows: str) -> Callable[[], bool]:
            """Returns a function that tells whether the newest screen has these rows, compared by their first words,
            including headers."""

            def look() -> bool:
                assert terminal.process.poll() is None, terminal.frames()[-1]
                found = [line.split()[0] for line in terminal.frames()[-1] if line.strip(" ─")]
                return found == [*rows]

            return look

        for name in ("c", "b", "a"):  # sorted by name if they are created within one second
            up.kubectl("create", "-f", "-", stdin=manifest("ExecutionTask", name, NOTHING))
        until(shown("NAME", "a", "b", "c"), "the tasks, the newest first")
        up.kubectl("create", "-f", "-", stdin=manifest("Deployment", "shop", RELEASE))
        until(shown("NAME", "a", "NAME", "shop", "…"), "as much of both as there is room for")
        assert "… and 2 tasks that changed before these; remit get shows all" in terminal.frames()[-1]
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(timeout=60) == 0, terminal.frames()[-1]
        assert all(len(frame) <= lines for frame in terminal.frames())


def test_a_watch_of_several_kinds_gives_programs_a_line_for_each_change(up: RemitUp, quiet: str) -> None:
    up.kubectl("create", "-f", "-", stdin=manifest("ExecutionTask", "before", NOTHING))
    with up.spawn("get", "tasks,deployments", "-w", "-o", "json", "-n", quiet) as watching:
        assert json.loads(watching.stdout.readline())["metadata"]["name"] == "before"
        up.kubectl("create", "-f", "-", stdin=manifest("Deployment", "shop", RELEASE))
        up.kubectl("create", "-f", "-", stdin=manifest("ExecutionTask", "after", NOTHING))
        ended = set[tuple[str, str]]()
        while not ended >= {("ExecutionTask", "after"), ("Deployment", "shop")}:
            obj = json.loads(watching.stdout.readline())
            if obj.get("status"):
                ended.add((obj["kind"], obj["metadata"]["name"]))
        watching.process.send_signal(signal.SIGINT)
        assert watching.process.wait(timeout=60) == 0, watching.stderr.read()


def test_a_task_is_explained_with_what_policies_lack(up: RemitUp) -> None:
    def create(name: str, argv: list[str]) -> None:
        task = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": {"name": name}}
        secret = {"name": "WHO", "valueFrom": {"secretKeyRef": {"name": "explained", "key": "token"}}}
        up.kubectl(
            "create", "-f", "-", stdin=json.dumps({**task, "spec": {"command": {"argv": argv}, "env": [secret]}})
        )
        up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=60s")

    up.kubectl("create", "secret", "generic", "explained", "--from-literal=token=explained-token-4711")
    create("refused", ["ls", "explained-token-4711"])
    create("broken", ["sh", "-c", "exit 7"])
    told = up.remit_here("explain", "refused")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("task default/refused: Denied\n  reason:     NotAllowed\n  category:   Denied\n")
    assert "what to do: " in told.stdout
    assert "\ntoday's policies say:\nDenied\n" in told.stdout
    assert "explained-token-4711" not in told.stdout
    document = json.loads(up.remit_here("explain", "refused", "-o", "json").stdout)
    assert (document["decision"]["allowed"], document["decision"]["reason"]) == (False, "NotAllowed")
    assert "explained-token-4711" not in json.dumps(document)
    create("plain", ["ls", "-l"])
    told = up.remit_here("explain", "plain")
    assert "to allow it, policies would have to say:" in told.stdout
    assert "executable: ls" in told.stdout
    assert json.loads(up.remit_here("explain", "plain", "-o", "json").stdout)["suggestion"]["kind"] == "CommandPolicy"
    allowed = up.remit_here("explain", "broken").stdout
    assert allowed.startswith("task default/broken: Failed\n  reason:     ExitCode\n")
    assert "today's policies say:\nAllowed\n" in allowed
    assert "to allow it" not in allowed
    missing = up.remit_here("explain", "brokn")
    assert (missing.returncode, "did you mean broken?" in missing.stderr) == (1, True)


def test_an_unusual_task_is_found_and_explained(up: RemitUp) -> None:
    message = "took 41s; the 20 runs before took 3.1s (median), at most 4.0s"
    for name, unusual in (("odd", "True"), ("even", "False")):
        task = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": {"name": name}}
        up.kubectl("create", "-f", "-", stdin=json.dumps({**task, "spec": {"command": {"argv": ["ls", name]}}}))
        up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=60s")
        condition = {"type": "Unusual", "status": unusual, "reason": "UnusualDuration", "message": message}
        patch = [{"op": "add", "path": "/status/conditions/-", "value": condition}]
        up.kubectl("patch", "executiontask", name, "--subresource=status", "--type=json", "-p", json.dumps(patch))
    assert up.remit_here("get", "--unusual", "-o", "name").stdout.split() == ["executiontask.remit.dev/odd"]
    assert f"\n  unusual:    {message}\n" in up.remit_here("explain", "odd").stdout
    assert "unusual" not in up.remit_here("explain", "even").stdout
    assert json.loads(up.remit_here("explain", "odd", "-o", "json").stdout)["status"]["unusual"] == message
    for words in (["policies", "--unusual"], ["tasks", "odd", "--unusual"]):
        assert up.remit_here("get", *words).returncode == 2


def test_workspaces_are_listed_for_people_and_for_programs(up: RemitUp) -> None:
    WorkspaceStore(up.state_dir / "workspaces").use("default", "shared", 1 << 20, 60)
    (listed,) = json.loads(up.remit_here("workspace", "list", "-o", "json").stdout)
    assert (listed["namespace"], listed["name"], listed["sizeBytes"]) == ("default", "shared", 1 << 20)
    assert Path(listed["folder"]).is_dir()
    shown = json.loads(up.remit_here("workspace", "show", "shared", "-o", "json").stdout)
    assert shown == {**listed, "usedBy": []}
    table = up.remit_here("workspace", "list").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "shared"]
