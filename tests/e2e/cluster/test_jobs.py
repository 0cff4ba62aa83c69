"""Tests that tasks of an installed chart run as Jobs."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

import clusters
import remitup
from e2e.cluster.conftest import WAITS
from e2e.cluster.installation import Installation, command
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ENDLESS = "trap 'echo term; exit 7' TERM; echo begun; (trap '' TERM; sleep 600) & sleep 600 & wait"


def test_a_task_that_is_allowed_runs(installation: Installation) -> None:
    installation.run("hello", "echo", "hello from a Job")

    status = installation.finished("hello")
    assert status["phase"] == "Succeeded", status
    assert status["output"]["stdoutTail"] == "hello from a Job\n"


def test_a_task_that_no_rule_allows_is_denied(installation: Installation) -> None:
    installation.run("denied", "cat", "/etc/passwd")

    status = installation.finished("denied")
    assert status["phase"] == "Denied"
    assert installation.jobs("denied") == []


def test_each_limit_ends_a_job_by_its_own_name(installation: Installation) -> None:
    """All limits are tested at once, because a kubelet measures disks every ten seconds."""
    full = "dd if=/dev/zero of=/workspace/large bs=1M count=8 2>/dev/null; sleep 600"
    scratch = "dd if=/dev/zero of=/scratch/large bs=1M count=8 2>/dev/null; sleep 600"
    installation.apply(
        command("late", "sh", "-c", ENDLESS, timeoutSeconds=15),
        command("hungry", "sh", "-c", "x=a; while :; do x=$x$x; done", resources={"memory": "32Mi"}),
        command("full", "sh", "-c", full, resources={"disk": "2Mi"}),
        command(
            "scratched", "sh", "-c", scratch,
            volumes=[{"name": "s", "emptyDir": {"sizeLimit": "2Mi"}}],
            volumeMounts=[{"name": "s", "mountPath": "/scratch", "access": "ReadWrite"}],
        ),
        command("asked", "sh", "-c", ENDLESS),
    )  # fmt: skip
    installation.running("asked")
    installation.kubectl.ok(
        "patch", "-n", installation.namespace, "executiontask/asked", "--type=merge", "-p", '{"spec": {"cancel": true}}'
    )

    ends = {name: installation.finished(name) for name in ("late", "hungry", "full", "scratched", "asked")}
    assert {name: end["attempts"][-1]["reason"] for name, end in ends.items()} == {
        "late": "Timeout",
        "hungry": "OOMKilled",
        "full": "DiskExceeded",
        "scratched": "DiskExceeded",
        "asked": "Cancelled",
    }
    assert ends["asked"]["phase"] == "Cancelled"
    assert ends["asked"]["output"]["stdoutTail"] == "begun\nterm\n"
    assert "in /workspace; set spec.resources.disk higher" in ends["full"]["message"]
    assert "in /scratch; set sizeLimit" in ends["scratched"]["message"]
    pods = installation.get("pods", "-l", "app.kubernetes.io/managed-by=remit")["items"]
    assert [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"] == []


def test_a_drain_evicts_a_job(installation: Installation) -> None:
    retry = {"maxRetries": 3, "onInterruption": "Fail"}
    installation.run("drained", "sh", "-c", WAITS, retry=retry)
    name = installation.running("drained")["metadata"]["name"]
    (pod,) = installation.get("pods", "-l", f"batch.kubernetes.io/job-name={name}")["items"]
    where = {"name": pod["metadata"]["name"], "namespace": installation.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": where}
    path = "/api/v1/namespaces/{namespace}/pods/{name}/eviction".format(**where)
    installation.kubectl.ok("create", "--raw", path, "-f", "-", given=body)

    status = installation.finished("drained")
    assert (status["attempts"][-1]["reason"], status["attemptCount"]) == ("Evicted", 1), status


def test_a_task_that_fails_is_tried_again(installation: Installation) -> None:
    retry = {"maxRetries": 3, "backoff": {"initialSeconds": 1}}
    installation.run("flaky", "sh", "-c", 'echo "$REMIT_ATTEMPT"; [ "$REMIT_ATTEMPT" = 2 ]', retry=retry)

    status = installation.finished("flaky")
    assert (status["phase"], status["attemptCount"]) == ("Succeeded", 2)
    assert [each["reason"] for each in status["attempts"]] == ["ExitCode", "Completed"]
    assert status["output"]["stdoutTail"] == "2\n"


def test_an_image_that_is_nowhere_is_told(installation: Installation) -> None:
    installation.run("nowhere", "echo", image="remit-test.invalid/none:1", timeoutSeconds=60)

    status = installation.finished("nowhere")
    assert status["attempts"][-1]["reason"] == "ImagePullFailed"
    assert "remit-test.invalid/none:1" in status["message"]


def test_what_a_quota_keeps_out_waits_and_says_so(installation: Installation) -> None:
    with installation.no_new_pods(installation.namespace):
        installation.run("crowded", "echo", timeoutSeconds=15)
        status = installation.finished("crowded")
    assert status["attempts"][-1]["reason"] == "QuotaExceeded"


def test_volumes_of_every_kind_are_mounted(installation: Installation) -> None:
    text = {"metadata": {"name": "texts"}, "apiVersion": "v1"}
    installation.apply(
        {**text, "kind": "ConfigMap", "data": {"greeting": "hello"}},
        {**text, "kind": "Secret", "stringData": {"token": "s3cret-of-a-volume"}},
    )
    volumes: list[dict[str, Any]] = [
        {"name": "c", "configMap": {"name": "texts"}},
        {"name": "s", "secret": {"secretName": "texts"}},
        {"name": "e", "emptyDir": {"sizeLimit": "2Mi"}},
        {"name": "w", "workspace": {"name": "cache", "size": "16Mi"}},
    ]
    mounts = [
        {"name": "c", "mountPath": "/etc/texts"},
        {"name": "s", "mountPath": "/run/private/texts"},
        {"name": "e", "mountPath": "/scratch", "access": "ReadWrite"},
        {"name": "w", "mountPath": "/cache", "access": "ReadWrite"},
    ]
    script = (
        "cat /etc/texts/greeting /run/private/texts/token; touch /scratch/x; cat /cache/* 2>&1; echo kept >/cache/f"
    )
    with installation.disk():
        installation.run("first", "sh", "-c", script, volumes=volumes, volumeMounts=mounts)
        first = installation.finished("first")
        installation.run("second", "sh", "-c", script, volumes=volumes, volumeMounts=mounts)
        second = installation.finished("second")
        volumes[3]["workspace"]["ttlSecondsAfterLastUse"] = 0
        installation.run("last", "sh", "-c", script, volumes=volumes, volumeMounts=mounts)
        last = installation.finished("last")
        claims = ("get", "-n", installation.namespace, "pvc", "-o", "name")
        wait_until(lambda: not installation.kubectl.ok(*claims), "the workspace's time to live is over", seconds=60)
    assert first["phase"] == "Succeeded", first
    assert "hello[redacted]" in first["output"]["stdoutTail"]
    assert second["output"]["stdoutTail"].endswith("kept\n")
    assert last["phase"] == "Succeeded", last
    assert "s3cret-of-a-volume" not in json.dumps([first, second, *installation.get("events")["items"]])


def test_what_a_task_leaves_the_next_one_has(installation: Installation) -> None:
    """The first file is larger than a kubelet lets a log grow."""
    script = "head -c 12582912 /dev/urandom >large; mkdir d; sha256sum large >d/sum; ln -s /etc/passwd d/link"
    kept = [{"name": "large", "path": "large"}, {"name": "d", "path": "d"}]
    installation.run("leaves", "sh", "-c", script, artifacts=kept)
    first = installation.finished("leaves")
    assert first["phase"] == "Succeeded", first
    assert [(each["name"], each["files"], each["bytes"]) for each in first["artifacts"]] == [
        ("large", 1, 12 << 20),
        ("d", 1, 72),
    ]
    volumes = [{"name": "d", "artifact": {"task": "leaves", "name": "d"}}]
    mounts = [{"name": "d", "mountPath": "/in"}]
    stdin = {"volume": {"name": "d", "path": "sum"}}
    installation.run("has", "sh", "-c", "cat; ls -A /in", volumes=volumes, volumeMounts=mounts, stdinFrom=stdin)
    second = installation.finished("has")
    assert second["phase"] == "Succeeded", second
    digest, *rest = second["output"]["stdoutTail"].split()
    assert (len(digest), rest) == (64, ["large", "sum"])


def test_who_may_read_pods_follows_a_job(installation: Installation) -> None:
    """The whole long output is shown and not only the end that status has, also from the beginning of a running
    task."""
    lines = "".join(f"{number}\n" for number in range(1, 20_001))
    installation.run("follow", "sh", "-c", f"seq 20000; {WAITS}", image=clusters.busybox_image())
    job = installation.running("follow")
    environment = remitup.environment(KUBECONFIG=str(installation.kubectl.kubeconfig))
    logs = [*remitup.REMIT, "logs", "follow", "-n", installation.namespace, "--stdout"]
    once = subprocess.run(logs, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert once.stdout == lines + "begun\n"
    with subprocess.Popen([*logs, "-f"], env=environment, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        came = following.stdout.read(len(once.stdout))
        assert came == once.stdout, "before it has ended"
        installation.let_go(job)
        assert following.stdout.read() == "ended\n"
    assert following.returncode == 0


def test_a_job_goes_on_while_its_operator_is_replaced(installation: Installation) -> None:
    installation.run("long", "sh", "-c", WAITS)
    before = installation.running("long")

    installation.kubectl.ok("delete", "-n", installation.system, *installation.operators())
    installation.ready()

    (after,) = installation.jobs("long")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    installation.let_go(after)
    status = installation.finished("long")
    assert status["phase"] == "Succeeded"
    assert status["output"]["stdoutTail"] == "begun\nended\n"
    assert len(status["attempts"]) == 1
