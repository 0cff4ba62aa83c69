"""Tests the snapshot of a spec: its revision's digest, its environment and files, and missing references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from remit.api.deployment import DeploymentSpec
from remit.errors import MissingReference
from remit.release.configuration import keep_pin, read, snapshot_with_missing_references
from remit.release.model import Revision

ENV = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]
MOUNT = [{"name": "db", "mountPath": "/run/db"}]


class Objects:
    def __init__(self, uid: str = "an-uid", /, **values: bytes) -> None:
        self.uid, self.values = uid, values

    async def data(self, secret: bool, name: str, optional: bool) -> Mapping[str, bytes]:
        return {key.replace("_", "."): value for key, value in self.values.items()}

    def secret_uid(self, name: str) -> str:
        return self.uid


def spec(**changes: Any) -> DeploymentSpec:
    written = {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["serve"]}}, **changes}
    return DeploymentSpec.model_validate(written)


async def test_a_changed_secret_is_another_revision_and_its_value_is_in_no_digest() -> None:
    one, material = await read(Objects(password=b"swordfish"), spec(env=ENV))
    other, _ = await read(Objects(password=b"marlin"), spec(env=ENV))
    same, _ = await read(Objects(password=b"swordfish"), spec(env=ENV, replicas=5, paused=True))
    assert (one.spec_hash == same.spec_hash, one.spec_hash == other.spec_hash) == (True, False)
    assert (dict(material.env), material.secrets) == ({"PASSWORD": "swordfish"}, {"swordfish"})
    assert "swordfish" not in repr((one, material))


async def test_a_digest_does_not_let_its_reader_try_values_of_a_secret() -> None:
    one, _ = await read(Objects("one", pin=b"1234"), spec(secrets=MOUNT))
    other, _ = await read(Objects("other", pin=b"1234"), spec(secrets=MOUNT))
    assert one.spec_hash != other.spec_hash
    assert one.versions != other.versions
    assert one.former_hash == other.former_hash == "c6b499fcd4033203"  # the digest of version 0.1
    config = [{"name": "db", "mountPath": "/run/db"}]
    first, _ = await read(Objects("one", pin=b"1234"), spec(config=config))
    second, _ = await read(Objects("other", pin=b"1234"), spec(config=config))
    assert first.spec_hash == second.spec_hash == first.former_hash


@pytest.mark.parametrize(
    ("objects", "changes", "why"),
    [
        (Objects(password=b"a\0b"), {"env": ENV}, "has a NUL character"),
        (Objects(password=b"\xff"), {"env": ENV}, "is not text"),
        (Objects(other=b""), {"env": ENV}, "has no key password"),
        (Objects(__=b""), {"secrets": MOUNT}, "is no name of a file"),
    ],
)
async def test_what_no_instance_could_have_is_reported(objects: Objects, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(MissingReference, match=why):
        await read(objects, spec(**changes))


async def test_what_cannot_be_read_again_is_still_what_was_declared_and_any_other_spec_is_not() -> None:
    declared, _ = await read(Objects(password=b"swordfish"), spec(env=ENV))
    revisions = [Revision(1, declared)]
    again = snapshot_with_missing_references(spec(env=ENV, replicas=3), declared.spec_hash, revisions)
    assert (again.spec_hash, again.spec.replicas) == (declared.spec_hash, 3)
    other = snapshot_with_missing_references(spec(env=ENV, secrets=MOUNT), declared.spec_hash, revisions)
    assert other.spec_hash != declared.spec_hash
    once_more = snapshot_with_missing_references(spec(env=ENV, secrets=MOUNT), other.spec_hash, revisions)
    assert other.spec_hash == once_more.spec_hash


async def test_a_pin_is_released_by_another_spec_and_not_by_a_secret_that_is_renewed() -> None:
    declared, _ = await read(Objects(password=b"swordfish"), spec(env=ENV))
    revisions = [Revision(2, declared)]
    renewed, _ = await read(Objects(password=b"marlin"), spec(env=ENV))
    assert keep_pin(renewed, declared.spec_hash, revisions).spec_hash == declared.spec_hash
    other, _ = await read(Objects(password=b"marlin"), spec(env=[]))
    assert keep_pin(other, declared.spec_hash, revisions) == other
