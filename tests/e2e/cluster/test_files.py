"""Tests file operations of an installed chart: Jobs of the operator's own image, in volumes of the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster.installation import Installation
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
VOLUMES = [{"name": "w", "workspace": {"name": "files", "size": "16Mi"}}]


@pytest.fixture(scope="module", autouse=True)
def _workspace(installation: Installation) -> Iterator[None]:
    with installation.disk():
        yield
        installation.kubectl.ok(
            "delete", "-n", installation.namespace, "pvc/remit-workspace-files", "--ignore-not-found"
        )


def ask(
    installation: Installation, name: str, operation: str, path: str, access: str = "ReadWrite", **rest: Any
) -> None:
    spec = {name: rest.pop(name) for name in ("timeoutSeconds", "retry") if name in rest}
    installation.task(
        name,
        file={"operation": operation, "path": path, **rest},
        volumes=VOLUMES,
        volumeMounts=[{"name": "w", "mountPath": "/data", "access": access}],
        terminationGracePeriodSeconds=1,
        **spec,
    )


def done(installation: Installation, name: str, *what: Any, **rest: Any) -> dict[str, Any]:
    ask(installation, name, *what, **rest)
    return installation.finished(name)


def run(installation: Installation, name: str, script: str) -> str:
    """Returns the output of a command that uses the same workspace."""
    mounts = [{"name": "w", "mountPath": "/data", "access": "ReadWrite"}]
    installation.run(name, "sh", "-c", script, volumes=VOLUMES, volumeMounts=mounts)
    status = installation.finished(name)
    assert status["phase"] == "Succeeded", status
    said: str = status["output"].get("stdoutTail", "")
    return said


def test_what_one_task_writes_another_one_reads(installation: Installation) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "content"}}
    installation.apply(secret | {"stringData": {"text": "s3cret-of-a-file"}})
    reference = {"secretKeyRef": {"name": "content", "key": "text"}}

    first = done(installation, "writes", "write", "/data/a.log", contentFrom=reference, mode="0600")
    assert (first["phase"], first["backend"]) == ("Succeeded", "kubernetes"), first
    assert first["message"] == "wrote 16 bytes to /data/a.log"
    operator = installation.get("deployment", installation.release, "-n", installation.system)
    assert first["image"] == operator["spec"]["template"]["spec"]["containers"][0]["image"]
    assert "network" not in first["sandbox"]["limits"]
    second = done(installation, "reads", "read", "/data/a.log", "ReadOnly")
    assert second["output"]["stdoutTail"] == "s3cret-of-a-file", second
    assert (
        run(installation, "beside", "cat /data/a.log; echo x >/data/b.log; echo y >/data/c.txt") == "s3cret-of-a-file"
    )
    listed = done(installation, "lists", "list", "/data", "ReadOnly", glob="*.log")
    found = [json.loads(line) for line in listed["output"]["stdoutTail"].splitlines()]
    assert sorted(each["path"] for each in found) == ["/data/a.log", "/data/b.log"]
    assert {each["uid"] for each in found} == {65534}
    removed = done(installation, "deletes", "delete", "/data", glob="*.log")
    assert removed["message"] == "deleted 2 files below /data that match *.log"
    assert run(installation, "what-is-left", "ls /data; rm /data/c.txt") == "c.txt\n"
    wait_until(lambda: not installation.get("jobs")["items"], "every Job is gone")
    assert "s3cret-of-a-file" not in json.dumps([first, *installation.get("events")["items"]])
    kept = installation.get("secrets", "-l", "app.kubernetes.io/managed-by=remit")["items"]
    assert [each["metadata"]["name"] for each in kept if "launcher" not in each["metadata"]["name"]] == []


def test_what_policy_denies_is_not_done_wherever_a_link_leads(installation: Installation) -> None:
    denied = done(installation, "closed", "write", "/data/closed/a", content="x")
    assert (denied["phase"], denied["attemptCount"]) == ("Denied", 0), denied
    outside = done(installation, "outside", "read", "/etc/passwd")
    assert (outside["phase"], outside["attemptCount"]) == ("Failed", 0)
    assert "mount a workspace by spec.volumes" in outside["message"]

    links = "mkdir /data/closed; echo kept >/data/closed/a; ln -s closed /data/link; ln -s /run/remit /data/out"
    run(installation, "links", links)
    inside = done(installation, "inside", "read", "/data/link/a", retry={"maxRetries": 2})
    assert (inside["attempts"][-1]["reason"], inside["attemptCount"]) == ("Denied", 1), inside
    assert "/data/link/a is really /data/closed/a" in inside["message"]
    beyond = done(installation, "beyond", "read", "/data/out/stdin")
    assert beyond["attempts"][-1]["reason"] == "OutsideRoot", beyond
    missing = done(
        installation, "missing", "read", "/data/none", retry={"maxRetries": 1, "backoff": {"initialSeconds": 1}}
    )
    assert [each["reason"] for each in missing["attempts"]] == ["NotFound", "NotFound"]
    assert run(installation, "untouched", "cat /data/closed/a; rm -r /data/*") == "kept\n"


def test_an_operator_that_is_killed_takes_it_up_and_does_it_once(installation: Installation) -> None:
    """One operation ends while no operator runs, or soon after, and one continues until it is cancelled."""
    run(installation, "prepared", "truncate -s 1024G /data/endless; echo begun >/data/lines")
    ask(installation, "endless", "checksum", "/data/endless", "ReadOnly")
    wait_until(lambda: installation.jobs("endless"), "the Job that reads")
    ask(installation, "appends", "append", "/data/lines", content="once\n")
    wait_until(lambda: installation.jobs("appends"), "the Job that appends")
    (before,) = installation.jobs("endless")

    installation.kill()
    installation.ready()

    status = installation.finished("appends")
    assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
    assert status["message"] == "appended 5 bytes to /data/lines"
    (after,) = installation.jobs("endless")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert installation.status("endless")["phase"] == "Running"
    cancel = ("--type=merge", "-p", json.dumps({"spec": {"cancel": True}}))
    installation.kubectl.ok("patch", "-n", installation.namespace, "executiontask/endless", *cancel)
    ended = installation.finished("endless")
    assert (ended["phase"], ended["attemptCount"]) == ("Cancelled", 1), ended
    assert installation.jobs("endless") == []
    assert run(installation, "lines-of-it", "cat /data/lines; rm /data/*") == "begun\nonce\n"


def test_one_that_takes_too_long_is_ended_and_tried_again_where_nothing_was_changed(installation: Installation) -> None:
    run(installation, "large-file", "truncate -s 1024G /data/large")
    retry = {"maxRetries": 1, "backoff": {"initialSeconds": 1}}
    status = done(installation, "too-slow", "checksum", "/data/large", "ReadOnly", timeoutSeconds=10, retry=retry)
    assert [each["reason"] for each in status["attempts"]] == ["Timeout", "Timeout"], status
    wait_until(lambda: not installation.jobs("too-slow"), "its Jobs are gone")
    run(installation, "small", "rm /data/large")
