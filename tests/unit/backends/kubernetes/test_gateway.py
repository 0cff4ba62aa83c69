"""Tests an attempt with a restricted network and its gateway, which are started, lost, adopted and ended together."""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from jobservers import JobServer
from policies import policy
from remit.backends.base import AttemptRequest, Command, Handle, Stream, TaskReference
from remit.backends.egress.gatewayconfig import GatewayConfig
from remit.backends.egress.gatewayrecords import GatewayRecord
from remit.backends.egress.usage import NetworkUse, UsageCounter
from remit.backends.kubernetes.backend import KubernetesBackend
from remit.backends.kubernetes.gateway import concluded
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.outcome import INTERRUPTIONS, ExitReason, Outcome
from remit.errors import ApiError, BackendError, InvalidInput, SandboxUnavailable
from remit.policy.hosts import Destination
from remit.sandbox import Confinement, Limits

LAUNCHER = Launcher("amd64", b"program")
REQUEST = AttemptRequest(
    id="uid-1",
    command=Command(("/bin/app",), ""),
    confinement=Confinement(limits=Limits(), network="restricted"),
    timeout_seconds=30,
    grace_seconds=1,
    egress=(policy("p", "data", networks=["restricted"], egress={"allow": [{"hosts": ["api.test"]}]}).egress,),
    image="base:1",
    task=TaskReference("data", "nightly", "uid"),
)
V1, BATCH = "/api/v1/namespaces/data", "/apis/batch/v1/namespaces/data"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/data/networkpolicies"
JOB, GATEWAY = f"{BATCH}/jobs/remit-uid-1", f"{BATCH}/jobs/remit-uid-1-egress"
POD, GATEWAY_POD = f"{V1}/pods/remit-uid-1-x", f"{V1}/pods/remit-uid-1-egress-x"
OWN = {
    JOB,
    GATEWAY,
    POD,
    GATEWAY_POD,
    f"{V1}/secrets/remit-uid-1",
    f"{V1}/secrets/remit-uid-1-egress",
    f"{POLICIES}/remit-uid-1",
    f"{POLICIES}/remit-uid-1-egress",
}
SHARED = f"{POLICIES}/remit-network-restricted"
STAMP = b"2026-01-01T00:00:0%dZ "
END = (
    b'= {"exitCode":%d,"signal":0,"stdoutBytes":0,"stderrBytes":0,"cpuMicroseconds":0,"maxMemoryBytes":0,'
    b'"oomKills":0,"throttledMicroseconds":0,"maxTasks":2,"readBlocks":0,"writtenBlocks":0,"error":"","errno":0}\n'
)
SECONDS = 15


class Heard:
    def write(self, stream: Stream, chunk: bytes) -> None:
        pass


def use(sent: int) -> NetworkUse:
    counter = UsageCounter()
    counter.connected(Destination.parse("api.test:443")).sent_bytes += sent
    counter.denied(Destination.parse("evil.test:443"), "policy says no")
    return counter.use


