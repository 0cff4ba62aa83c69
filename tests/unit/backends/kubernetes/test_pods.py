"""Tests what pods and their Events reveal about an attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.backends.base import AttemptRequest, Command
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.kubernetes.pods import look, never_started, outcome_of, refusal, trouble
from remit.backends.kubernetes.records import Ended, Records
from remit.backends.outcome import ExitReason, Outcome
from remit.sandbox import Confinement, Limits

REQUEST = AttemptRequest(
    id="uid-1",
    command=Command(("prog", "x"), ""),
    confinement=Confinement(limits=Limits(memory_bytes=64 << 20)),
    timeout_seconds=30,
)
ENDED = Ended(
    exit_code=0,
    signal=0,
    stdout_bytes=0,
    stderr_bytes=0,
    cpu_seconds=0.5,
    max_memory_bytes=1 << 20,
    oom_kills=0,
    throttled_seconds=0.0,
    max_tasks=3,
)
NO_PROGRAM = replace(ENDED, exit_code=126, error="exec", errno=2)
NO_FOLDER = replace(ENDED, exit_code=126, error="chdir", errno=2)
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}
OVER = 'Usage of EmptyDir volume "{}" exceeds the limit "{}". '
LOW = "The node was low on resource: "
STARTED, FINISHED = "2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z"


def pod(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    containers = [] if state is None else [{"name": "task", "image": "base:1", "state": state}]
    return {"metadata": {"uid": "p"}, "spec": {"nodeName": "n1"}, "status": {"containerStatuses": containers, **status}}


def terminated(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": STARTED, "finishedAt": FINISHED, **more}}


def evicted(message: str) -> dict[str, Any]:
    """Returns the status of an evicted pod with a message in the kubelet's words."""
    found = pod(None, phase="Failed", reason="Evicted", message=message)
    paths = ("/workspace", "/tmp", "/scratch")
    mounts = [{"name": f"empty-{number}", "mountPath": path} for number, path in enumerate(paths)]
    return found | {"spec": {"containers": [{"name": "task", "volumeMounts": mounts}]}}


def ended(
    given: dict[str, Any], last: Ended | None = None, stopped: ExitReason | None = None, stderr: bytes = b""
) -> Outcome:
    return outcome_of(given, Records(ended=last), stderr, stopped, REQUEST, ConfinementStatus())


@pytest.mark.parametrize(
    ("given", "last", "reason", "code", "told"),
    [
        (pod(terminated(0, "Completed")), ENDED, "Completed", 0, "completed"),
        (pod(terminated(3)), replace(ENDED, exit_code=3), "ExitCode", 3, "exited with code 3"),
        (pod(terminated(139)), replace(ENDED, exit_code=139, signal=11), "Signal", 139, "SIGSEGV"),
        (pod(terminated(137)), replace(ENDED, exit_code=137, signal=9, oom_kills=1), "OOMKilled", 137, "67108864"),
        (pod(terminated(137, "OOMKilled")), None, "OOMKilled", 137, "spec.resources.memory"),
        (pod(terminated(137)), None, "Interrupted", 137, "killed from outside"),
        (pod(None), replace(ENDED, exit_code=4), "ExitCode", 4, "exited with code 4"),
        (pod(terminated(126)), NO_PROGRAM, "StartFailed", None, "prog: No such"),
        (pod(terminated(126)), NO_FOLDER, "StartFailed", None, "/workspace"),
        (pod(terminated(128, "StartError", message="exec format error")), None, "StartFailed", None, "exec format"),
        (pod(None), None, "Interrupted", None, "nobody saw how it ended"),
        (
            pod(terminated(137), phase="Failed", reason="Evicted", message="The node was low on resource: memory. "),
            None,
            "Evicted",
            137,
            "low on resource: memory",
        ),
        (evicted(LOW + "ephemeral-storage. "), None, "Evicted", None, "low on resource: ephemeral-storage"),
        (evicted(OVER.format("empty-1", "2097152")), None, "DiskExceeded", None, "in /tmp; set spec.resources.disk"),
        (
            evicted(OVER.format("empty-2", "2097152")),
            None,
            "DiskExceeded",
            None,
            "wrote more than 2097152 bytes in /scratch; set sizeLimit of its emptyDir in spec.volumes higher",
        ),
        (
            evicted('Container task exceeded its local ephemeral storage limit "1Gi". '),
            None,
            "DiskExceeded",
            None,
            'limit "1Gi"',
        ),
        (
            evicted("Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. "),
            None,
            "DiskExceeded",
            None,
            "containers 1Gi",
        ),
        (
            pod(
                None,
                phase="Failed",
                conditions=[{**DISRUPTED, "reason": "DeletionByTaintManager"}],
            ),
            None,
            "NodeLost",
            None,
            "node n1 went away",
        ),
        (
            pod(
                None,
                conditions=[{**DISRUPTED, "reason": "PreemptionByScheduler", "message": "for x"}],
            ),
            None,
            "Evicted",
            None,
            "for x",
        ),
    ],
)  # fmt: skip
def test_how_it_ended(given: dict[str, Any], last: Ended | None, reason: str, code: int | None, told: str) -> None:
    outcome = ended(given, last)
    assert (outcome.reason, outcome.exit_code) == (reason, code)
    assert told in outcome.message


