"""Tests that hooks of a release that has ended are cancelled, and deleted once their revision is forgotten."""

from __future__ import annotations

from typing import Any, cast

import pytest

from remit.controllers import hooks
from remit.errors import ApiError
from remit.kube.client import TASKS, Kube, Object
from remit.kube.indexer import CONTROLLER, by_controller
from remit.kube.reflector import Reflector

DEPLOYMENT: Object = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "Deployment",
    "metadata": {"namespace": "ns", "name": "shop", "uid": "d"},
}
OWNER = {"apiVersion": "remit.dev/v1alpha1", "kind": "Deployment", "name": "shop", "uid": "d", "controller": True}


def task(name: str, *, version: int = 1, phase: str = "Running", revision: int = 1, **spec: Any) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    labels = {"remit.dev/hook": name, "remit.dev/revision": str(revision), "remit.dev/stage": "PrePromotion"}
    return {
        "metadata": {**metadata, "labels": labels, "ownerReferences": [OWNER]},
        "spec": {"command": {"argv": ["true"]}, **spec},
        "status": {"phase": phase},
    }


class Server:
    """Accepts patches and deletions, and changes other objects at a patch. It refuses requests for those in
    `refused`."""

    def __init__(self, tasks: Reflector, refused: dict[str, int]) -> None:
        self.tasks, self.refused = tasks, refused
        self.patched: list[str] = []
        self.deleted: list[str] = []

    async def patch(self, resource: object, namespace: str, name: str, body: Object) -> Object:
        self.patched.append(name)
        self.tasks.observe(task(f"new-{name}", version=100, phase="Succeeded"))
        self.tasks.observe_deletion(task("done", version=101))
        if name in self.refused:
            raise ApiError("no", status=self.refused[name])
        assert body["metadata"]["uid"] == name
        return task(name, version=50, **body["spec"])

    async def delete(self, resource: object, namespace: str, name: str, *, uid: str) -> None:
        self.deleted.append(name)
        if name in self.refused:
            raise ApiError("no", status=self.refused[name])
        assert uid == name


@pytest.mark.parametrize(
    ("refused", "fails"), [({}, False), ({"b": 404}, False), ({"b": 409}, False), ({"b": 500}, True)]
)
async def test_all_that_run_are_cancelled_once_though_the_cache_changes(refused: dict[str, int], fails: bool) -> None:
    tasks = Reflector(TASKS, indexers={CONTROLLER: by_controller})
    for each in (task("a"), task("b"), task("c"), task("done", phase="Failed"), task("asked", cancel=True)):
        tasks.observe(each)
    plain, foreign = task("plain"), task("foreign")
    plain["metadata"]["labels"] = None
    foreign["metadata"]["ownerReferences"] = [OWNER | {"apiVersion": "apps/v1"}]
    tasks.observe(plain)
    tasks.observe(foreign)
    server = Server(tasks, refused)
    if fails:
        with pytest.raises(ApiError):
            await hooks.cancel(cast(Kube, server), tasks, DEPLOYMENT)
    else:
        await hooks.cancel(cast(Kube, server), tasks, DEPLOYMENT)
    assert sorted(server.patched) == ["a", "b", "c"]
    server.patched.clear()
    server.refused = {}
    await hooks.cancel(cast(Kube, server), tasks, DEPLOYMENT)
    assert server.patched == sorted(refused), "who has been asked is not asked again"


def cached(*objects: Object) -> Reflector:
    tasks = Reflector(TASKS, indexers={CONTROLLER: by_controller})
    for obj in objects:
        tasks.observe(obj)
    return tasks


async def test_hooks_of_forgotten_revisions_are_deleted() -> None:
    foreign, plain, unnamed = (task(name, phase="Failed") for name in ("foreign", "plain", "unnamed"))
    foreign["metadata"]["ownerReferences"] = [OWNER | {"apiVersion": "apps/v1"}]
    plain["metadata"]["labels"] = None
    unnamed["metadata"]["labels"]["remit.dev/revision"] = "one"
    tasks = cached(
        foreign,
        plain,
        unnamed,
        task("old", revision=1, phase="Succeeded"),
        task("denied", revision=2, phase="Denied"),
        task("last-good", revision=3, phase="Succeeded"),
        task("running", revision=4),
        task("live", revision=5, phase="Succeeded"),
        task("next", revision=6, phase="Succeeded"),
    )
    server = Server(tasks, {"old": 404})
    await hooks.prune(cast(Kube, server), tasks, DEPLOYMENT, {3, 5})
    assert sorted(server.deleted) == ["denied", "old"], "nor of a revision that is to come"


async def test_nothing_is_deleted_where_status_has_lost_the_history() -> None:
    tasks = cached(task("old", phase="Succeeded"))
    server = Server(tasks, {})
    await hooks.prune(cast(Kube, server), tasks, DEPLOYMENT, set())
    assert not server.deleted


async def test_a_look_deletes_so_many_hooks_at_most_and_goes_on_where_one_is_refused() -> None:
    tasks = cached(*(task(f"t{number}", phase="Succeeded") for number in range(hooks.MOST_DELETED + 5)))
    server = Server(tasks, {"t0": 500})
    with pytest.raises(ApiError):
        await hooks.prune(cast(Kube, server), tasks, DEPLOYMENT, {2})
    assert len(set(server.deleted)) == hooks.MOST_DELETED
