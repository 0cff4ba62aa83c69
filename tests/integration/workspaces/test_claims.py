"""Tests workspaces in PersistentVolumeClaims, with the rules of a real API server."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from remit.api.endpoint import Resource
from remit.backends.base import AttemptRequest, Command, Stream, TaskReference
from remit.backends.kubernetes.backend import KubernetesBackend
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.workspaces import LOOK_SECONDS, Key
from remit.backends.outcome import ExitReason
from remit.kube.client import CLAIMS, Object
from remit.sandbox import ClaimMount, Confinement

from .conftest import NAME, PATIENCE, Cluster

CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", namespaced=False)
MEBI = 1 << 20


def attempt(
    id_: str = "a-1", *, ttl: int | None = 60, size: int = 16 * MEBI, read_only: bool = False, seconds: float = PATIENCE
) -> AttemptRequest:
    return AttemptRequest(
        id=id_,
        command=Command(("true",), ""),
        confinement=Confinement(
            network="host", mounts=(ClaimMount("/w", "cache", size, read_only=read_only, ttl_seconds=ttl),)
        ),
        timeout_seconds=seconds,
        image="i",
        task=TaskReference("data", "nightly", "uid"),
    )


async def test_its_time_to_live_begins_with_its_last_use(cluster: Cluster) -> None:
    await cluster.used(attempt())
    cluster.machine.up += 50
    await cluster.used(attempt("a-2"))
    cluster.machine.up += 59
    assert await cluster.prune() == 1, "so many seconds are left"
    assert await cluster.is_kept()
    cluster.machine.up += 1
    await cluster.prune()
    assert not await cluster.is_kept()


async def test_one_without_a_time_to_live_stays(cluster: Cluster) -> None:
    await cluster.used(attempt())
    await cluster.used(attempt("a-2", ttl=None))
    cluster.machine.up += 1e9
    assert await cluster.prune() == LOOK_SECONDS
    assert await cluster.is_kept()


async def test_what_is_used_stays(cluster: Cluster) -> None:
    first = attempt(ttl=0)
    async with cluster.workspaces.held(first, cluster.namespace):
        await cluster.workspaces.prepare(first, cluster.namespace)
        cluster.machine.up += 1e6
        await cluster.prune()
        assert await cluster.is_kept(), "an attempt has it"
    assert await cluster.prune(wanted={(cluster.namespace, "cache")}) == 10, "it may end soon"
    assert await cluster.is_kept(), "a task waits for it"
    await cluster.pod("strange")
    await cluster.prune()
    await cluster.prune()
    assert await cluster.is_kept(), "a pod mounts it"
    await cluster.end_pod("strange")
    await cluster.prune()
    await cluster.prune()
    assert not await cluster.is_kept()


async def test_what_a_task_wants_since_claims_were_listed_stays(cluster: Cluster) -> None:
    await cluster.used(attempt())
    cluster.machine.up += 60
    asked: list[set[Key]] = [set(), {(cluster.namespace, "cache")}]
    await cluster.workspaces.prune([cluster.namespace], lambda: asked.pop(0))
    assert (await cluster.is_kept(), asked) == (True, [])


async def test_the_time_that_it_was_used_does_not_count(cluster: Cluster) -> None:
    """This also holds if no operator recorded the end of its use, as after a kill."""
    with pytest.raises(asyncio.CancelledError):
        async with cluster.workspaces.held(attempt(), cluster.namespace):
            await cluster.workspaces.prepare(attempt(), cluster.namespace)
            raise asyncio.CancelledError
    cluster.machine.up += 1e6
    after = cluster.another()
    assert await cluster.prune(after) == 60
    await cluster.pod("late")
    cluster.machine.up += 60
    await cluster.prune(after)
    assert await cluster.is_kept()
    cluster.machine.up += 1e6
    await cluster.end_pod("late")
    assert await cluster.prune(after) == 60, "it begins anew"


async def test_the_time_of_day_and_another_machine_do_not_end_it_early(cluster: Cluster) -> None:
    await cluster.used(attempt())
    mark = json.dumps({"boot": "another-machine", "at": 0.0, "seconds": 20.0})
    await cluster.annotate(idle=mark, last_used="1970-01-01T00:00:00Z")
    assert await cluster.prune() == 40, "what was counted before counts"
    cluster.machine.up += 40
    await cluster.prune()
    assert not await cluster.is_kept()


@pytest.mark.parametrize("idle", ["", "{", "[]", '{"seconds": "9"}', "[" * 5000, '{"boot": 1, "seconds": null}'])
async def test_an_invalid_mark_restarts_the_idle_time(cluster: Cluster, idle: str) -> None:
    await cluster.used(attempt())
    await cluster.annotate(idle=idle)
    assert await cluster.prune() == 60
    await cluster.annotate(ttl_seconds_after_last_use="-1")
    cluster.machine.up += 1e6
    assert await cluster.prune() == LOOK_SECONDS
    assert await cluster.is_kept()


async def test_a_claim_that_only_has_the_labels_is_not_removed(cluster: Cluster) -> None:
    labels = {"app.kubernetes.io/managed-by": "remit", "app.kubernetes.io/component": "workspace"}
    told = {"remit.dev/ttl-seconds-after-last-use": "0", "remit.dev/idle": '{"seconds": 5}'}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    strange = {"metadata": {"name": "database", "labels": labels, "annotations": told}, "spec": spec}
    await cluster.kube.create(CLAIMS, cluster.namespace, strange)
    await cluster.prune()
    found = await cluster.kube.get(CLAIMS, cluster.namespace, "database")
    assert "deletionTimestamp" not in found["metadata"]


async def test_an_attempt_that_begins_at_this_moment_keeps_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt belongs to another operator, of which this one knows nothing."""
    await cluster.used(attempt())
    cluster.machine.up += 60
    other, delete = cluster.another(), cluster.kube.delete

    async def late(*args: Any, **options: Any) -> None:
        await other.prepare(attempt("a-2"), cluster.namespace)
        await delete(*args, **options)

    monkeypatch.setattr(cluster.kube, "delete", late)
    await cluster.prune()
    claim = await cluster.claim()
    assert claim is not None and await cluster.is_kept()
    assert claim["metadata"]["annotations"]["remit.dev/last-used-by"] == "a-2"
    assert "remit.dev/idle" not in claim["metadata"]["annotations"]


