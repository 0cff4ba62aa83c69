"""Tests that exactly the checked program runs, whatever other objects have the names of an attempt, which are easy to
guess."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from jobservers import JobServer
from remit.backends.base import AttemptRequest, Command, Handle, Stream, TaskReference
from remit.backends.kubernetes import attending
from remit.backends.kubernetes.attending import remove_job
from remit.backends.kubernetes.backend import KubernetesBackend
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.manifests import Secrets, job
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import ApiError, BackendError, RemitError
from remit.sandbox import Confinement, Limits

LAUNCHER = Launcher("amd64", b"program")
REQUEST = AttemptRequest(
    id="uid-1",
    command=Command(("/bin/echo", "x"), "", env={"KEY": "s3cret"}),
    confinement=Confinement(limits=Limits(), network="host"),
    timeout_seconds=30,
    grace_seconds=1,
    image="base:1",
    task=TaskReference("data", "nightly", "uid"),
)
V1, BATCH, NETWORK = "/api/v1/namespaces/data", "/apis/batch/v1/namespaces/data", "/apis/networking.k8s.io/v1"
JOB, SECRET = f"{BATCH}/jobs/remit-uid-1", f"{V1}/secrets/remit-uid-1"
POLICY = f"{NETWORK}/namespaces/data/networkpolicies/remit-network-none"
STAMP = b"2026-01-01T00:00:0%dZ "
END = (
    b'= {"exitCode":%d,"signal":0,"stdoutBytes":0,"stderrBytes":0,"cpuMicroseconds":0,"maxMemoryBytes":0,'
    b'"oomKills":0,"throttledMicroseconds":0,"maxTasks":2,"readBlocks":0,"writtenBlocks":0,"error":"","errno":0}\n'
)


class Heard:
    def __init__(self) -> None:
        self.said = b""

    def write(self, stream: Stream, chunk: bytes) -> None:
        self.said += chunk


def pod(name: str, owner: str = "", *, code: int | None = None, attempt: str = "uid-1") -> dict[str, Any]:
    """Returns a pod with the labels of the attempt and the Job `owner`, running or ended with `code`."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "data",
        "labels": {"app.kubernetes.io/managed-by": "remit", "remit.dev/attempt": attempt},
    }
    if owner:
        metadata["ownerReferences"] = [{"kind": "Job", "name": f"remit-{attempt}", "uid": owner, "controller": True}]
    state: dict[str, Any] = {"running": {}} if code is None else {"terminated": {"exitCode": code, "reason": "x"}}
    status = {"phase": "Running", "containerStatuses": [{"name": "task", "image": "base:1", "state": state}]}
    return {"metadata": metadata, "spec": {}, "status": status}


class Controller:
    """Creates a pod for each Job, which prints `said` and ends with `code`, or continues to run."""

    def __init__(self, server: JobServer, said: bytes = b"ours", code: int | None = 0) -> None:
        self.server, self.said, self.code = server, said, code
        server.created = self.see

    def see(self, path: str, obj: dict[str, Any]) -> None:
        if "/jobs/" in path:
            name, uid = f"{obj['metadata']['name']}-x", obj["metadata"]["uid"]
            attempt = obj["metadata"]["labels"]["remit.dev/attempt"]
            end = b"" if self.code is None else STAMP % 2 + END % self.code
            self.server.logs[name] = STAMP % 1 + b"o " + self.said + b"\n" + end
            self.server.put(f"{V1}/pods/{name}", pod(name, uid, code=self.code, attempt=attempt))

    def end(self) -> None:
        """Ends the attempt's pod if it still runs."""
        path = f"{V1}/pods/remit-uid-1-x"
        if path in self.server.objects and b"=" not in self.server.logs["remit-uid-1-x"]:
            self.server.logs["remit-uid-1-x"] += STAMP % 2 + END % 0
            self.server.put(path, pod("remit-uid-1-x", self.server.objects[JOB]["metadata"]["uid"], code=0))


@pytest.fixture
def server() -> JobServer:
    return JobServer()


@pytest.fixture
async def backend(server: JobServer) -> AsyncIterator[KubernetesBackend]:
    backend = KubernetesBackend(server, LAUNCHER, accept_unenforced_network=True)
    yield backend
    await backend.close()


async def ran(backend: KubernetesBackend, request: AttemptRequest = REQUEST) -> tuple[Outcome, bytes]:
    heard = Heard()
    async with asyncio.timeout(60):
        return await backend.run(request, heard, cancel=asyncio.Event()), heard.said


