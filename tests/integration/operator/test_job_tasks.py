"""Tests tasks as Jobs of a real Kubernetes cluster, through a whole operator."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import clusters
import launchers
from remit.api.definitions import crds
from remit.api.endpoint import Resource
from remit.backends.kubernetes.launcher import Launcher
from remit.controllers.operator import Operator, running_operator
from remit.controllers.settings import Settings
from remit.errors import ApiError
from remit.execution import waiting
from remit.kube.access import Access
from remit.kube.client import (
    CLAIMS,
    CONFIG_MAPS,
    CRDS,
    JOBS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    POLICIES,
    SECRETS,
    TASKS,
    Kube,
    Object,
)
from remit.telemetry.redact import Redactor
from support import pauses

from .conftest import PATIENCE, truth

pytestmark = pytest.mark.timeout(300)  # longer than the awaits, whose timeouts give a reason
VOLUMES = Resource("", "v1", "persistentvolumes", namespaced=False)
SECRET = "s3cret-of-jobs"
EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"
AS_JOBS: dict[str, list[tuple[str, str]]] = {
    "01": [("Completed", "hello, world; $HOME and `id` are only text: no shell reads this")],
    "02": [("Completed", "REMIT_ATTEMPT=3")],
    "03": [("Timeout", "")],
    "04": [("Completed", "good morning\neveryone\ngreen\n[redacted]")],
    "08": [("Completed", "total 42")],
}
NOT_AS_JOBS: dict[str, str] = {
    "05": "a Job cannot have rlimits, and a policy requires it",
    "06": "restricted needs an egress gateway",
    "07": "a Job cannot have",
    "09": "file would work on the disk of the operator's own pod",
    "12": "starts no processes beside itself",
    "14": "has no Docker engine",
}
KINDS = {
    "CommandPolicy": POLICIES,
    "ExecutionTask": TASKS,
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
}


class Cluster:
    """A namespace of a cluster, and operators that tests start and stop."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self.kube, self.settings, self.namespace = kube, settings, settings.namespaces[0]

    @contextlib.asynccontextmanager
    async def operator(self, **changes: Any) -> AsyncIterator[Operator]:
        async with running_operator(self.kube.access, replace(self.settings, **changes), Redactor()) as operator:
            yield operator

    async def create(self, resource: Any, kind: str, name: str, body: Object) -> None:
        version = f"{resource.group}/{resource.version}" if resource.group else resource.version
        await self.kube.create(
            resource, self.namespace, {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **body}
        )

    async def sh(self, script: str, **spec: Any) -> str:
        name = f"t{uuid.uuid4().hex[:8]}"
        command = {"command": {"argv": ["sh", "-c", script]}, "terminationGracePeriodSeconds": 1}
        await self.create(TASKS, "ExecutionTask", name, {"spec": {**command, **spec}})
        return name

    async def until(self, name: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        status: dict[str, Any] = {}
        pause = pauses()
        async with clusters.in_time(2 * PATIENCE, self.namespace, lambda: f"{name} never came so far: {status}"):
            while not condition(status):
                await asyncio.sleep(next(pause))
                status = (await self.kube.get(TASKS, self.namespace, name)).get("status") or {}
        return status

    async def finished(self, name: str) -> dict[str, Any]:
        return await self.until(name, lambda status: truth(status, "Finished") == "True")

    async def running(self, name: str) -> Object:
        """Waits until the container of a task runs, and returns its pod."""
        status = await self.until(name, lambda status: status.get("phase") == "Running")
        label = f"remit.dev/attempt={status['attempts'][-1]['id']}"
        pause = pauses()
        async with clusters.in_time(PATIENCE, self.namespace, lambda: f"no pod with {label} runs"):
            while True:
                for pod in await self.kube.list(PODS, self.namespace, label_selector=label):
                    if pod["status"].get("phase") == "Running":
                        return pod
                await asyncio.sleep(next(pause))

    async def left(self, resource: Any, name: str) -> bool:
        """Returns whether an object of the namespace exists."""
        try:
            await self.kube.get(resource, self.namespace, name)
        except ApiError as error:
            assert error.status == 404
            return False
        return True

    async def gone(self, resource: Any, name: str) -> None:
        pause = pauses()
        async with clusters.in_time(PATIENCE, self.namespace, lambda: f"{resource.plural} {name} is still there"):
            while await self.left(resource, name):
                await asyncio.sleep(next(pause))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    access, image = await Access.load(clusters.kubeconfig()), clusters.busybox_image()
    namespace = f"remit-jobs-{uuid.uuid4().hex[:8]}"
    async with Kube(access) as kube:
        for crd in crds():
            await kube.apply(CRDS, None, crd["metadata"]["name"], crd, manager="remit-test", force=True)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        await kube.create(NAMESPACES, None, {"metadata": {"name": namespace, "labels": labels}})
        settings = Settings(
            namespaces=(namespace,),
            operator_namespace=namespace,
            state_dir=tmp_path / "state",
            leader_election=False,
            backends=("kubernetes",),
            image=image,
            launchers=launchers.folder(),
            accept_unenforced_network=True,
        )
        cluster = Cluster(kube, settings)
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(ApiError):
                    await kube.list(TASKS, namespace)
                    await kube.list(POLICIES, namespace)
                    break
                await asyncio.sleep(0.1)
        rules = {"commands": {"allow": [{"executable": "sh"}]}, "environment": {"allow": ["*"]}}
        await cluster.create(POLICIES, "CommandPolicy", "sh", {"spec": {**rules, "networks": ["none", "host"]}})
        try:
            yield cluster
        finally:
            await kube.delete(NAMESPACES, None, namespace)


async def test_a_failure_to_start_is_reported_with_its_reason(cluster: Cluster) -> None:
    spec = {"containers": [{"name": "task", "image": cluster.settings.image}], "nodeSelector": {"no": "such"}}
    spec["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec["containers"][0]["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    await cluster.create(PODS, "Pod", "nowhere", {"spec": spec})
    pause = pauses()
    async with asyncio.timeout(PATIENCE):  # until the kubelet's next report lists the image, which was just loaded
        while clusters.BUSYBOX not in await asyncio.to_thread(clusters.state, cluster.namespace):
            await asyncio.sleep(next(pause))
    with pytest.raises(pytest.fail.Exception) as failed:
        async with clusters.in_time(5, cluster.namespace, lambda: "it is late"):
            await asyncio.Event().wait()
    said = str(failed.value)
    assert said.startswith("it is late\npods:\n  nowhere on no node: Pending")
    assert "FailedScheduling (1 times): 0/" in said
    assert "Ready: True" in said
    assert clusters.BUSYBOX in said


async def test_a_task_without_backend_runs_as_a_job(cluster: Cluster) -> None:
    """The namespace enforces the restricted Pod Security Standard."""
    await cluster.create(SECRETS, "Secret", "s", {"stringData": {"key": SECRET}})
    async with cluster.operator():
        name = await cluster.sh(
            "echo out; echo err >&2; printf '%s' $KEY; id -u; cat; touch /workspace/x /tmp/x; ! touch /x; exit 3",
            env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}}],
            stdin="words\n",
            privateFiles=[{"path": "/run/private/key", "value": "text"}],
        )
        pod = await _seen(cluster, name)
        status = await cluster.finished(name)
        assert (status["backend"], status["image"]) == ("kubernetes", cluster.settings.image)
        assert (status["phase"], status["exitCode"], status["attemptCount"]) == ("Failed", 3, 1)
        assert status["output"]["stdoutTail"] == "out\n[redacted]65534\nwords\n"
        assert status["output"]["stderrTail"].startswith("err\ntouch: /x: Read-only file system")
        assert status["sandbox"]["layers"] == ["namespaces", "seccomp", "cgroup"]
        assert status["sandbox"]["limits"]["network"] == "not enforced"
        assert status["attempts"][0]["usage"]["maxMemoryBytes"] > 0
        assert SECRET not in json.dumps(pod)
        assert await cluster.left(NETWORK_POLICIES, "remit-network-none")
        job = f"remit-{status['attempts'][0]['id']}"
        await cluster.gone(JOBS, job)  # status has the outcome
        await cluster.gone(SECRETS, job)