async def test_an_attempt_waits_for_one_that_is_going_and_makes_it_anew(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes a claim that is deleted right after the attempt saw it."""
    await cluster.used(attempt())
    before = await cluster.claim()
    patch = cluster.kube.patch

    async def late(*args: Any, **options: Any) -> Object:
        monkeypatch.undo()
        cluster.machine.up += 60
        await cluster.prune(cluster.another())
        return await patch(*args, **options)

    monkeypatch.setattr(cluster.kube, "patch", late)
    begins = asyncio.create_task(cluster.used(attempt("a-2")))
    assert "is being removed" in await cluster.until_told("WorkspaceTerminating")
    await cluster.let_go()
    await begins
    after = await cluster.claim()
    assert before is not None and after is not None
    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    assert await cluster.is_kept()


class Nowhere:
    def write(self, stream: Stream, chunk: bytes) -> None:
        pass


@pytest.mark.parametrize(
    ("cancelled", "reason", "told"),
    [(False, ExitReason.TIMED_OUT, "before it could be started: workspace cache is being removed"),
     (True, ExitReason.CANCELLED, "cancelled")],
)  # fmt: skip
async def test_it_does_not_wait_longer_than_it_may(
    cluster: Cluster, cancelled: bool, reason: ExitReason, told: str
) -> None:
    await cluster.used(attempt())
    await cluster.kube.delete(CLAIMS, cluster.namespace, NAME)
    backend, cancel = KubernetesBackend(cluster.kube, Launcher("amd64", b"program")), asyncio.Event()
    waits = attempt("a-2", seconds=PATIENCE if cancelled else 0.5)
    task = TaskReference(cluster.namespace, "nightly", "uid")
    if cancelled:
        backend.workspaces.notify = lambda *_: cancel.set()
    request = AttemptRequest(**{name: getattr(waits, name) for name in waits.__slots__} | {"task": task})
    outcome = await backend.run(request, Nowhere(), cancel=cancel)
    await backend.close()
    assert (outcome.reason, told in outcome.message) == (reason, True), outcome.message


async def test_a_writer_waits_for_pods_of_others_that_still_write(cluster: Cluster) -> None:
    """The task of the pods may be deleted, and with it its place in the queue."""
    await cluster.used(attempt())
    await cluster.pod("own", attempt="a-2")
    await cluster.pod("reads", attempt="a-3", read_only=True)
    await cluster.used(attempt("a-2"))
    await cluster.pod("dying", attempt="a-1")
    await cluster.used(attempt("a-4", read_only=True))
    assert cluster.told == []
    await cluster.end_pod("own")
    waits = asyncio.create_task(cluster.used(attempt("a-5")))
    assert "pod dying of another attempt still writes to workspace cache" in await cluster.until_told("WorkspaceInUse")
    await cluster.end_pod("dying")
    await waits


@pytest.mark.parametrize("expandable", [True, False])
async def test_a_larger_size_enlarges_it_or_gives_the_reason(cluster: Cluster, expandable: bool) -> None:
    name = f"class-{uuid.uuid4().hex[:8]}"
    provided = {"metadata": {"name": name}, "provisioner": "test", "allowVolumeExpansion": expandable}
    await cluster.kube.create(CLASSES, None, provided)
    cluster.workspaces = cluster.another(name)
    await cluster.used(attempt())
    await cluster.bind()
    await cluster.used(attempt("a-2", size=64 * MEBI))
    claim = await cluster.claim()
    assert claim is not None
    size = claim["spec"]["resources"]["requests"]["storage"]
    if expandable:
        assert (size, cluster.told) == (str(64 * MEBI), [])
        await cluster.used(attempt("a-3"))
        ((_, reason, message),) = cluster.told
        assert reason == "WorkspaceLarger"
        assert "has 64Mi, and the task asks for 16Mi; a claim does not shrink" in message
    else:
        ((type_, reason, message),) = cluster.told
        assert (size, type_, reason) == (str(16 * MEBI), "Warning", "WorkspaceNotEnlarged")
        assert "must support resize" in message
        assert "remit workspace rm cache" in message