def test_what_remit_did_comes_first() -> None:
    assert ended(pod(terminated(137, "OOMKilled")), None, ExitReason.TIMED_OUT).reason == ExitReason.TIMED_OUT
    assert ended(pod(terminated(143)), replace(ENDED, exit_code=143), ExitReason.CANCELLED).reason == "Cancelled"
    evicted = pod(None, phase="Failed", reason="Evicted")
    assert ended(evicted, None, ExitReason.CANCELLED).reason == ExitReason.CANCELLED


def deleted(given: dict[str, Any], at: str, grace: int = 0) -> dict[str, Any]:
    return {**given, "metadata": {"uid": "p", "deletionTimestamp": at, "deletionGracePeriodSeconds": grace}}


@pytest.mark.parametrize("code", [0, 3, 143])
def test_what_is_deleted_before_it_ended_is_interrupted_whatever_its_program_made_of_that(code: int) -> None:
    given, last = pod(terminated(code)), replace(ENDED, exit_code=code)
    outcome = ended(deleted(given, "2026-01-01T00:00:07Z", grace=5), last)
    assert (outcome.reason, outcome.exit_code) == (ExitReason.INTERRUPTED, code)
    assert ended(deleted(given, "2026-01-01T00:00:08Z", grace=5), last).reason != ExitReason.INTERRUPTED
    drained = deleted(pod(terminated(code), conditions=[{**DISRUPTED, "reason": "EvictionByEvictionAPI"}]), FINISHED)
    assert ended(drained, last).reason == ExitReason.EVICTED


def test_a_program_that_ended_before_its_node_went_has_ended() -> None:
    gone = pod(terminated(0), phase="Failed", reason="NodeLost")
    assert ended(gone, ENDED).reason == ExitReason.COMPLETED


def test_what_was_used_and_when() -> None:
    outcome = ended(pod(terminated(0)), ENDED)
    usage = outcome.usage
    assert usage is not None
    assert (usage.cpu_seconds, usage.max_memory_bytes, usage.wall_seconds, usage.source) == (
        0.5,
        1 << 20,
        2.0,
        "cgroup",
    )
    assert outcome.finished_at.isoformat() == "2026-01-01T00:00:02+00:00"


def test_output_that_was_rotated_away_is_told_in_bytes() -> None:
    outcome = ended(pod(terminated(0)), replace(ENDED, stdout_bytes=4096))
    assert "4096 bytes of its output were rotated away" in outcome.message


@pytest.mark.parametrize(
    ("reason", "message", "retryable"),
    [
        ("ErrImagePull", "failed to resolve reference: dial tcp: i/o timeout", True),
        ("ImagePullBackOff", 'Back-off pulling image "base:1"', True),
        ("ErrImagePull", "base:1: not found", False),
        ("InvalidImageName", "couldn't parse image name", False),
        ("ErrImageNeverPull", "image is not present", False),
    ],
)
def test_an_image_that_cannot_be_pulled(reason: str, message: str, retryable: bool) -> None:
    refused = look(pod({"waiting": {"reason": reason, "message": message}})).refused
    assert refused is not None
    assert (refused.reason, refused.retryable) == (ExitReason.IMAGE_PULL_FAILED, retryable)
    assert message in refused.message


