"""Tests revisions that an earlier version of Remit kept, whose rules for specs were different."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from releases import snapshot, spec
from remit.api.endpoint import Resource
from remit.errors import ApiError, DeploymentError
from remit.release.model import Revision
from remit.release.revisions import LocalRevisions
from remit.release.target import Material
from remit.release.targets.kubernetes.cluster import REVISIONS
from remit.release.targets.kubernetes.identity import WorkloadIdentity
from remit.release.targets.kubernetes.revisions import ClusterRevisions, controller_revision


class Cluster:
    """An API server with only these ControllerRevisions."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self.objects = objects

    async def list(self, resource: Resource, namespace: str, **_: str) -> list[Any]:
        return list(self.objects.values()) if resource == REVISIONS else []

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        if resource != REVISIONS or name not in self.objects:
            raise ApiError("it is not there", status=404)
        return self.objects[name]

    async def delete(self, resource: Resource, namespace: str, name: str, **_: str) -> None:
        await self.get(resource, namespace, name)
        del self.objects[name]


PREFIX = {"envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "not a variable."}]}
STAGES = {"stages": {"prePromotion": [{"name": "gate", "task": {"nothing": True}}]}}


async def kept(folder: Path, **changes: Any) -> LocalRevisions:
    """Keeps a valid revision 1, and revision 2 with `changes` to its spec."""
    for number in (1, 2):
        await LocalRevisions(folder).keep(Revision(number, snapshot(spec())), Material({"GREETING": "hello"}))
    document = orjson.loads((folder / "2.json").read_bytes())
    document["spec"].update(changes)
    (folder / "2.json").write_bytes(orjson.dumps(document))
    return LocalRevisions(folder)


@pytest.mark.parametrize("changes", [PREFIX, STAGES])
async def test_a_revision_is_read_without_what_only_its_making_needed(tmp_path: Path, changes: dict[str, Any]) -> None:
    revisions = await kept(tmp_path, **changes)
    assert set(await revisions.all()) == {1, 2}
    revision, material = await revisions.load(2)
    assert revision.snapshot.spec == spec()
    assert material.env == {"GREETING": "hello"}


async def test_a_revision_that_cannot_be_read_is_as_one_that_is_not_kept(tmp_path: Path) -> None:
    revisions = await kept(tmp_path, healthCheck={"magic": {}})
    assert set(await revisions.all()) == {1}
    with pytest.raises(DeploymentError, match="revision 2 was kept by another version of Remit") as refused:
        await revisions.load(2)
    assert refused.value.reason == "RevisionNotFound"


async def test_one_in_a_cluster_that_cannot_be_read_is_removed_with_all_others() -> None:
    identity = WorkloadIdentity("default", "shop", "uid", "default")
    objects = {}
    for number in (1, 2):
        made = controller_revision(identity, Revision(number, snapshot(spec())))
        objects[made["metadata"]["name"]] = made
    objects[identity.revision(2)]["data"]["spec"]["healthCheck"] = {"magic": {}}
    revisions = ClusterRevisions(Cluster(objects), identity)  # type: ignore[arg-type]
    assert set(await revisions.all()) == {1}
    await revisions.clear()
    assert not objects
