"""Tests `remit up` and `remit operator` as services: how they start, refuse to start, and stop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from remitup import REMIT, RemitUp, environment, until
from trees import submit


@contextmanager
def service(log: Path, *arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*REMIT, *arguments],
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def test_a_stop_ends_what_runs_and_the_next_start_knows(up: RemitUp) -> None:
    submit(up, "long", "sleep 600")
    until(lambda: up.phase("long") == "Running", "the task to run")
    assert up.stop() == 0
    up.start()
    assert up.phase("long") == "Failed"
    assert up.task("long")["status"]["attempts"][0]["reason"] == "Interrupted"


def test_what_cannot_start_says_why(up: RemitUp, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        port = address.rpartition(":")[2]
        elsewhere = str(tmp_path / "elsewhere")
        for arguments, said in (
            (["--state-dir", str(up.state_dir), "--port", "0"], "in use|another"),
            (["--state-dir", elsewhere, "--port", port], f"cannot serve on {address}"),
            (["--state-dir", elsewhere, "--port", "0", "--metrics-address", address], f"metrics.*{address}"),
        ):
            done = up.remit("up", *arguments)
            assert done.returncode == 1
            last = done.stderr.splitlines()[-1]
            assert last.startswith("error: ")
            assert re.search(said, last), done.stderr
            assert "Traceback" not in done.stderr


def test_the_usual_port_another_kubeconfig_and_metrics(tmp_path: Path) -> None:
    log, target = tmp_path / "log", tmp_path / "config"
    state = ("--state-dir", str(tmp_path / "state"))
    with service(log, "up", *state, "--kubeconfig", str(target), "--metrics-address", "127.0.0.1:0") as process:
        until(lambda: "Ctrl-C stops it." in log.read_text(), "the start")
        said = log.read_text()
        found = re.search(r"serves https://127\.0\.0\.1:(\d+) \(metrics on port (\d+)\)", said)
        assert found
        assert 6443 <= int(found[1]) < 6463, "the usual port or the next that is free"
        assert yaml.safe_load(target.read_text())["current-context"] == "remit"
        assert f"export KUBECONFIG={target}" in said
        with urllib.request.urlopen(f"http://127.0.0.1:{found[2]}/metrics") as answer:
            assert b"remit_tasks_running" in answer.read()
        with urllib.request.urlopen(f"http://127.0.0.1:{found[2]}/readyz") as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """Provides the kubeconfig of a control plane without an operator and without Remit's kinds."""
    state = tmp_path / "server"
    with subprocess.Popen(
        [REMIT[0], "-m", "remit.controlplane", "--state", str(state)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline().startswith("ready ")
            yield state / "kubeconfig"
        finally:
            process.terminate()


def test_the_operator_alone_waits_for_the_kinds_and_then_works(
    server: Path, tmp_path: Path, kubectl: str, sandbox: None
) -> None:
    log = tmp_path / "log"
    env = environment(KUBECONFIG=str(server))
    arguments = ("operator", "--state-dir", str(tmp_path / "state"), "-n", "default", "--log-format", "json")

    def run(*command: str, stdin: str = "") -> str:
        done = subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with service(log, *arguments, KUBECONFIG=str(server)) as process:
        until(lambda: "waiting for Remit's CRDs" in log.read_text(), "the operator to wait")
        run(kubectl, "apply", "--server-side", "-f", "-", stdin=run(*REMIT, "crds"))
        until(lambda: "the operator is at work" in log.read_text(), "the operator to work")
        policy = "kind: CommandPolicy\nmetadata: {name: p}\nspec: {commands: {allow: [{executable: echo}]}}"
        run(kubectl, "apply", "-f", "-", stdin=f"apiVersion: remit.dev/v1alpha1\n{policy}")
        assert run(*REMIT, "run", "-q", "--state-dir", str(tmp_path / "state"), "--", "echo", "hi") == "hi\n"
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def test_an_operator_that_still_waits_is_well_and_stops_when_told(server: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        health = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = ("--state-dir", str(tmp_path / "state"), "--metrics-address", health)
    with service(log, "operator", *arguments, KUBECONFIG=str(server)) as process:
        until(lambda: "waiting for Remit's CRDs" in log.read_text(), "the operator to wait")
        assert urllib.request.urlopen(f"http://{health}/healthz").status == 200
        with pytest.raises(urllib.error.HTTPError, match="503"), urllib.request.urlopen(f"http://{health}/readyz"):
            pass
        process.terminate()
        assert process.wait(60) == 0


def test_a_table_is_drawn_anew_until_interrupted(up: RemitUp) -> None:
    submit(up, "watched", "sleep 600")
    with up.spawn("get", "-w") as watching:
        until(lambda: "watched" in watching.stdout.readline(), "the table")
        watching.process.send_signal(signal.SIGINT)
        _, stderr = watching.process.communicate(timeout=60)
        assert (watching.process.returncode, stderr) == (0, "")
    up.kubectl("delete", "executiontask", "watched")


def test_a_second_signal_stops_at_once(up: RemitUp) -> None:
    """This is the last test of the file, because `remit up` does not run afterwards."""
    submit(up, "stubborn", "trap '' TERM; echo on; sleep 600")
    until(lambda: up.remit_here("logs", "stubborn").stdout == "on\n", "the task to run")
    up.process.terminate()
    until(lambda: "once more" in up.log.read_text(), "the first signal to be taken")
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 128 + signal.SIGINT
