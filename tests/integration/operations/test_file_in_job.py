"""Tests file operations by the program that a Job runs: its input, its effects, and its report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.backends.outcome import ExitReason, Outcome, Usage
from remit.operations.file.__main__ import execute
from remit.operations.file.handover import Handover, encode
from remit.operations.file.report import STOPPED_CODE, ReportedOutput
from remit.policy.compile import compile_policy
from remit.policy.grant import Grant
from remit.policy.request import Installation, request_for

from .conftest import Kept

PROGRAM = [sys.executable, "-I", "-B", "-m", "remit.operations.file"]
MKDIR = {"operation": "mkdir", "path": "/x"}
EVERYTHING = [
    "create",
    "read",
    "write",
    "append",
    "copy",
    "move",
    "delete",
    "list",
    "stat",
    "chmod",
    "checksum",
    "mkdir",
]


def handover(folder: Path, rules: dict[str, Any], operation: dict[str, Any], **rest: Any) -> bytes:
    spec = {
        "file": operation,
        "volumes": [{"name": "w", "workspace": {"name": "w"}}],
        "volumeMounts": [{"name": "w", "mountPath": str(folder), "access": "ReadWrite"}],
    }
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "ns", "labels": {"a": "b"}}, "spec": spec})
    here = Installation(backend="kubernetes", remit_image="remit:1")
    allowed = {"backends": ["kubernetes"], "volumes": {"workspaces": [{"names": ["w"], "maxSize": "1Gi"}]}, **rules}
    policy = compile_policy(CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": allowed}))
    return encode(task, Handover(Grant(request_for(task, None, installation=here), [policy], []), **rest))


def run(text: bytes, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(PROGRAM, input=text, capture_output=True, timeout=60, check=False, env=env)


def ended(file: Any, done: subprocess.CompletedProcess[bytes]) -> tuple[Outcome, bytes]:
    """Returns the outcome and the output as the operator reads them."""
    kept = Kept()
    output = ReportedOutput(file, kept)
    output.write("stdout", done.stdout)
    output.write("stderr", done.stderr)
    reason = ExitReason.EXIT_CODE if done.returncode else ExitReason.COMPLETED
    message = f"exited with code {done.returncode}" if done.returncode else "completed"
    outcome = output.conclude(Outcome(reason, message, done.returncode, usage=Usage()))
    assert kept.stderr == b""
    return outcome, kept.stdout


def do(folder: Path, rules: dict[str, Any], operation: str, path: Path, **rest: Any) -> tuple[Outcome, bytes]:
    given = {name: rest.pop(name) for name in ("values", "file_size") if name in rest}
    text = {"operation": operation, "path": str(path), **rest}
    file = ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {"file": text}}).spec.file
    assert file is not None
    said = bytearray()
    report = execute(handover(folder, rules, text, **given), said.extend, threading.Event())
    code = 1 if report.reason else 0
    return ended(file, subprocess.CompletedProcess(PROGRAM, code, bytes(said), report.encode()))


def allow(*paths: str, deny: tuple[str, ...] = ()) -> dict[str, Any]:
    rules = {"allow": [{"paths": list(paths), "operations": EVERYTHING}]}
    return {"files": {**rules, **({"deny": [{"paths": list(deny), "operations": EVERYTHING}]} if deny else {})}}


def test_it_does_what_the_operator_does(tmp_path: Path) -> None:
    rules, path = allow(f"{tmp_path}/**"), tmp_path / "a.txt"
    outcome, _ = do(tmp_path, rules, "write", path, content="one\n")
    assert (outcome.reason, outcome.message, outcome.exit_code) == ("Completed", f"wrote 4 bytes to {path}", None)
    secret = {"contentFrom.secretKeyRef": b"\xfftwo\n"}
    reference = {"secretKeyRef": {"name": "s", "key": "k"}}
    outcome, _ = do(tmp_path, rules, "append", path, contentFrom=reference, values=secret)
    assert outcome.message == f"appended 5 bytes to {path}"
    assert do(tmp_path, rules, "read", path)[1] == b"one\n\xfftwo\n"
    (tmp_path / "b.log").write_text("b")
    _, listed = do(tmp_path, rules, "list", tmp_path, glob="*.log")
    assert [orjson.loads(line)["path"] for line in listed.splitlines()] == [f"{tmp_path}/b.log"]
    outcome, _ = do(tmp_path, rules, "delete", tmp_path, glob="*.log")
    assert outcome.message.startswith("deleted 1 file below")
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_is_reported_as_the_operator_tells_it(tmp_path: Path) -> None:
    rules = allow(f"{tmp_path}/**")
    outcome, _ = do(tmp_path, rules, "read", tmp_path / "none")
    assert (outcome.reason, outcome.retryable, outcome.exit_code) == ("NotFound", True, None)
    assert outcome.message == f"spec.file.path: {tmp_path}/none is not there"
    outcome, _ = do(tmp_path, rules, "write", tmp_path / "large", content="12345", file_size=4)
    assert (outcome.reason, outcome.retryable) == ("FileSizeExceeded", False)
    assert list(tmp_path.iterdir()) == []


def test_no_link_leads_out_of_the_volume_under_any_policy(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    (outside / "key").write_text("s3cret")
    (inside / "link").symlink_to("../elsewhere")
    outcome, said = do(inside, allow("/**"), "read", inside / "link/key")
    assert (outcome.reason, said) == ("OutsideRoot", b"")
    outcome, _ = do(inside, allow("/**"), "write", inside / "link/new", content="x")
    assert outcome.reason == "OutsideRoot"
    assert [each.name for each in outside.iterdir()] == ["key"]


def test_policies_are_asked_about_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/key").write_text("s3cret")
    (tmp_path / "link").symlink_to("closed")
    rules = allow(f"{tmp_path}/**", deny=(f"{tmp_path}/closed/**",))
    outcome, said = do(tmp_path, rules, "read", tmp_path / "link/key")
    assert (outcome.reason, outcome.category, outcome.retryable, said) == ("Denied", "Denied", False, b"")
    assert f"is really {tmp_path}/closed/key" in outcome.message
    outcome, _ = do(tmp_path, rules, "delete", tmp_path, glob="**/*")
    assert outcome.reason == "Denied"
    assert (tmp_path / "closed/key").exists()


def test_another_version_is_reported_and_does_nothing(tmp_path: Path) -> None:
    text = orjson.loads(handover(tmp_path, allow(f"{tmp_path}/**"), {"operation": "mkdir", "path": f"{tmp_path}/new"}))
    done = run(orjson.dumps({**text, "version": "0.0.1"}))
    outcome, _ = ended(ExecutionTask.parse({"metadata": {"name": "t"}, "spec": text["task"]["spec"]}).spec.file, done)
    assert (outcome.reason, outcome.retryable) == ("BackendError", False)
    assert "the operator is 0.0.1; start the operator with --remit-image of its own version" in outcome.message
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_breaks_down_is_not_rerun_without_a_record() -> None:
    outcome, _ = ended(ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {"file": MKDIR}}).spec.file, run(b"{}"))
    assert (outcome.reason, outcome.retryable) == ("InternalError", False)
    assert outcome.message == "Remit's own program broke down in its Job: KeyError: 'version'"


def test_it_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.touch()
    os.truncate(path, 1 << 34)
    text = handover(tmp_path, allow(f"{tmp_path}/**"), {"operation": "read", "path": str(path)})
    with subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin and program.stdout and program.stderr
        program.stdin.write(text)
        program.stdin.close()
        assert program.stdout.read(1) == b"\0"
        program.send_signal(signal.SIGTERM)
        read = 1
        while chunk := program.stdout.read1():
            read += len(chunk)
        said = program.stderr.read()
    assert read < 1 << 34
    assert program.returncode == STOPPED_CODE
    file = ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {"file": {"operation": "read", "path": "/x"}}}).spec
    assert file.file is not None
    output = ReportedOutput(file.file, Kept())
    output.write("stderr", said)
    late = Outcome(ExitReason.TIMED_OUT, "timed out after 1 s; everything it started was killed", 143, usage=Usage())
    assert output.conclude(late).reason == ExitReason.TIMED_OUT


def test_nothing_of_an_environment_decides_what_it_runs(tmp_path: Path) -> None:
    (tmp_path / "remit").mkdir()
    (tmp_path / "remit/__init__.py").write_text("raise SystemExit('taken over')")
    text = handover(tmp_path, allow(f"{tmp_path}/**"), {"operation": "stat", "path": str(tmp_path)})
    done = subprocess.run(
        PROGRAM,
        input=text,
        capture_output=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert orjson.loads(done.stdout)["type"] == "directory"