async def _seen(cluster: Cluster, name: str) -> Object:
    """Waits until a task has a pod, and returns it."""
    status = await cluster.until(name, lambda status: status.get("attempts"))
    label = f"remit.dev/attempt={status['attempts'][-1]['id']}"
    async with clusters.in_time(PATIENCE, cluster.namespace, lambda: f"there is no pod with {label}"):
        async for _, pod in cluster.kube.watch(PODS, cluster.namespace, label_selector=label):
            return pod
    raise AssertionError


async def test_time_and_memory_are_held_and_a_cancel_ends_all(cluster: Cluster) -> None:
    forever = "trap 'echo term; exit 7' TERM; (trap '' TERM; sleep 600) & sleep 600 & wait"
    async with cluster.operator():
        late = await cluster.sh(forever, timeoutSeconds=15)
        large = await cluster.sh("x=a; while :; do x=$x$x; done", resources={"memory": "32Mi"})
        asked = await cluster.sh(forever)
        await cluster.running(asked)
        await cluster.kube.patch(TASKS, cluster.namespace, asked, {"spec": {"cancel": True}})
        ends = [await cluster.finished(name) for name in (late, large, asked)]
        assert [each["attempts"][-1]["reason"] for each in ends] == ["Timeout", "OOMKilled", "Cancelled"]
        assert [each["output"].get("stdoutTail", "") for each in ends] == ["term\n", "", "term\n"]
        assert "spec.resources.memory" in ends[1]["message"]
        for pod in await cluster.kube.list(PODS, cluster.namespace):
            assert pod["status"].get("phase") != "Running"