def test_a_container_that_cannot_be_made() -> None:
    refused = look(
        pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}})
    ).refused
    assert refused is not None
    assert refused.reason == ExitReason.START_FAILED


def test_what_a_pod_waits_for_is_told_when_its_time_is_over() -> None:
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient memory",
    }
    waits = look(pod(None, conditions=[unschedulable])).waits
    outcome = never_started(waits, REQUEST, ConfinementStatus(), cancelled=False)
    assert outcome.reason == ExitReason.TIMED_OUT
    assert "before it could be started: 0/1 nodes are available: 1 Insufficient memory" in outcome.message
    assert not look(pod({"waiting": {"reason": "ContainerCreating"}})).running


def test_the_latest_failure_says_why_a_pod_does_not_start() -> None:
    def event(reason: str, at: str) -> dict[str, Any]:
        return {"reason": reason, "message": f"about {reason}", "lastTimestamp": at}

    early = event("FailedMount", "2026-01-01T00:00:00Z")
    late = event("FailedCreatePodSandBox", "2026-01-01T00:00:05Z")
    harmless = event("MissingClusterDNS", "2026-01-01T00:00:09Z")
    assert trouble([]) == trouble([harmless]) == ""
    assert trouble([late, early, harmless]) == "FailedCreatePodSandBox: about FailedCreatePodSandBox"
    newer = {"reason": "FailedAttachVolume", "eventTime": "2026-01-01T00:00:07.000000Z"}
    assert trouble([late, newer]) == "FailedAttachVolume"


def test_a_job_without_a_pod() -> None:
    def event(message: str, at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
        return {"reason": "FailedCreate", "message": f"Error creating: {message}", "lastTimestamp": at}

    quota = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    assert refusal([]) == (None, "")
    assert refusal([event(quota)]) == (None, quota)
    outcome = never_started(quota, REQUEST, ConfinementStatus(), cancelled=False)
    assert outcome.reason == ExitReason.QUOTA_EXCEEDED
    assert "ResourceQuota" in outcome.message
    refused, _ = refusal([event(quota), event('violates PodSecurity "restricted:latest"', "2026-01-01T00:00:01Z")])
    assert refused is not None
    assert (refused.reason, refused.retryable) == (ExitReason.ADMISSION_REFUSED, False)


@pytest.mark.parametrize(
    "message",
    [
        'Internal error occurred: failed calling webhook "x": connection refused',
        'pods "x" is forbidden: error looking up service account team/default: serviceaccount "default" not found',
        "etcdserver: request timed out",
        "Timeout: request did not complete within requested timeout - context deadline exceeded",
        'Operation cannot be fulfilled on resourcequotas "q": the object has been modified',
    ],
)
def test_what_passes_by_itself_is_waited_for(message: str) -> None:
    """The Job's controller tries again."""
    event = {"reason": "FailedCreate", "lastTimestamp": FINISHED, "message": f"Error creating: {message}"}
    assert refusal([event]) == (None, message)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition"),
        ("CreateContainerError", "context deadline exceeded"),
        ("CreateContainerError", 'failed to reserve container name "task_x": name "task_x" is reserved for "0123"'),
        ("RunContainerError", "rpc error: code = Unavailable desc = connection error"),
    ],
)
def test_what_a_kubelet_tries_again_is_waited_for(reason: str, message: str) -> None:
    seen = look(pod({"waiting": {"reason": reason, "message": message}}))
    assert (seen.refused, seen.waits) == (None, message)


def test_a_pod_that_is_taken_away_while_files_are_told_has_completed() -> None:
    """The program had ended by itself. Only its files are missing, which the collector reports."""
    taken = pod(terminated(137)) | {"metadata": {"uid": "p", "deletionTimestamp": FINISHED}}
    records = Records(program_ended=ENDED)
    assert (
        outcome_of(taken, records, b"", None, REQUEST, ConfinementStatus(), by_itself=True).reason
        == ExitReason.COMPLETED
    )
    assert (
        outcome_of(taken, records, b"", None, REQUEST, ConfinementStatus(), by_itself=False).reason
        == ExitReason.INTERRUPTED
    )
