"""What runs is what was judged, whatever stands under the names of an attempt's objects: these are easy to guess."""

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
from remit.backends.base import AttemptRequest, Command, Stream, TaskReference
from remit.backends.kubernetes.backend import KubernetesBackend
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import ApiError, RemitError
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
    """With the labels of the attempt; of the Job `owner`; running, or ended with `code`."""
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
    """Makes a pod of each Job, which says `said` and ends with `code`, or goes on."""

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
    async with asyncio.timeout(20):
        return await backend.run(request, heard, cancel=asyncio.Event()), heard.said


async def ran_or_refused(backend: KubernetesBackend, request: AttemptRequest = REQUEST) -> None:
    """Never tells of a success."""
    with contextlib.suppress(RemitError):
        outcome, said = await ran(backend, request)
        assert (outcome.reason, said) != (ExitReason.COMPLETED, b"ours\n")


async def test_it_runs(server: JobServer, backend: KubernetesBackend) -> None:
    Controller(server)
    outcome, said = await ran(backend)
    assert (outcome.reason, said) == (ExitReason.COMPLETED, b"ours\n")


def launcher_path() -> str:
    return f"{V1}/configmaps/{LAUNCHER.name}"


def evil(path: str, **metadata: Any) -> dict[str, Any]:
    """What a stranger may have put there beforehand."""
    data = {"launch" if path == launcher_path() else "env-0": base64.b64encode(b"evil").decode()}
    body: dict[str, Any] = {"data": data, "binaryData": data, "immutable": True, "spec": {"podSelector": {}}}
    return {**body, "metadata": {"name": path.rsplit("/", 1)[1], "namespace": "data", **metadata}}


async def _yes(namespace: str, image: str) -> bool:
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
    assert b"evil" not in base64.b64decode(next(iter(seen[path].get("binaryData", {}).values()), ""))
    assert seen[path].get("data", {}).get("env-0") in {None, base64.b64encode(b"s3cret").decode()}
    assert path != POLICY or seen[path]["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("path", [launcher_path(), SECRET])
async def test_what_somebody_made_beforehand_and_holds_on_to_is_not_used(
    server: JobServer, backend: KubernetesBackend, path: str
) -> None:
    """A finalizer keeps it there."""
    server.put(path, evil(path, finalizers=["evil.example/stay"]))
    Controller(server)
    with pytest.raises(RemitError, match=path.rsplit("/", 1)[1]):
        await ran(backend)
    assert JOB not in server.objects
    assert ("POST", f"{BATCH}/jobs") not in server.requests


async def test_a_launcher_that_could_be_changed_later_is_made_anew(
    server: JobServer, backend: KubernetesBackend
) -> None:
    server.put(launcher_path(), {**LAUNCHER.config_map("data"), "immutable": False})
    Controller(server)
    await ran(backend)
    assert server.objects[launcher_path()]["immutable"] is True


async def test_two_at_once_make_it_anew(server: JobServer, backend: KubernetesBackend) -> None:
    server.put(launcher_path(), evil(launcher_path()))
    Controller(server)
    both = [ran(backend, replace(REQUEST, id=f"uid-{number}")) for number in (3, 4)]
    requests = await asyncio.gather(*both, return_exceptions=True)
    assert not [each for each in requests if isinstance(each, BaseException)]


@pytest.mark.parametrize("plural", ["secrets", "jobs", "configmaps"])
async def test_a_conflict_over_a_quota_is_no_object_that_is_there(
    server: JobServer, backend: KubernetesBackend, plural: str
) -> None:
    """The server charges quotas under optimistic locks."""
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