async def test_an_operator_that_comes_back_finds_it_all(cluster: Cluster) -> None:
    """While no operator runs, one run continues and another one ends."""
    async with cluster.operator():
        going = await cluster.sh("echo one; until [ -e /tmp/go ]; do sleep 0.1; done; echo two; exit 5")
        over = await cluster.sh("echo done")
        pod = await cluster.running(going)
        await cluster.until(going, lambda status: status.get("attempts"))
    await _execute(pod, "touch", "/tmp/go")
    async with cluster.operator():
        status, other = await cluster.finished(going), await cluster.finished(over)
        assert (status["attemptCount"], status["exitCode"]) == (1, 5)
        assert status["output"]["stdoutTail"] == "one\ntwo\n"
        assert (other["phase"], other["attemptCount"]) == ("Succeeded", 1)
        assert other["output"]["stdoutTail"] == "done\n"


@pytest.mark.parametrize("changed", [False, True])
async def test_one_whose_disk_was_lost_finds_it_too(cluster: Cluster, tmp_path: Path, changed: bool) -> None:
    """A pod's disk is lost like this. A run with another value of a Secret is ended, because the operator could not
    redact that value."""
    await cluster.create(SECRETS, "Secret", "s", {"stringData": {"key": SECRET}})
    async with cluster.operator():
        name = await cluster.sh(
            "until [ -e /tmp/go ]; do sleep 0.1; done; echo $KEY",
            env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}}],
        )
        pod = await cluster.running(name)
    if changed:
        await cluster.kube.patch(SECRETS, cluster.namespace, "s", {"stringData": {"key": "another one"}})
    await _execute(pod, "touch", "/tmp/go")
    async with cluster.operator(state_dir=tmp_path / "other"):
        status = await cluster.finished(name)
    assert status["attemptCount"] == 1
    if changed:
        assert status["attempts"][0]["reason"] == "Interrupted"
        assert "a Secret that it was given has changed" in status["message"]
        assert SECRET not in json.dumps(status)
        await cluster.gone(JOBS, pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])
    else:
        assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "[redacted]\n")


async def _execute(pod: Object, *argv: str) -> None:
    import parts

    metadata = pod["metadata"]
    kubectl = parts.kubectl() or "kubectl"
    where = ["--kubeconfig", str(clusters.kubeconfig()), "-n", metadata["namespace"], "exec", metadata["name"], "--"]
    process = await asyncio.create_subprocess_exec(kubectl, *where, *argv)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0


@pytest.mark.parametrize("taken", ["pod", "job"])
async def test_a_deleted_pod_or_job_is_an_interruption_and_does_not_run_twice(cluster: Cluster, taken: str) -> None:
    async with cluster.operator():
        name = await cluster.sh("sleep 600", retry={"maxRetries": 3, "onInterruption": "Fail"})
        pod = await cluster.running(name)
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        if taken == "pod":
            await cluster.kube.delete(PODS, cluster.namespace, pod["metadata"]["name"])
        else:
            await cluster.kube.delete(JOBS, cluster.namespace, job)
        status = await cluster.finished(name)
        assert (status["attempts"][-1]["reason"], status["attemptCount"]) == ("Interrupted", 1)
        pods = await cluster.kube.list(PODS, cluster.namespace, label_selector=f"batch.kubernetes.io/job-name={job}")
        assert {each["metadata"]["uid"] for each in pods} <= {pod["metadata"]["uid"]}