class Cluster:
    """Runs gateways and attempts whose output and ends a test determines."""

    def __init__(self, server: JobServer) -> None:
        self.server = server
        self.gateway: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        """The state of the container of each gateway that starts."""
        self.says = GatewayRecord(NetworkUse()).line()
        self.seen: dict[str, Any] = {}
        """The objects that existed when the attempt's Job was created."""
        self.task = asyncio.Event()
        server.created, server.before = self._created, self._before
        self.refuses: dict[tuple[str, str], list[ApiError]] = {}

    def _before(self, method: str, path: str) -> None:
        if left := self.refuses.get((method, path)):
            raise left.pop()
        if method == "DELETE" and path == GATEWAY:  # the gateway's pod receives the signal
            self._say(GatewayRecord(use(99), over=True).line())

    def _say(self, line: bytes) -> None:
        name = GATEWAY_POD.rsplit("/", 1)[1]
        self.server.logs[name] = self.server.logs.get(name, b"") + line

    def _created(self, path: str, obj: dict[str, Any]) -> None:
        if path == GATEWAY and GATEWAY_POD not in self.server.objects:
            self._say(b"a library says hello\n" + self.says)
            self.put(GATEWAY_POD, obj["metadata"]["uid"], "gateway", self.gateway)
        elif path == JOB and POD not in self.server.objects:
            self.seen = copy.deepcopy(self.server.objects)
            self.put(POD, obj["metadata"]["uid"], "task", {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
            self.task.set()

    def put(self, path: str, owner: str, container: str, state: dict[str, Any], **status: Any) -> None:
        attempt = "uid-1" if path == POD else "uid-1-egress"
        metadata = {
            "name": path.rsplit("/", 1)[1],
            "namespace": "data",
            "labels": {"app.kubernetes.io/managed-by": "remit", "remit.dev/attempt": attempt},
            "ownerReferences": [{"kind": "Job", "uid": owner, "controller": True}],
        }
        if path in self.server.objects:
            metadata["uid"] = self.server.objects[path]["metadata"]["uid"]
        own = {"phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [{"name": container, "state": state}]}
        self.server.put(path, {"metadata": metadata, "spec": {}, "status": own | status})

    def end_task(self, code: int = 0) -> None:
        self.server.logs["remit-uid-1-x"] = STAMP % 2 + END % code
        state = {"terminated": {"exitCode": code, "reason": "x"}}
        self.put(POD, self.server.objects[JOB]["metadata"]["uid"], "task", state)

    def kill_gateway(self, reason: str = "OOMKilled") -> None:
        state = {"terminated": {"exitCode": 137, "reason": reason}}
        self.put(GATEWAY_POD, self.server.objects[GATEWAY]["metadata"]["uid"], "gateway", state, phase="Failed")


@pytest.fixture
def server() -> JobServer:
    return JobServer()


@pytest.fixture
def cluster(server: JobServer) -> Cluster:
    return Cluster(server)


@pytest.fixture
async def backend(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesBackend]:
    backend = made(server, monkeypatch)
    yield backend
    await backend.close()


def made(
    server: JobServer, monkeypatch: pytest.MonkeyPatch, *, holds: bool = True, **options: Any
) -> KubernetesBackend:
    backend = KubernetesBackend(server, LAUNCHER, **{"remit_image": "remit:1"} | options)

    async def isolated(namespace: str, image: str, network: str) -> bool:
        assert (namespace, image, network) == ("data", "base:1", "restricted")
        return holds

    monkeypatch.setattr(backend, "_is_isolated", isolated)
    return backend


@pytest.fixture
def cancel() -> asyncio.Event:
    return asyncio.Event()


async def run(backend: KubernetesBackend, cancel: asyncio.Event, request: AttemptRequest = REQUEST) -> Outcome:
    async with asyncio.timeout(SECONDS):
        return await backend.run(request, Heard(), cancel=cancel)


async def begun(cluster: Cluster, running: asyncio.Task[Outcome]) -> None:
    """Waits until the attempt's own pod exists."""
    waiting = asyncio.ensure_future(cluster.task.wait())
    await asyncio.wait({waiting, running}, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    assert waiting.done(), running


async def left_running(cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event) -> None:
    """An operator stops while its attempt continues."""
    running = asyncio.create_task(run(backend, cancel))
    await begun(cluster, running)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_program_begins_behind_its_gateway_and_all_of_it_is_told(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    running = asyncio.create_task(run(backend, cancel))
    await begun(cluster, running)
    assert cluster.seen.keys() >= (OWN - {JOB, POD}) | {SHARED}, "there before the program"
    data = cluster.seen[f"{V1}/secrets/remit-uid-1"]["data"]
    given = {base64.b64decode(value).decode() for value in data.values()}
    config = GatewayConfig.load(
        base64.b64decode(cluster.seen[f"{V1}/secrets/remit-uid-1-egress"]["data"]["config.json"])
    )
    assert given == {f"http://attempt:{config.token}@10.1.2.3:3128", "localhost,127.0.0.1,::1"}
    assert (config.egress, len(config.token) >= 32) == (REQUEST.egress, True)
    cluster.end_task()
    outcome = await running
    assert (outcome.reason, outcome.network) == (ExitReason.COMPLETED, use(99))
    assert outcome.enforced_by["network"].startswith("NetworkPolicy remit-network-restricted")
    await backend.forget(REQUEST)
    assert not OWN & cluster.server.objects.keys()
    assert SHARED in cluster.server.objects, "so that nothing opens while a pod is still going"


async def test_without_an_image_for_gateways_it_is_refused(
    server: JobServer, cancel: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = made(server, monkeypatch, remit_image="")
    with pytest.raises(SandboxUnavailable, match="--remit-image"):
        await run(backend, cancel)
    assert server.objects == {}


async def test_where_nothing_enforces_it_the_same_is_asked_for_and_status_says_so(
    cluster: Cluster, cancel: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes an attempt that is adopted later."""
    first, second = (made(cluster.server, monkeypatch, holds=False) for _ in range(2))
    await left_running(cluster, first, cancel)
    assert cluster.seen.keys() >= (OWN - {JOB, POD}) | {SHARED}
    cluster.end_task()
    outcome = await adopted(second, cancel)
    assert outcome
    assert (outcome.reason, outcome.enforced_by["network"]) == (ExitReason.COMPLETED, "not enforced")
    await first.close()
    await second.close()


async def adopted(backend: KubernetesBackend, cancel: asyncio.Event, recorded: Handle | None = None) -> Outcome | None:
    async with asyncio.timeout(SECONDS):
        return await backend.adopt(REQUEST, Heard(), cancel=cancel, on_found=lambda handle: None, recorded=recorded)


async def test_the_next_operator_takes_up_both(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_running(cluster, backend, cancel)
    assert cluster.server.objects.keys() >= OWN, "an operator that stops leaves them alone"
    second = made(cluster.server, monkeypatch)
    found = asyncio.create_task(adopted(second, cancel))
    cluster.end_task()
    outcome = await found
    assert outcome
    assert (outcome.reason, outcome.network) == (ExitReason.COMPLETED, use(99))
    await second.forget(REQUEST)
    assert not OWN & cluster.server.objects.keys()
    await second.close()


async def test_one_without_a_gateway_is_not_taken_up(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another gateway with its name does not count."""
    await left_running(cluster, backend, cancel)
    stranger = copy.deepcopy(cluster.server.objects[GATEWAY])
    cluster.server.take(GATEWAY_POD)
    cluster.server.take(GATEWAY)
    del stranger["metadata"]["uid"]
    cluster.server.put(GATEWAY, stranger)
    second = made(cluster.server, monkeypatch)
    outcome = await adopted(second, cancel)
    assert outcome
    assert outcome.reason == ExitReason.GATEWAY_LOST
    assert JOB not in cluster.server.objects
    await second.close()


@pytest.mark.parametrize("how", ["killed", "deleted", "job"])
async def test_a_gateway_that_is_lost_ends_the_attempt(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event, how: str
) -> None:
    """The attempt ends with a separate reason, as an interruption, because the program may have had effects."""
    running = asyncio.create_task(run(backend, cancel))
    await begun(cluster, running)
    if how == "killed":
        cluster.kill_gateway()
    elif how == "deleted":
        cluster.server.take(GATEWAY_POD)
    else:
        await cluster.server.request("DELETE", GATEWAY)
    outcome = await running
    assert outcome.reason == ExitReason.GATEWAY_LOST
    assert outcome.reason in INTERRUPTIONS
    assert ("OOMKilled" if how == "killed" else "its pod was deleted") in outcome.message
    assert JOB not in cluster.server.objects


@pytest.mark.parametrize(("lost", "cancelled"), [(None, False), ("OOMKilled", False), ("OOMKilled", True)])
def test_what_a_lost_gateway_explains(lost: str | None, cancelled: bool) -> None:
    def reason(before: ExitReason) -> str:
        return concluded(Outcome(before, "exited with code 7", 7), lost, cancelled=cancelled).reason

    blamed = ExitReason.GATEWAY_LOST if lost else None
    assert reason(ExitReason.EXIT_CODE) == (blamed or ExitReason.EXIT_CODE)
    assert reason(ExitReason.SIGNALED) == (blamed or ExitReason.SIGNALED)
    assert reason(ExitReason.CANCELLED) == (ExitReason.CANCELLED if cancelled else blamed or ExitReason.CANCELLED)
    for own in (ExitReason.COMPLETED, ExitReason.TIMED_OUT, ExitReason.OOM_KILLED, ExitReason.EVICTED):
        assert reason(own) == own


async def test_a_program_that_failed_after_its_gateway_did_is_not_blamed(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    """This also holds if no watch has reported the gateway's end yet."""
    running = asyncio.create_task(run(backend, cancel))
    await begun(cluster, running)
    cluster.server.objects[GATEWAY_POD]["status"]["phase"] = "Failed"
    cluster.end_task(code=7)
    outcome = await running
    assert (outcome.reason, outcome.exit_code) == (ExitReason.GATEWAY_LOST, 7)
    assert "exited with code 7" in outcome.message


async def test_a_cancel_is_no_loss(cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event) -> None:
    running = asyncio.create_task(run(backend, cancel))
    await begun(cluster, running)
    cancel.set()
    outcome = await running
    assert (outcome.reason, outcome.network) == (ExitReason.CANCELLED, use(99))


async def test_a_gateway_that_does_not_begin_begins_no_program(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    cluster.gateway = {"terminated": {"exitCode": 1, "reason": "Error", "message": "the egress gateway cannot begin"}}
    cluster.says = b""
    with pytest.raises(BackendError, match="the egress gateway cannot begin"):
        await run(backend, cancel)
    assert not OWN & cluster.server.objects.keys()
    assert ("POST", f"{BATCH}/jobs") in cluster.server.requests
    assert not cluster.task.is_set()


async def test_a_gateway_whose_image_is_not_there_says_where_to_correct_that(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    cluster.gateway, cluster.says = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}, b""
    outcome = await run(backend, cancel)
    assert outcome.reason == ExitReason.IMAGE_PULL_FAILED
    assert outcome.message.startswith("its egress gateway: image ")
    assert "correct --remit-image" in outcome.message
    assert not cluster.task.is_set()


async def test_a_gateway_that_never_listens_is_waited_for_as_long_as_the_attempt_may_take(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    cluster.gateway, cluster.says = {"waiting": {"reason": "ContainerCreating"}}, b""
    outcome = await run(backend, cancel, replace(REQUEST, timeout_seconds=0.2))
    assert outcome.reason == ExitReason.TIMED_OUT
    assert "its egress gateway" in outcome.message
    assert not cluster.task.is_set()
    await backend.forget(REQUEST)
    assert not OWN & cluster.server.objects.keys()


async def test_what_an_operator_left_that_came_no_further_is_made_anew(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    """The token of the previous operator is not known any more."""
    left = {"uid": "uid", "controller": True}
    labels = {"app.kubernetes.io/managed-by": "remit", "remit.dev/attempt": "uid-1-egress"}
    for path in (GATEWAY, f"{V1}/secrets/remit-uid-1-egress"):
        name = path.rsplit("/", 1)[1]
        metadata = {"name": name, "uid": "old", "labels": labels, "ownerReferences": [left]}
        cluster.server.objects[path] = {"metadata": metadata, "data": {"config.json": "b2xk"}, "spec": {}}
    running = asyncio.create_task(run(backend, cancel))
    await begun(cluster, running)
    assert cluster.seen[GATEWAY]["metadata"]["uid"] != "old"
    assert cluster.seen[f"{V1}/secrets/remit-uid-1-egress"]["data"]["config.json"] != "b2xk"
    cluster.end_task()
    assert (await running).reason == ExitReason.COMPLETED


async def test_the_job_of_somebody_else_is_no_gateway(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    cluster.server.objects[GATEWAY] = {"metadata": {"name": "remit-uid-1-egress", "uid": "theirs"}, "spec": {}}
    with pytest.raises(BackendError, match="remit-uid-1-egress that Remit did not make"):
        await run(backend, cancel)
    assert GATEWAY in cluster.server.objects
    assert not cluster.task.is_set()


async def test_policies_that_somebody_made_beforehand_are_replaced(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    everything = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
    names = ("remit-uid-1", "remit-uid-1-egress", "remit-network-restricted")
    for name in names:
        cluster.server.objects[f"{POLICIES}/{name}"] = {"metadata": {"name": name, "uid": name}, "spec": everything}
    running = asyncio.create_task(run(backend, cancel))
    await begun(cluster, running)
    assert not [name for name in names if cluster.seen[f"{POLICIES}/{name}"]["spec"] == everything]
    cluster.end_task()
    await running


async def test_what_the_cluster_does_not_admit_says_so(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    cluster.refuses["POST", f"{BATCH}/jobs"] = [ApiError('admission webhook "x" denied the request', status=400)]
    outcome = await run(backend, cancel)
    assert outcome.reason == ExitReason.ADMISSION_REFUSED
    assert 'its egress gateway: the cluster does not admit it: admission webhook "x"' in outcome.message


async def test_what_is_ended_after_a_restart_leaves_nothing(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    await left_running(cluster, backend, cancel)
    assert await backend.recover(Handle(pid=0, start_time=0, boot_id="", container="remit-uid-1", namespace="data"))
    assert not OWN & cluster.server.objects.keys()


async def test_what_cannot_be_made_has_no_gateway(
    cluster: Cluster, backend: KubernetesBackend, cancel: asyncio.Event
) -> None:
    with pytest.raises(InvalidInput):
        await run(backend, cancel, replace(REQUEST, files={"/large": b"x" * (2 << 20)}))
    assert not OWN & cluster.server.objects.keys()
