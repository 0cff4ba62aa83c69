"""Stores the revisions of a Deployment in the cluster: a ControllerRevision for public data, and a Secret for the rest.

The Secret is immutable and contains the configuration of the revision. Pods use it, so that a rollback restores this
configuration even if the original ConfigMaps and Secrets have changed.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from remit.errors import DeploymentError
from remit.release.model import Revision, Snapshot, SourceVersion
from remit.release.revisions import kept_spec
from remit.release.target import Material
from remit.release.targets.kubernetes.cluster import (
    MANAGER,
    REVISIONS,
    SECRETS,
    Cluster,
    Object,
    Objects,
    answering,
    found,
    gone,
    listing,
)
from remit.release.targets.kubernetes.identity import WorkloadIdentity

_INDEX: Final = "remit.json"
"""The key of the Secret that tells what the others are. A path cannot be a key itself."""
_MOST_BYTES: Final = 1_000_000


class ClusterRevisions:
    """The revisions of one Deployment. No other client changes them, so they are read once."""

    def __init__(self, cluster: Cluster, identity: WorkloadIdentity) -> None:
        self._cluster, self._identity = cluster, identity
        self._known: dict[int, Revision] | None = None

    async def keep(self, revision: Revision, material: Material) -> None:
        """The Secret first: a revision is there once its ControllerRevision is. One that is kept keeps what it has."""
        if revision.number in await self.all():
            return
        identity, number = self._identity, revision.number
        secret, history = kept_secret(identity, number, material), controller_revision(identity, revision)
        with answering():
            for resource, body in ((SECRETS, secret), (REVISIONS, history)):
                name = body["metadata"]["name"]
                old = await found(self._cluster, resource, identity.place, name)
                if old is not None and not identity.owns(old):
                    raise name_taken(resource.plural, identity.place, name)
                if old is not None:  # left by an interrupted write; the object is immutable
                    await gone(self._cluster, resource, identity.place, name)
                await self._cluster.apply(resource, identity.place, name, body, manager=MANAGER, force=True)
        self._known = None

    async def load(self, number: int) -> tuple[Revision, Material]:
        """Raises DeploymentError where it is not kept any more."""
        revision = (await self.all()).get(number)
        with answering():
            secret = await found(self._cluster, SECRETS, self._identity.place, self._identity.revision(number))
        if revision is None or secret is None or not self._identity.owns(secret):
            raise DeploymentError(f"revision {number} is not kept any more", reason="RevisionNotFound")
        return revision, material_of(secret)

    async def all(self) -> Mapping[int, Revision]:
        """The revisions by number."""
        if self._known is None:
            known = {}
            for each in await self._listed():
                with contextlib.suppress(DeploymentError):
                    known[each["revision"]] = _read(each)
            self._known = known
        return self._known

    async def forget(self, numbers: set[int]) -> None:
        with answering():
            for name in map(self._identity.revision, numbers):
                for resource in (REVISIONS, SECRETS):
                    kept = await found(self._cluster, resource, self._identity.place, name)
                    if kept is not None and self._identity.owns(kept):
                        await gone(self._cluster, resource, self._identity.place, name)
        if numbers:
            self._known = None

    async def clear(self) -> None:
        await self.forget({each["revision"] for each in await self._listed()})

    async def _listed(self) -> Objects:
        with answering():
            return await listing(self._cluster, REVISIONS, self._identity.place, self._identity.selector)


def name_taken(plural: str, namespace: str, name: str) -> DeploymentError:
    message = f"{plural} {name} in namespace {namespace} is not Remit's; rename it, or the Deployment"
    return DeploymentError(message, reason="NameTaken")


def controller_revision(identity: WorkloadIdentity, revision: Revision) -> Object:
    snapshot = revision.snapshot
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": identity.metadata(identity.revision(revision.number), revision=str(revision.number)),
        "revision": revision.number,
        "data": {
            "artifact": snapshot.artifact,
            "spec": snapshot.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
            "specHash": snapshot.spec_hash,
            "versions": [[each.kind, each.name, each.version] for each in snapshot.versions],
        },
    }


def kept_secret(identity: WorkloadIdentity, number: int, material: Material) -> Object:
    """Raises DeploymentError for a configuration that is larger than a Secret may be."""
    files = file_keys(material)
    index = {"env": list(material.env), "files": files, "secrets": sorted(material.secrets)}
    data = {env_key(name): value.encode() for name, value in material.env.items()}
    data |= {key: material.files[path] for path, key in files.items()}
    data[_INDEX] = orjson.dumps(index)
    if (size := sum(map(len, data.values()))) > _MOST_BYTES:
        message = f"the configuration has {size} bytes; on Kubernetes it goes into one Secret, which holds a million"
        raise DeploymentError(message, reason="ConfigurationTooLarge")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": identity.metadata(identity.revision(number), revision=str(number)),
        "type": "remit.dev/revision",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def env_key(name: str) -> str:
    """The Secret's key for a variable."""
    return f"env.{name}"


def file_keys(material: Material) -> dict[str, str]:
    """The Secret's key for each file, by its path."""
    return {path: f"file.{place}" for place, path in enumerate(sorted(material.files))}


def material_of(secret: Mapping[str, Any]) -> Material:
    data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    index = orjson.loads(data[_INDEX])
    return Material(
        {name: data[env_key(name)].decode() for name in index["env"]},
        {path: data[key] for path, key in index["files"].items()},
        frozenset(index["secrets"]),
    )


def _read(history: Mapping[str, Any]) -> Revision:
    data = history["data"]
    snapshot = Snapshot(
        artifact=data["artifact"],
        spec=kept_spec(history["revision"], data["spec"]),
        spec_hash=data["specHash"],
        versions=tuple(SourceVersion(*each) for each in data["versions"]),
    )
    return Revision(history["revision"], snapshot)
