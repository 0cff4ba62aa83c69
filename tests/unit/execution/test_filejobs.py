"""Tests file operations as Jobs: which operations can be one, the pod's input, and how its end is interpreted."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.backends.base import AttemptRequest
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.manifests import Secrets, job
from remit.backends.outcome import ExitReason, Outcome, Usage
from remit.execution.admission import Admission, Admitted, PolicySet, Refused
from remit.execution.filejobs import ARGV
from remit.execution.resolved import Resolved
from remit.execution.runner import Attempt
from remit.operations.base import OperationRequest
from remit.operations.file.handover import decode
from remit.operations.file.report import Report, ReportedOutput
from remit.policy.compile import compile_policy
from remit.policy.request import Installation

IMAGE = "registry.example/remit:1"
HERE = Installation(backend="kubernetes", image="tools:1", remit_image=IMAGE)
WORKSPACE: dict[str, Any] = {
    "volumes": [{"name": "w", "workspace": {"name": "cache", "size": "1Gi"}}],
    "volumeMounts": [{"name": "w", "mountPath": "/data", "access": "ReadWrite"}],
}
WRITE = {"operation": "write", "path": "/data/a", "content": "x"}
ALLOWED: dict[str, Any] = {
    "files": {"allow": [{"paths": ["/data/**"], "operations": ["read", "write", "copy", "move", "delete", "list"]}]},
    "volumes": {"workspaces": [{"names": ["cache"], "maxSize": "1Gi"}]},
}
_ENDS = {"usage": Usage(), "exit_code": 1}


def task(file: dict[str, Any], **spec: Any) -> ExecutionTask:
    metadata = {"name": "t", "namespace": "ns", "uid": "u"}
    return ExecutionTask.parse({"metadata": metadata, "spec": {"file": file, **WORKSPACE, **spec}})


def decided(
    asked: ExecutionTask, policy: dict[str, Any] = ALLOWED, here: Installation = HERE, **admission: Any
) -> Admitted | Refused:
    compiled = compile_policy(CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": policy}))
    desk = Admission(backends=frozenset({"kubernetes"}), installation=here, **admission)
    return desk.decide(asked, PolicySet({"ns": [compiled]}, "remit-system"))


def attempt(asked: ExecutionTask, resolved: Resolved | None = None, policy: dict[str, Any] = ALLOWED) -> Attempt:
    admitted = decided(asked, policy)
    assert isinstance(admitted, Admitted), admitted
    return Admission(installation=HERE).attempt(asked, admitted, 1, resolved or Resolved(), None)


def refusal(asked: ExecutionTask, **how: Any) -> str:
    refused = decided(asked, **how)
    assert isinstance(refused, Refused)
    return refused.finish.message


def test_the_job_runs_remit_itself_and_has_nothing_that_a_task_could_change_it_by() -> None:
    asked = task(
        WRITE,
        env=[{"name": "PYTHONPATH", "value": "/data"}],
        privateFiles=[{"path": "/workspace/sitecustomize.py", "value": "raise SystemExit"}],
        volumes=[*WORKSPACE["volumes"], {"name": "c", "configMap": {"name": "c"}}],
        volumeMounts=[*WORKSPACE["volumeMounts"], {"name": "c", "mountPath": "/etc/texts"}],
    )
    resolved = Resolved(
        env={"PYTHONPATH": "/data"}, files={"/workspace/sitecustomize.py": b"no", "/etc/texts/greeting": b"hello"}
    )
    policy = {**ALLOWED, "environment": {"allow": ["PYTHONPATH"]}, "privateFiles": {"allow": ["/**"]}}
    made = attempt(asked, resolved, policy)
    request = made.request
    assert isinstance(request, AttemptRequest)
    assert (made.backend, made.file, request.image) == ("kubernetes", asked.spec.file, IMAGE)
    assert request.files == {"/etc/texts/greeting": b"hello"}
    manifest = job(request, Secrets.of(request), Launcher("amd64", b""))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["command"][-len(ARGV) :] == list(ARGV)
    assert {each["name"] for each in container["env"]} == {"HOME", "LANG", "TMPDIR"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert "x" not in str(manifest["spec"]["template"]["metadata"])


def test_the_program_is_told_the_operation_and_asks_the_same_policies() -> None:
    limits = {"limits": {"fileSize": {"max": "1Mi"}}}
    asked = task({**WRITE, "content": None, "contentFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})
    made = attempt(asked, Resolved(values={"contentFrom.secretKeyRef": b"\xff"}), {**ALLOWED, **limits})
    assert isinstance(made.request, AttemptRequest)
    told = decode(made.request.command.stdin)
    assert told.file == asked.spec.file
    assert (told.values, told.file_size) == ({"contentFrom.secretKeyRef": b"\xff"}, 1 << 20)
    assert told.mounts == ["/data"]
    for path, allowed in (("/data/b", True), ("/etc/passwd", False)):
        decision = told.grant.ask(told.file.model_copy(update={"path": path}))
        assert decision.allowed is allowed, decision.message
    assert made.request.confinement.limits.file_bytes is None


@pytest.mark.parametrize(
    ("file", "spec", "told"),
    [
        ({**WRITE, "path": "/srv/a"}, {}, "spec.file.path: /srv/a is in no volume"),
        ({**WRITE, "path": "/database"}, {}, "mounted: /data"),
        (
            {"operation": "copy", "path": "/data/a", "destination": "/tmp/a"},
            {},
            "spec.file.destination: /tmp/a is in no",
        ),
        ({"operation": "chown", "path": "/data/a", "owner": "1"}, {}, "chown needs rights that no Job has"),
        ({**WRITE, "content": None, "contentFrom": {"url": "https://a.example/"}}, {}, "a Job downloads nothing"),
        (
            WRITE,
            {"volumeMounts": [{"name": "w", "mountPath": "/data"}]},
            "write changes /data/a, and /data is mounted ReadOnly; set access: ReadWrite",
        ),
        (WRITE, {"volumes": [{"name": "w", "hostPath": {"path": "/srv/x"}}]}, "use a workspace, an artifact"),
        *(
            (
                {**WRITE, "path": f"{place}/a"},
                {"volumeMounts": [{"name": "w", "mountPath": place, "access": "ReadWrite"}]},
                "spec.volumeMounts: ",
            )
            for place in ("/opt", "/opt/remit/lib", "/var/run/remit")
        ),
        (
            WRITE,
            {
                "volumeMounts": [
                    {"name": "w", "mountPath": "/data", "access": "ReadWrite"},
                    {"name": "w", "mountPath": "/data/below", "access": "ReadWrite"},
                ]
            },
            "/data/below is in /data, which is itself mounted",
        ),
    ],
)
def test_what_cannot_be_there_is_refused_before_policy_is_asked(
    file: dict[str, Any], spec: dict[str, Any], told: str
) -> None:
    refused = decided(task({name: value for name, value in file.items() if value is not None}, **spec), policy={})
    assert isinstance(refused, Refused)
    assert (refused.finish.reason, refused.by_policy) == ("NotSupported", False)
    assert told in refused.finish.message


def test_policies_judge_the_path_the_volume_and_where_it_runs() -> None:
    assert isinstance(decided(task(WRITE)), Admitted)
    assert "allows write of /data/a" in refusal(task(WRITE), policy={"volumes": ALLOWED["volumes"]})
    assert "volumes.workspaces" in refusal(task(WRITE), policy={"files": ALLOWED["files"]})
    assert "not kubernetes (spec.backends)" in refusal(task(WRITE), policy={**ALLOWED, "backends": ["process"]})
    assert isinstance(decided(task(WRITE), policy={**ALLOWED, "images": {"allow": ["other:*"]}}), Admitted)
    resources = {"fileSize": "2Mi"}
    limits = {**ALLOWED, "limits": {"fileSize": {"max": "1Mi"}}}
    assert "fileSize 2Mi is above the 1Mi" in refusal(task(WRITE, resources=resources), policy=limits)


def test_it_is_a_job_only_where_the_operator_has_an_image_for_it() -> None:
    without = Installation(backend="kubernetes", image="tools:1")
    assert "start the operator with --remit-image" in refusal(task(WRITE), here=without)
    assert "(--remit-image)" in refusal(task(WRITE, backend="kubernetes"), here=without)
    assert "leave spec.backend out" in refusal(task(WRITE, backend="process"))
    beside = Installation(backend="process", remit_image=IMAGE)
    assert "this operator has no backend" not in refusal(task(WRITE), here=beside, performed=frozenset({"file"}))
    assert "set backend: kubernetes" in refusal(task(WRITE), here=beside, performed=frozenset({"file"}))
    assert isinstance(
        decided(task(WRITE, backend="kubernetes"), {**ALLOWED, "backends": ["kubernetes"]}, beside), Admitted
    )
    alone = task(WRITE, volumes=[], volumeMounts=[])
    admitted = decided(alone, here=without, performed=frozenset({"file"}))
    assert isinstance(admitted, Admitted)
    assert admitted.grant.request.backend == "operator"
    assert isinstance(Admission().attempt(alone, admitted, 1, Resolved(), None).request, OperationRequest)


def test_a_task_stays_where_it_was_placed_and_status_tells_the_image() -> None:
    desk = Admission(installation=HERE)
    placed = desk.placed(task(WRITE))
    assert (placed.status.backend, placed.status.image) == ("kubernetes", IMAGE)
    earlier = placed.model_copy(update={"status": placed.status.model_copy(update={"backend": "operator"})})
    assert desk.placed(earlier).status.backend == "operator"


class Kept:
    def __init__(self) -> None:
        self.said: list[tuple[str, bytes]] = []

    def write(self, stream: str, chunk: bytes) -> None:
        self.said.append((stream, chunk))


def concluded(operation: str, outcome: Outcome, report: Report | None = None, noise: bytes = b"") -> Outcome:
    file = task(
        {**WRITE, "operation": operation} if operation == "write" else {"operation": operation, "path": "/data/a"}
    )
    assert file.spec.file is not None
    kept = Kept()
    output = ReportedOutput(file.spec.file, kept)
    said = noise + (report.encode() if report else b"")
    for at in range(0, len(said), 7):
        output.write("stderr", said[at : at + 7])
    output.write("stdout", b"found")
    assert kept.said == [("stdout", b"found")]
    return output.conclude(outcome)


def test_a_report_is_how_it_ended() -> None:
    completed, failed = (
        Outcome(ExitReason.COMPLETED, "completed", 0, usage=Usage()),
        Outcome("ExitCode", "code 1", **_ENDS),
    )
    done = concluded("write", completed, Report("wrote 1 bytes"), b"a warning\n")
    assert (done.reason, done.message, done.exit_code) == ("Completed", "wrote 1 bytes", None)
    lost = "completed; 5 bytes of its output were rotated away on the node before they were read"
    told = concluded("list", Outcome(ExitReason.COMPLETED, lost, 0, usage=Usage()), Report("listed 9 entries"))
    assert told.message.startswith("listed 9 entries; 5 bytes of its output")
    found = concluded("write", failed, Report("is not there", "NotFound", "Operation", retryable=True))
    assert (found.reason, found.category, found.retryable) == ("NotFound", "Operation", True)
    doubt = concluded("write", failed, Report("failed", "FileError", in_doubt="/data/a may have been written"))
    assert (doubt.retryable, doubt.message) == (False, "failed; /data/a may have been written")


@pytest.mark.parametrize("report", [b'{"report":1}\n', b'{"report":{"message":1}}\n', b'{"report":\n', b"words\n", b""])
def test_what_is_no_report_leaves_a_change_in_doubt(report: bytes) -> None:
    outcome = concluded("write", Outcome("ExitCode", "exited with code 1", **_ENDS), noise=report)
    assert (outcome.reason, outcome.retryable) == ("InternalError", False)
    assert "nobody knows whether it was performed" in outcome.message
    assert concluded("read", Outcome("ExitCode", "exited with code 1", **_ENDS), noise=report).retryable


@pytest.mark.parametrize(
    ("operation", "outcome", "report", "reason", "retryable", "words"),
    [
        ("write", Outcome("Timeout", "timed out", 137, usage=Usage()), None, "Timeout", False, "nobody knows"),
        ("read", Outcome("Timeout", "timed out", 137, usage=Usage()), None, "Timeout", True, "timed out"),
        ("write", Outcome("Timeout", "before it could be started"), None, "Timeout", True, "before it"),
        ("write", Outcome("ImagePullFailed", "not there"), None, "ImagePullFailed", True, "not there"),
        ("write", Outcome("Evicted", "evicted", 143, usage=Usage()), None, "Evicted", True, "nobody knows"),
        ("write", Outcome("Interrupted", "its Job was deleted"), None, "Interrupted", True, "nobody knows"),
        ("write", Outcome("OOMKilled", "memory", 137, usage=Usage()), None, "OOMKilled", False, "nobody knows"),
        ("write", Outcome("Timeout", "timed out", 143, usage=Usage()), Report("", stopped=True), "Timeout", True, ""),
        (
            "write",
            Outcome("Timeout", "timed out", 0, usage=Usage()),
            Report("wrote 1 bytes"),
            "Completed",
            True,
            "wrote",
        ),
        ("write", Outcome("Signal", "SIGTERM", 143, usage=Usage()), Report("", stopped=True), "Interrupted", True, ""),
    ],
)
def test_what_changes_files_is_done_again_only_where_it_surely_was_not_done(
    operation: str, outcome: Outcome, report: Report | None, reason: str, retryable: bool, words: str
) -> None:
    end = concluded(operation, outcome, report)
    assert (end.reason, end.retryable) == (reason, retryable), end
    assert words in end.message


def test_a_report_is_one_line_of_json() -> None:
    line = Report("two\nlines").encode()
    assert line.count(b"\n") == 1
    assert Report.decode(line) == Report("two\nlines")
    assert orjson.loads(line)["report"]["reason"] == ""