async def ran_or_refused(backend: KubernetesBackend, request: AttemptRequest = REQUEST) -> None:
    """Runs the attempt, and asserts that it does not report success."""
    with contextlib.suppress(RemitError):
        outcome, said = await ran(backend, request)
        assert (outcome.reason, said) != (ExitReason.COMPLETED, b"ours\n")


async def test_whether_the_network_is_kept_from_remits_own_program_is_not_tried(server: JobServer) -> None:
    """The restriction applies nevertheless, and is not reported."""
    strict = KubernetesBackend(server, LAUNCHER)
    Controller(server)
    own = replace(REQUEST, confinement=Confinement(limits=Limits(), network="none"), own_program=True)
    outcome, said = await ran(strict, own)
    await strict.close()
    assert (outcome.reason, said) == (ExitReason.COMPLETED, b"ours\n")
    assert "network" not in outcome.enforced_by
    assert POLICY in server.objects
    assert [path for method, path in server.requests if method == "POST" and path.endswith("/jobs")] == [
        f"{BATCH}/jobs"
    ]
    (made,) = [obj for path, obj in server.objects.items() if path == JOB]
    assert made["spec"]["template"]["metadata"]["labels"]["remit.dev/network"] == "none"


async def test_it_runs(server: JobServer, backend: KubernetesBackend) -> None:
    Controller(server)
    outcome, said = await ran(backend)
    assert (outcome.reason, said) == (ExitReason.COMPLETED, b"ours\n")


def launcher_path() -> str:
    return f"{V1}/secrets/{LAUNCHER.name}"


def evil(path: str, **metadata: Any) -> dict[str, Any]:
    """Returns an object that another user may have created before."""
    data = {"launch" if path == launcher_path() else "env-0": base64.b64encode(b"evil").decode()}
    body: dict[str, Any] = {"data": data, "binaryData": data, "immutable": True, "spec": {"podSelector": {}}}
    return {**body, "metadata": {"name": path.rsplit("/", 1)[1], "namespace": "data", **metadata}}


async def _yes(namespace: str, image: str, network: str) -> bool:
    return True


NONE = replace(REQUEST, confinement=replace(REQUEST.confinement, network="none"))


