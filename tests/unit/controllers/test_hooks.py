"""The hooks of a release that is over are cancelled, whatever becomes of them meanwhile."""

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


def task(name: str, *, version: int = 1, phase: str = "Running", **spec: Any) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    labels = {"remit.dev/hook": name}
    return {
        "metadata": {**metadata, "labels": labels, "ownerReferences": [OWNER]},
        "spec": {"command": {"argv": ["true"]}, **spec},
        "status": {"phase": phase},
    }


class Server:
    """Takes patches, and changes other objects meanwhile. It refuses those of `refused`."""

    def __init__(self, tasks: Reflector, refused: dict[str, int]) -> None:
        self.tasks, self.refused = tasks, refused
        self.patched: list[str] = []

    async def patch(self, resource: object, namespace: str, name: str, body: Object) -> Object:
        self.patched.append(name)
        self.tasks.observe(task(f"new-{name}", version=100, phase="Succeeded"))
        self.tasks.observe_deletion(task("done", version=101))
        if name in self.refused:
            raise ApiError("no", status=self.refused[name])
        assert body["metadata"]["uid"] == name
        return task(name, version=50, **body["spec"])


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