async def test_what_cannot_start_gives_the_reason(cluster: Cluster) -> None:
    quota = {"spec": {"hard": {"pods": "0"}}}
    async with cluster.operator():
        no_folder = await cluster.sh("true", workingDir="/workspace/nowhere")
        no_image = await cluster.sh("true", image="remit-test.invalid/none:1", timeoutSeconds=60)
        denied = (await cluster.finished(no_image))["message"]
        assert "no image that policy" in denied
        assert "spec.workingDir: there is no such folder" in (await cluster.finished(no_folder))["message"]
        await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": {"images": {"allow": ["*/*"]}}})
        assert "no runtime for" in await _without_a_runtime(cluster)
        await cluster.kube.request(
            "POST",
            f"/api/v1/namespaces/{cluster.namespace}/resourcequotas",
            body={"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, **quota},
        )
        full = await cluster.sh("true", timeoutSeconds=8)
        status = await cluster.finished(full)
        assert status["attempts"][-1]["reason"] == "QuotaExceeded"
        assert "exceeded quota" in status["message"]


async def _without_a_runtime(cluster: Cluster) -> str:
    """Returns the message of a task whose pod gets no sandbox, which only an Event reports."""
    name, path = cluster.namespace, "/apis/node.k8s.io/v1/runtimeclasses"
    made = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "missing"}
    await cluster.kube.request("POST", path, body=made)
    try:
        await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": {"pods": {"runtimeClasses": [name]}}})
        task = await cluster.sh("true", timeoutSeconds=20, pod={"runtimeClassName": name})
        return str((await cluster.finished(task))["message"])
    finally:
        await cluster.kube.request("DELETE", f"{path}/{name}")


async def test_small_texts_are_kept(cluster: Cluster) -> None:
    async with cluster.operator():
        wanted = [{"name": "a", "path": "out/a"}, {"name": "b", "path": "out/b", "optional": True}]
        done = await cluster.sh("mkdir out; echo wörd > out/a", results=wanted)
        large = await cluster.sh("mkdir out; yes | head -c 5000 > out/a; ln -s /etc/passwd out/b", results=wanted)
        status = await cluster.finished(done)
        assert status.get("results") == [{"name": "a", "value": "wörd"}], status
        status = await cluster.finished(large)
        assert status["attempts"][-1]["reason"] == "ArtifactTooLarge"


async def test_a_workspace_is_there_for_the_next_task(cluster: Cluster) -> None:
    await cluster.create(
        CLAIMS,
        "PersistentVolumeClaim",
        "remit-workspace-strange",
        {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}},
    )
    rules = {"volumes": {"workspaces": [{"names": ["*"], "maxSize": "64Mi"}]}}
    await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": rules})
    where: dict[str, Any] = {"volumeMounts": [{"name": "w", "mountPath": "/w", "access": "ReadWrite"}]}

    def named(name: str) -> dict[str, Any]:
        return {**where, "volumes": [{"name": "w", "workspace": {"name": name, "size": "16Mi"}}]}

    async with cluster.operator(storage_class=cluster.namespace):
        with _disk(cluster) as disk:
            await cluster.kube.create(VOLUMES, None, disk)
            try:
                first = await cluster.sh("echo kept > /w/file; ls -a /w", **named("cache"))
                assert (await cluster.finished(first))["phase"] == "Succeeded"
                second = await cluster.sh("cat /w/file", **named("cache"))
                status = await cluster.finished(second)
                assert status["output"]["stdoutTail"] == "kept\n"
                assert await cluster.left(CLAIMS, "remit-workspace-cache")
            finally:
                await cluster.kube.delete(VOLUMES, None, disk["metadata"]["name"])
        status = await cluster.finished(await cluster.sh("true", **named("strange")))
        assert "PersistentVolumeClaim remit-workspace-strange that Remit did not make" in status["message"]


async def test_one_task_at_a_time_writes_to_a_workspace_also_after_a_restart(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator also removes the workspace when its time to live is over."""
    monkeypatch.setattr(waiting, "QUEUED_IS_WORTH_A_WRITE", 0.2)
    rules = {"volumes": {"workspaces": [{"names": ["*"], "maxSize": "16Mi"}]}}
    await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": rules})
    where: dict[str, Any] = {"volumeMounts": [{"name": "w", "mountPath": "/w", "access": "ReadWrite"}]}
    cache = {"name": "cache", "ttlSecondsAfterLastUse": 0}
    where["volumes"] = [{"name": "w", "workspace": cache}]
    with _disk(cluster) as disk:
        folder = Path(disk["spec"]["hostPath"]["path"])
        await cluster.kube.create(VOLUMES, None, disk)
        try:
            async with cluster.operator(storage_class=cluster.namespace):
                script = "until [ -e /w/go ]; do sleep 0.1; done; echo first >>/w/log"
                first = await cluster.sh(script, **where)
                await cluster.running(first)
            async with cluster.operator(storage_class=cluster.namespace):
                second = await cluster.sh("echo second >>/w/log; cat /w/log", **where)
                waits = await cluster.until(second, lambda status: status.get("phase") == "Queued")
                assert f"task {first} is writing to workspace cache" in waits["message"]
                (folder / "go").touch()
                assert (await cluster.finished(second))["output"]["stdoutTail"] == "first\nsecond\n"
                await cluster.gone(CLAIMS, "remit-workspace-cache")
        finally:
            await cluster.kube.delete(VOLUMES, None, disk["metadata"]["name"])


@contextlib.contextmanager
def _disk(cluster: Cluster) -> Iterator[Object]:
    """Provides a volume on this machine, which is also the node."""
    with tempfile.TemporaryDirectory(prefix="remit-volume-") as folder:
        Path(folder).chmod(0o777)
        yield {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": cluster.namespace},
            "spec": {
                "capacity": {"storage": "16Mi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": cluster.namespace,
                "hostPath": {"path": folder},
            },
        }


@pytest.mark.parametrize("example", AS_JOBS)
async def test_an_example_ends_as_a_job_as_elsewhere(cluster: Cluster, example: str) -> None:
    async with cluster.operator(image=clusters.usual_image()):
        ends = [await cluster.finished(name) for name in await _applied(cluster, example)]
    assert [_told(status) for status in ends] == AS_JOBS[example]


@pytest.mark.parametrize("example", NOT_AS_JOBS)
async def test_an_example_that_a_job_cannot_be_gives_the_reason(cluster: Cluster, example: str) -> None:
    async with cluster.operator(image=clusters.usual_image(), docker_host="off"):
        names = await _applied(cluster, example)
        status = await cluster.finished(names[0])
    assert (status["phase"], NOT_AS_JOBS[example] in status["message"]) == ("Failed", True), status["message"]


async def _applied(cluster: Cluster, example: str) -> list[str]:
    """Applies an example and returns the names of its tasks."""
    tasks = []
    (path,) = EXAMPLES.glob(f"{example}-*.yaml")
    for each in filter(None, yaml.safe_load_all(path.read_text())):
        await cluster.kube.create(KINDS[each["kind"]], cluster.namespace, each)
        if each["kind"] == "ExecutionTask":
            tasks.append(each["metadata"]["name"])
    return tasks


def _told(status: dict[str, Any]) -> tuple[str, str]:
    said = (status.get("output") or {}).get("stdoutTail", "")
    return status["attempts"][-1]["reason"], said.strip("\n\N{REPLACEMENT CHARACTER}")


async def test_where_networks_are_not_held_none_is_refused(cluster: Cluster) -> None:
    async with cluster.operator(accept_unenforced_network=False):
        none, host = await cluster.sh("true"), await cluster.sh("true", network="host")
        status = await cluster.finished(none)
        if status["phase"] != "Succeeded":  # the network of the node does not enforce NetworkPolicies
            assert status["attempts"][-1]["reason"] == "SandboxUnavailable"
            assert "a pod that a NetworkPolicy allows no connection could connect" in status["message"]
        else:
            assert status["sandbox"]["limits"]["network"] == "NetworkPolicy remit-network-none"
        assert (await cluster.finished(host))["phase"] == "Succeeded"


async def test_objects_of_other_users_do_not_change_what_runs(cluster: Cluster) -> None:
    """The names of the operator's own objects can be guessed by any user."""
    name = Launcher.load(cluster.settings.launchers).name
    evil = {"immutable": True, "stringData": {"launch": "#!/bin/sh\necho evil"}}
    await cluster.create(SECRETS, "Secret", name, evil)
    held = {"metadata": {"finalizers": ["example.com/stay"]}}
    await cluster.kube.patch(SECRETS, cluster.namespace, name, held)
    async with cluster.operator():
        status = await cluster.finished(await cluster.sh("echo ours"))
        assert (status["phase"], f"Secret {name} of namespace" in status["message"]) == ("Failed", True), status
        await cluster.kube.patch(SECRETS, cluster.namespace, name, {"metadata": {"finalizers": None}})
        task = await cluster.sh("until [ -e /tmp/go ]; do sleep 0.1; done; echo ours")
        pod = await cluster.running(task)
        labels = {key: value for key, value in pod["metadata"]["labels"].items() if "remit" in f"{key}{value}"}
        forged = {**pod["spec"], "containers": [{**pod["spec"]["containers"][0], "env": [], "name": "task"}]}
        body = {"metadata": {"name": "forged", "labels": labels}, "spec": forged}
        await cluster.kube.create(PODS, cluster.namespace, {**body, "apiVersion": "v1", "kind": "Pod"})
        await cluster.kube.delete(PODS, cluster.namespace, "forged")
        await _execute(pod, "touch", "/tmp/go")
        status = await cluster.finished(task)
        assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "ours\n")


@pytest.mark.parametrize("known", [True, False])
async def test_a_job_that_another_user_put_in_place_of_ours_is_not_adopted(
    cluster: Cluster, tmp_path: Path, known: bool
) -> None:
    """The Job is replaced while no operator runs, and the operator's records are lost. The replacement runs the same
    program, with a network if the uid of the original Job is not known."""
    async with cluster.operator():
        name = await cluster.sh("sleep 600", retry={"onInterruption": "Fail"})
        await cluster.running(name)
        status = await cluster.until(name, lambda status: status["attempts"][0].get("jobUID") if status else None)
    job = f"remit-{status['attempts'][0]['id']}"
    ours = await cluster.kube.get(JOBS, cluster.namespace, job)
    assert status["attempts"][0]["jobUID"] == ours["metadata"]["uid"]
    await cluster.kube.discard(JOBS, cluster.namespace, job, uid=ours["metadata"]["uid"])
    await cluster.gone(JOBS, job)
    forged = _copy(ours)
    if not known:
        (attempt,) = status["attempts"]
        without = {key: value for key, value in attempt.items() if key != "jobUID"}
        await cluster.kube.patch(
            TASKS, cluster.namespace, name, {"status": {"attempts": [without]}}, subresource="status"
        )
        del forged["spec"]["template"]["metadata"]["labels"]["remit.dev/network"]
    await cluster.kube.create(JOBS, cluster.namespace, forged)
    async with cluster.operator(state_dir=tmp_path / "other"):
        status = await cluster.finished(name)
        assert [each["reason"] for each in status["attempts"]] == ["Interrupted"], status
        await cluster.gone(JOBS, job)


def _copy(job: Object) -> Object:
    """Returns a copy of a Job that any reader of it could create again, without its uid."""
    metadata = {key: job["metadata"][key] for key in ("name", "labels", "annotations", "ownerReferences")}
    spec = {key: value for key, value in job["spec"].items() if key not in ("selector", "template")}
    template = job["spec"]["template"]
    labels = {key: value for key, value in template["metadata"]["labels"].items() if "job" not in key}
    own = {key: value for key, value in labels.items() if "controller-uid" not in key}
    spec["template"] = {"metadata": {"labels": own}, "spec": template["spec"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


async def test_a_job_that_another_user_copied_for_the_next_attempt_is_not_adopted(cluster: Cluster) -> None:
    """The copy runs what the next attempt would run."""
    retry = {"maxRetries": 1, "backoff": {"initialSeconds": 10, "jitter": 0}}
    async with cluster.operator():
        name = await cluster.sh("until [ -e /tmp/go ]; do sleep 0.1; done; exit 1", retry=retry)
        pod = await cluster.running(name)
        first = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        ours = _copy(await cluster.kube.get(JOBS, cluster.namespace, first))
        assert first.endswith("-1")
        variable = '"name": "REMIT_ATTEMPT", "value": "{}"'
        text = json.dumps(ours).replace(first.removeprefix("remit-"), f"{first.removeprefix('remit-')[:-1]}2")
        assert variable.format(1) in text
        forged = json.loads(text.replace(variable.format(1), variable.format(2)))
        await _execute(pod, "touch", "/tmp/go")
        await cluster.until(name, lambda status: status.get("phase") == "Backoff")
        await cluster.kube.create(JOBS, cluster.namespace, forged)
        status = await cluster.finished(name)
        assert [each["reason"] for each in status["attempts"]] == ["ExitCode", "BackendError"], status
        assert f"has a Job {forged['metadata']['name']} that Remit did not make" in status["message"]
        await cluster.gone(JOBS, forged["metadata"]["name"])


async def test_a_job_that_another_user_made_for_the_next_attempt_is_not_adopted(cluster: Cluster) -> None:
    retry = {"maxRetries": 1, "backoff": {"initialSeconds": 10, "jitter": 0}}
    async with cluster.operator():
        task = await cluster.sh("exit 1", retry=retry)
        first = await cluster.until(task, lambda status: truth(status, "Finished") or status.get("attemptCount") == 1)
        found = await cluster.kube.get(TASKS, cluster.namespace, task)
        owner = {"apiVersion": found["apiVersion"], "kind": "ExecutionTask", "name": task, "controller": True}
        owner["uid"] = found["metadata"]["uid"]
        name = f"remit-{first['attempts'][0]['id'].removesuffix('-1')}-2"
        labels = {"remit.dev/attempt": name.removeprefix("remit-"), "app.kubernetes.io/managed-by": "remit"}
        pod = {
            "restartPolicy": "Never",
            "containers": [{"name": "task", "image": cluster.settings.image, "command": ["sh", "-c", "echo o forged"]}],
        }
        metadata = {"name": name, "labels": labels, "ownerReferences": [owner]}
        body = {"spec": {"template": {"metadata": {"labels": labels}, "spec": pod}}, "metadata": metadata}
        await cluster.kube.create(JOBS, cluster.namespace, {"apiVersion": "batch/v1", "kind": "Job", **body})
        status = await cluster.finished(task)
        assert [each["reason"] for each in status["attempts"]] == ["ExitCode", "BackendError"]
        assert f"has a Job {name} that Remit did not make" in status["message"]
        assert not await cluster.left(JOBS, name)


ARTIFACTS = {"volumes": {"artifacts": {"maxBytes": "64Mi"}}}


async def test_files_are_kept_byte_for_byte(cluster: Cluster) -> None:
    await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": ARTIFACTS})
    script = (
        "mkdir -p out/sub; printf 'o forged\\n= {}' >out/sub/f; ln -s /etc/passwd out/link; mkfifo out/pipe; exit $1"
    )
    script = f"set -- ${{CODE:-0}}; {script}"
    wanted = [
        {"name": "all", "path": "out/**"},
        {"name": "log", "path": "out/sub/f", "when": "Always", "maxBytes": "1Ki"},
        {"name": "none", "path": "none", "optional": True},
    ]
    async with cluster.operator() as operator:
        done = await cluster.sh(script, artifacts=wanted)
        failed = await cluster.sh(script, artifacts=wanted, env=[{"name": "CODE", "value": "3"}])
        large = await cluster.sh("head -c 2000 /dev/zero >f", artifacts=[{"name": "f", "path": "f", "maxBytes": "1Ki"}])
        missing = await cluster.sh("true", artifacts=[{"name": "f", "path": "f"}])
        much = await cluster.sh("true", artifacts=[{"name": "f", "path": "f", "maxBytes": "65Mi"}])
        late = await cluster.sh(
            "trap '' TERM; echo begun >log; sleep 600 & wait; wait",
            artifacts=[{"name": "log", "path": "log", "when": "Always"}],
            timeoutSeconds=10,
        )
        ends = {name: await cluster.finished(name) for name in (done, failed, large, missing, much, late)}
        assert [(each["name"], each["files"], each["bytes"]) for each in ends[done]["artifacts"]] == [
            ("all", 1, 13),
            ("log", 1, 13),
        ], ends[done]
        assert [each["name"] for each in ends[failed]["artifacts"]] == ["log"]
        assert [ends[name]["attempts"][-1]["reason"] for name in (failed, large, missing, late)] == [
            "ExitCode",
            "ArtifactTooLarge",
            "ArtifactMissing",
            "Timeout",
        ]
        assert "spec.artifacts[f].maxBytes: a Job keeps at most 64Mi" in ends[much]["message"]
        assert [(each["name"], each["bytes"]) for each in ends[late]["artifacts"]] == [("log", 6)]
        assert _content(operator, cluster, done, "all") == {"sub/f": b"o forged\n= {}"}


def _content(operator: Operator, cluster: Cluster, task: str, name: str) -> dict[str, bytes]:
    """Returns the files of an artifact."""
    assert operator.runner.folders is not None
    store, files = operator.runner.folders.artifacts, {}
    artifact = store.find(cluster.namespace, task, name)
    for each in artifact.files if artifact else ():
        with store.open(each) as file:
            files[each.path] = file.read()
    return files


@pytest.mark.parametrize("mebibytes", [20])
async def test_a_large_file_arrives_whole(cluster: Cluster, mebibytes: int) -> None:
    """The kubelet rotates the log meanwhile."""
    await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": ARTIFACTS})
    async with cluster.operator() as operator:
        name = await cluster.sh(
            f"head -c {mebibytes << 20} /dev/urandom >f; sha256sum f", artifacts=[{"name": "f", "path": "f"}]
        )
        status = await cluster.finished(name)
        assert status["phase"] == "Succeeded", status
        content = _content(operator, cluster, name, "f")["f"]
        assert status["output"]["stdoutTail"] == f"{hashlib.sha256(content).hexdigest()}  f\n"


async def test_an_operator_that_comes_back_collects(cluster: Cluster) -> None:
    """The previous operator stopped while files were transferred."""
    await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": ARTIFACTS})
    async with cluster.operator():
        wanted = [{"name": "f", "path": "f"}]
        name = await cluster.sh("head -c 20971520 /dev/urandom >f; sha256sum f", artifacts=wanted)
        pod = await cluster.running(name)
        await _tells_files(cluster, pod)
    async with cluster.operator() as operator:
        status = await cluster.finished(name)
        assert status["attemptCount"] == 1
        # The node may have rotated the beginning of the log away, in which the output is, and of which the previous
        # operator kept the files.
        if status["phase"] == "Succeeded":
            content = _content(operator, cluster, name, "f")["f"]
            line = f"{hashlib.sha256(content).hexdigest()}  f\n"
            lost = f"{len(line)} bytes of its output were rotated away on the node"
            assert status["output"].get("stdoutTail") == (None if lost in status["message"] else line)
        else:
            assert status["attempts"][0]["reason"] == "ArtifactUnreadable"
            assert "did not arrive" in status["message"]
            assert _content(operator, cluster, name, "f") == {}


async def _tells_files(cluster: Cluster, pod: Object) -> None:
    """Waits until the launcher transfers files."""
    where = PODS.path(cluster.namespace, pod["metadata"]["name"], "log")
    said = bytearray()
    async with clusters.in_time(PATIENCE, cluster.namespace, lambda: f"no files were told: {said[-2000:]!r}"):
        async for chunk in cluster.kube.stream(where, params={"follow": "true"}, silence_seconds=PATIENCE):
            said += chunk
            if b"\nb 0 9 " in said:
                return


async def test_a_pod_that_goes_while_it_is_collected_leaves_nothing(cluster: Cluster) -> None:
    await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": ARTIFACTS})
    async with cluster.operator() as operator:
        name = await cluster.sh("head -c 62914560 /dev/zero >f; echo done", artifacts=[{"name": "f", "path": "f"}])
        pod = await cluster.running(name)
        await _tells_files(cluster, pod)
        await cluster.kube.delete(PODS, cluster.namespace, pod["metadata"]["name"])
        status = await cluster.finished(name)
        assert (status["attempts"][0]["reason"], status["attemptCount"]) == ("ArtifactUnreadable", 1), status
        assert "completed, but what it left could not be kept: a part of it did not arrive" in status["message"]
        assert status["output"]["stdoutTail"] == "done\n"
        assert (status.get("artifacts"), _content(operator, cluster, name, "f")) == (None, {})


async def test_an_artifact_is_there_for_the_next_task(cluster: Cluster) -> None:
    await cluster.kube.patch(POLICIES, cluster.namespace, "sh", {"spec": ARTIFACTS})
    where = {"volumeMounts": [{"name": "a", "mountPath": "/in"}, {"name": "a", "mountPath": "/one", "subPath": "bin"}]}
    async with cluster.operator() as operator:
        script = (
            "mkdir -p d/sub d/bin; for i in 1 2 3; do head -c 600000 /dev/urandom >d/sub/$i; done; echo hi >d/sub/t"
        )
        script += "; printf '#!/bin/sh\\necho run' >d/bin/x; chmod +x d/bin/x; head -c 950000 /dev/zero >large"
        kept = [{"name": "d", "path": "d"}, {"name": "large", "path": "large"}]
        first = await cluster.sh(script, artifacts=kept)
        assert (await cluster.finished(first))["phase"] == "Succeeded"
        content = _content(operator, cluster, first, "d")
        volumes = [{"name": "a", "artifact": {"task": first, "name": "d"}}]
        script = (
            "cat; find /in | sort; /in/bin/x; ls /one; cat /in/sub/1 /in/sub/2 /in/sub/3 | sha256sum; ! touch /in/y"
        )
        second = await cluster.sh(
            script, volumes=volumes, stdinFrom={"volume": {"name": "a", "path": "sub/t"}}, **where
        )
        status = await cluster.finished(second)
        assert status["phase"] == "Succeeded", status
        digest = hashlib.sha256(b"".join(content[f"sub/{number}"] for number in (1, 2, 3))).hexdigest()
        listing = "\n".join(["/in", "/in/bin", "/in/bin/x", "/in/sub", *(f"/in/sub/{n}" for n in ("1", "2", "3", "t"))])
        assert status["output"]["stdoutTail"] == f"hi\n{listing}\nrun\nx\n{digest}  -\n"
        assert "Read-only file system" in status["output"]["stderrTail"]
        assert status["volumes"][0]["digest"].startswith("sha256:")
        job = f"remit-{status['attempts'][0]['id']}"
        for number in range(3):
            await cluster.gone(SECRETS, f"{job}-files-{number}")
        third = await cluster.sh(
            "true", volumes=[{"name": "a", "artifact": {"task": first, "name": "large"}}],
            volumeMounts=[{"name": "a", "mountPath": "/in"}],
        )  # fmt: skip
        assert "a Job mounts files of at most" in (await cluster.finished(third))["message"]
        fourth = await cluster.sh("cat", volumes=volumes, stdinFrom={"volume": {"name": "a", "path": "sub"}})
        status = await cluster.finished(fourth)
        assert status["attempts"][-1]["reason"] == "StartFailed"
        assert "its input cannot be read: sub: Is a directory" in status["message"]