@pytest.mark.parametrize("path", [launcher_path(), SECRET, POLICY])
async def test_what_somebody_made_beforehand_is_not_used(
    server: JobServer, backend: KubernetesBackend, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(path, evil(path))
    Controller(server)
    seen: dict[str, Any] = {}
    server.before = lambda method, at: seen.update(copy.deepcopy(server.objects)) if at.endswith("/jobs") else None
    monkeypatch.setattr(backend, "_is_isolated", _yes)
    outcome, _ = await ran(backend, REQUEST if path != POLICY else NONE)
    assert outcome.reason == ExitReason.COMPLETED
    assert b"evil" not in base64.b64decode(next(iter(seen[path].get("data", {}).values()), ""))
    assert seen[path].get("data", {}).get("env-0") in {None, base64.b64encode(b"s3cret").decode()}
    assert path != POLICY or seen[path]["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("path", [launcher_path(), SECRET])
async def test_what_somebody_made_beforehand_and_holds_on_to_is_not_used(
    server: JobServer, backend: KubernetesBackend, path: str
) -> None:
    """A finalizer prevents its deletion."""
    server.put(path, evil(path, finalizers=["evil.example/stay"]))
    Controller(server)
    with pytest.raises(RemitError, match=path.rsplit("/", 1)[1]):
        await ran(backend)
    assert JOB not in server.objects
    assert ("POST", f"{BATCH}/jobs") not in server.requests


async def test_a_launcher_that_could_be_changed_later_is_made_anew(
    server: JobServer, backend: KubernetesBackend
) -> None:
    server.put(launcher_path(), {**LAUNCHER.secret("data"), "immutable": False})
    Controller(server)
    await ran(backend)
    assert server.objects[launcher_path()]["immutable"] is True


async def test_the_launcher_is_read_once_and_made_anew_where_another_one_took_its_place(
    server: JobServer, backend: KubernetesBackend
) -> None:
    """The launcher is as large as a program, and each attempt needs it."""
    Controller(server)
    for number in range(3):
        await ran(backend, replace(REQUEST, id=f"uid-{number}"))
    assert server.partial == [launcher_path()] * 2
    assert server.requests.count(("GET", launcher_path())) == 3

    server.take(launcher_path())
    server.put(launcher_path(), evil(launcher_path()))
    await ran(backend, replace(REQUEST, id="uid-3"))
    assert server.objects[launcher_path()]["data"] == LAUNCHER.secret("data")["data"]
    server.take(launcher_path())
    await ran(backend, replace(REQUEST, id="uid-4"))
    assert server.objects[launcher_path()]["data"] == LAUNCHER.secret("data")["data"]


async def test_two_at_once_make_it_anew(server: JobServer, backend: KubernetesBackend) -> None:
    server.put(launcher_path(), evil(launcher_path()))
    Controller(server)
    both = [ran(backend, replace(REQUEST, id=f"uid-{number}")) for number in (3, 4)]
    requests = await asyncio.gather(*both, return_exceptions=True)
    assert not [each for each in requests if isinstance(each, BaseException)]


@pytest.mark.parametrize("plural", ["secrets", "jobs"])
async def test_a_conflict_over_a_quota_is_no_object_that_is_there(
    server: JobServer, backend: KubernetesBackend, plural: str
) -> None:
    """The server updates quotas with optimistic locking."""
    Controller(server)
    left = [1]

    def busy(method: str, path: str) -> None:
        if method == "POST" and path.endswith(plural) and left:
            left.pop()
            text = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'
            raise ApiError(text, status=409, reason="Conflict")

    server.before = busy
    outcome, _ = await ran(backend)
    assert outcome.reason == ExitReason.COMPLETED
    assert not left


def strange_job(owner: str = "", program: str = "/bin/evil") -> dict[str, Any]:
    """Returns another Job with the name of the attempt."""
    made = job(REQUEST, Secrets.of(REQUEST), LAUNCHER)
    made["spec"]["template"]["spec"]["containers"][0]["command"][-2:] = [program, "x"]
    made["metadata"]["ownerReferences"][0]["uid"] = owner
    return made


async def test_the_pod_of_somebody_else_tells_nothing(server: JobServer, backend: KubernetesBackend) -> None:
    """The other pod has all labels of the attempt, and was created first."""
    for name, owner in (("first", ""), ("second", "another-job")):
        server.put(f"{V1}/pods/{name}", pod(name, owner, code=0))
        server.logs[name] = STAMP % 1 + b"o forged\n" + STAMP % 2 + END % 0
    Controller(server, code=3)
    outcome, said = await ran(backend)
    assert (outcome.exit_code, said) == (3, b"ours\n")


@pytest.mark.parametrize("owner", ["", "uid"])
async def test_the_job_of_somebody_else_is_not_the_attempt(
    server: JobServer, backend: KubernetesBackend, owner: str
) -> None:
    """A Job that claims to belong to the task is removed; another one belongs to another user."""
    Controller(server, said=b"forged")
    server.put(JOB, strange_job(owner))
    with pytest.raises(BackendError, match="remit-uid-1"):
        await ran(backend)
    assert (JOB in server.objects) == (not owner)
    assert SECRET not in server.objects


async def test_an_answer_that_was_lost_is_not_missed(server: JobServer, backend: KubernetesBackend) -> None:
    controller = Controller(server)

    def lost(path: str, obj: dict[str, Any]) -> None:
        controller.see(path, obj)
        if "/jobs/" in path:
            server.created = controller.see
            raise ApiError("lost", status=503)

    server.created = lost
    outcome, said = await ran(backend)
    assert (outcome.reason, said) == (ExitReason.COMPLETED, b"ours\n")
    assert [method for method, path in server.requests if path == f"{BATCH}/jobs"].count("POST") == 2


@pytest.mark.parametrize("recorded", [True, False])
async def test_only_what_is_ours_is_taken_up(server: JobServer, recorded: bool) -> None:
    first, second = (KubernetesBackend(server, LAUNCHER) for _ in range(2))
    Controller(server, code=None)
    handles: list[Handle] = []
    running = asyncio.create_task(first.run(REQUEST, Heard(), cancel=asyncio.Event(), on_started=handles.append))
    async with asyncio.timeout(60):
        while JOB not in server.objects or len(handles) < 2:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    known = handles[-1] if recorded else None
    assert handles[-1].uid == server.objects[JOB]["metadata"]["uid"]
    assert await adopted(second, known) is not None
    server.objects.clear()
    Controller(server, said=b"forged")
    server.put(JOB, strange_job("uid"))
    assert await adopted(second, known) is None
    for backend in (first, second):
        await backend.close()


async def adopted(backend: KubernetesBackend, recorded: Handle | None) -> Outcome | None:
    cancel = asyncio.Event()
    async with asyncio.timeout(60):
        found = lambda handle: cancel.set()  # noqa: E731
        return await backend.adopt(REQUEST, Heard(), cancel=cancel, on_found=found, recorded=recorded)


async def test_other_limits_are_no_other_program(server: JobServer, backend: KubernetesBackend) -> None:
    """Policies may have changed since it was started."""
    Controller(server, code=None)
    confinement = replace(REQUEST.confinement, limits=Limits(memory_bytes=1 << 20))
    before = replace(REQUEST, timeout_seconds=999, confinement=confinement)
    server.put(JOB, job(before, Secrets.of(before), LAUNCHER))
    assert await adopted(backend, None) is not None


async def test_only_the_job_that_was_made_is_removed(server: JobServer) -> None:
    made = server.put(JOB, job(REQUEST, Secrets.of(REQUEST), LAUNCHER))
    server.take(JOB)
    server.put(JOB, strange_job("uid"))
    async with asyncio.timeout(60):
        assert not await remove_job(server, "data", "remit-uid-1", made["metadata"]["uid"])
    assert JOB in server.objects


async def test_a_job_that_comes_back_under_its_name_is_not_waited_for(server: JobServer) -> None:
    server.put(JOB, job(REQUEST, Secrets.of(REQUEST), LAUNCHER))

    def again(method: str, path: str) -> None:
        if method == "GET" and path == JOB and JOB not in server.objects:
            server.put(JOB, strange_job())

    server.before = again
    async with asyncio.timeout(60):
        assert await remove_job(server, "data", "remit-uid-1")


async def test_a_job_that_a_stranger_holds_is_over_when_its_pod_is(server: JobServer) -> None:
    held = job(REQUEST, Secrets.of(REQUEST), LAUNCHER)
    held["metadata"]["finalizers"] = ["evil.example/stay"]
    uid = server.put(JOB, held)["metadata"]["uid"]
    server.put(f"{V1}/pods/x", pod("x", uid, code=0))
    server.objects[f"{V1}/pods/x"]["status"]["phase"] = "Running"

    def ends(method: str, path: str) -> None:
        if server.objects[JOB]["metadata"].get("deletionTimestamp") and method == "GET" and path.endswith("/pods"):
            server.objects[f"{V1}/pods/x"]["status"]["phase"] = "Failed"

    server.before = ends
    async with asyncio.timeout(60):
        assert await remove_job(server, "data", "remit-uid-1", uid)


async def test_a_pod_that_lost_its_labels_is_alive_until_its_job_is_gone(
    server: JobServer, backend: KubernetesBackend
) -> None:
    """The watch reports the loss of labels like a deletion."""
    controller = Controller(server, code=None)

    def relabelled(path: str, obj: dict[str, Any]) -> None:
        controller.see(path, obj)
        if "/jobs/" in path:
            server._tell("DELETED", f"{V1}/pods/remit-uid-1-x")

    server.created = relabelled
    outcome, _ = await ran(backend)
    assert outcome.reason == ExitReason.INTERRUPTED
    assert not server.under(f"{V1}/pods")


REFUSAL = ApiError('jobs.batch is forbidden: User "remit" cannot do that', status=403, reason="Forbidden")


async def test_nothing_is_told_while_a_job_cannot_be_deleted(
    server: JobServer, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is the case while the operator's roles are reinstalled. A retry would run in parallel."""
    monkeypatch.setattr(attending, "_REFUSED_SECONDS", 0.01)
    Controller(server, code=None)
    refusals, cancel = [REFUSAL] * 5, asyncio.Event()

    def refuse(method: str, path: str) -> None:
        if method == "DELETE" and path == JOB and refusals:
            raise refusals.pop()

    server.before = refuse
    running = asyncio.create_task(backend.run(REQUEST, Heard(), cancel=cancel))
    async with asyncio.timeout(60):
        while JOB not in server.objects:
            await asyncio.sleep(0)
        cancel.set()
        assert (await running).reason == ExitReason.CANCELLED
    assert JOB not in server.objects


@pytest.mark.parametrize("status", [401, 403])
async def test_a_watch_that_is_refused_for_a_while_ends_nothing(
    server: JobServer, backend: KubernetesBackend, status: int
) -> None:
    controller, refusals = Controller(server, code=None), [ApiError("no", status=status)] * 2

    def refuse(method: str, path: str) -> None:
        if path.endswith("/pods") and JOB in server.objects and refusals:
            raise refusals.pop()
        if path.endswith("/pods") and JOB in server.objects:
            controller.end()

    server.before = refuse
    server.deaf = True
    outcome, said = await ran(backend)
    assert (outcome.reason, said) == (ExitReason.COMPLETED, b"ours\n")
    assert not refusals


async def test_a_refused_job_leaves_no_secret(server: JobServer, backend: KubernetesBackend) -> None:
    def refuse(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/jobs"):
            raise ApiError('User "remit" cannot create resource "jobs"', status=403)

    server.before = refuse
    with pytest.raises(BackendError, match="lacks a right"):
        await ran(backend)
    assert SECRET not in server.objects


async def test_a_cancel_does_not_wait_for_a_probe(server: JobServer) -> None:
    backend, cancel = KubernetesBackend(server, LAUNCHER), asyncio.Event()
    server.created = lambda path, obj: cancel.set() if "/jobs/" in path else None  # no controller runs the Job
    async with asyncio.timeout(60):
        outcome = await backend.run(NONE, Heard(), cancel=cancel)
        assert outcome.reason == ExitReason.CANCELLED
        assert not [path for path in server.objects if "/jobs/" in path]
    await backend.close()


async def test_what_is_left_goes_when_the_server_is_back(
    server: JobServer, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the Secret would remain as long as its task."""
    monkeypatch.setattr("remit.backends.kubernetes.backend._RETRY_SECONDS", 0.01)
    Controller(server)
    await ran(backend)
    away = [ApiError("away", status=503)] * 3

    def refuse(method: str, path: str) -> None:
        if path in {JOB, SECRET} and away:
            raise away.pop()

    server.before = refuse
    async with asyncio.timeout(60):
        await backend.forget(REQUEST)
    assert not {JOB, SECRET} & server.objects.keys()


async def test_forgetting_leaves_what_others_made(server: JobServer, backend: KubernetesBackend) -> None:
    server.put(JOB, strange_job())
    server.put(SECRET, evil(SECRET))
    await backend.forget(REQUEST)
    assert {JOB, SECRET} <= server.objects.keys()


async def test_a_server_that_is_not_signed_in_to_refuses_nothing_for_good(
    server: JobServer, backend: KubernetesBackend
) -> None:
    """This is the case while a token is renewed."""

    def refuse(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/jobs"):
            raise ApiError("Unauthorized", status=401)

    server.before = refuse
    with pytest.raises(BackendError, match="Unauthorized"):
        await ran(backend)


async def test_what_waits_for_a_server_that_is_away_ends_with_its_time(
    server: JobServer, backend: KubernetesBackend
) -> None:
    """The error says why. No end is reported while the Job may have been created."""
    away = [True]

    def refuse(method: str, path: str) -> None:
        if away and "/jobs" in path:
            if method == "DELETE" or path == JOB:
                away.clear()
            raise ApiError("etcdserver: request is too large", status=500)

    server.before = refuse
    outcome, _ = await ran(backend, replace(REQUEST, timeout_seconds=0.1))
    assert (outcome.reason, "request is too large" in outcome.message) == (ExitReason.TIMED_OUT, True)


async def test_a_quota_of_jobs_is_waited_for(server: JobServer, backend: KubernetesBackend) -> None:
    """As for a quota of pods, there may be capacity later."""
    Controller(server)
    full = [ApiError('jobs.batch "x" is forbidden: exceeded quota: q', status=403)]

    def refuse(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/jobs") and full:
            raise full.pop()

    server.before = refuse
    assert (await ran(backend))[0].reason == ExitReason.COMPLETED
    full += [ApiError('jobs.batch "x" is forbidden: exceeded quota: q', status=403)] * 99
    short = replace(REQUEST, id="uid-2", timeout_seconds=0.1)
    assert (await ran(backend, short))[0].reason == ExitReason.QUOTA_EXCEEDED


async def test_what_is_ended_after_a_restart_leaves_no_secret(server: JobServer, backend: KubernetesBackend) -> None:
    Controller(server, code=None)
    secrets = Secrets.of(REQUEST)
    server.put(SECRET, secrets.object(REQUEST))
    server.put(JOB, job(REQUEST, secrets, LAUNCHER))
    handle = Handle(pid=0, start_time=0, boot_id="", container="remit-uid-1", namespace="data")
    assert await backend.recover(handle)
    assert not {JOB, SECRET} & server.objects.keys()


async def test_a_watch_that_stays_refused_ends_what_nobody_can_follow(
    server: JobServer, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Job is deleted too."""
    monkeypatch.setattr("remit.backends.kubernetes.backend._REFUSED_PATIENCE", 0.2)
    Controller(server, code=None)

    def refuse(method: str, path: str) -> None:
        if path.endswith("/pods") and JOB in server.objects:
            raise REFUSAL

    server.before, server.deaf = refuse, True
    with pytest.raises(BackendError, match="nobody can tell how Job remit-uid-1 fares"):
        await ran(backend)
    assert JOB not in server.objects
