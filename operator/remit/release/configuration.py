"""Reads what a Deployment's spec asks for at this moment: its ConfigMaps and Secrets read, its revision known by a
digest."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

import orjson

from remit.api.deployment import DeploymentSpec
from remit.api.deploymentstatus import PipelineState
from remit.errors import MissingReference
from remit.release.model import Revision, Snapshot, SourceVersion
from remit.release.target import Material
from remit.telemetry.encodings import excess, told_as

_REVISED: Final = frozenset(
    {
        *("artifact", "target", "ports", "env", "envFrom", "config", "secrets", "resources", "healthCheck"),
        *("livenessCheck", "terminationGracePeriodSeconds"),
    }
)
"""The fields that make a revision. Replicas, strategy and stages may change without one."""


class Source(Protocol):
    """The ConfigMaps and Secrets of one namespace."""

    async def data(self, secret: bool, name: str, optional: bool) -> Mapping[str, bytes]:
        """Read the data of one ConfigMap or Secret. Raises `MissingReference` where it is not there and must be."""

    def secret_uid(self, name: str) -> str:
        """The uid of a Secret that was read."""


async def read(objects: Source, spec: DeploymentSpec) -> tuple[Snapshot, Material]:
    """Raises `MissingReference`."""
    reading = _Reading(objects)
    for bundle in spec.env_from:
        if (reference := bundle.secret_ref or bundle.config_map_ref) is not None:
            secret = bundle.secret_ref is not None
            found = await reading.data(secret, reference.name, reference.optional)
            reading.put({bundle.prefix + key: value for key, value in found.items()}, secret=secret)
    for variable in spec.env:
        source = variable.value_from
        if source is None:
            reading.put({variable.name: (variable.value or "").encode()}, secret=False)
        elif selector := source.secret_key_ref or source.config_map_key_ref:
            secret = source.secret_key_ref is not None
            found = await reading.data(secret, selector.name, selector.optional)
            if selector.key in found:
                reading.put({variable.name: found[selector.key]}, secret=secret)
            elif not selector.optional:
                raise MissingReference(f"{selector.name}, for env {variable.name}, has no key {selector.key}")
    for secret, mounts in ((False, spec.config), (True, spec.secrets)):
        for mount in mounts:
            found = await reading.data(secret, mount.name, mount.optional)
            reading.place(mount.mount_path, found, secret=secret)
    material = reading.material()
    if too_much := excess(material.secrets):
        raise MissingReference(f"the Deployment {too_much}")
    versions, unkeyed = tuple(reading.versions.values()), tuple(reading.unkeyed.values())
    return Snapshot(_artifact(spec), spec, _digest(spec, versions), versions, _digest(spec, unkeyed)), material


def snapshot_with_missing_references(spec: DeploymentSpec, key: str, revisions: Iterable[Revision]) -> Snapshot:
    """Snapshot of a spec whose Secrets or ConfigMaps are missing.

    `key` is what was declared last. A spec that still says the same as the revision that came of it keeps that key:
    nothing was changed by a reference that cannot be read again. Any other spec gets a key of its own.
    """
    same = _declares_same_spec(spec, key, revisions)
    return Snapshot(_artifact(spec), spec, key if same else f"unread-{_digest(spec, ())}")


def with_recorded_hashes(revisions: Mapping[int, Revision], state: PipelineState) -> dict[int, Revision]:
    """The kept revisions, each under the digest that the history has of it: version 0.1 kept them under another one."""
    digests = {record.revision: record.spec_hash for record in state.history if record.spec_hash}
    return {
        number: replace(each, snapshot=replace(each.snapshot, spec_hash=digests.get(number, each.snapshot.spec_hash)))
        for number, each in revisions.items()
    }


def keep_pin(snapshot: Snapshot, key: str, revisions: Iterable[Revision]) -> Snapshot:
    """The snapshot for a Deployment that was returned to another revision. Only a new spec releases that pin, and not a
    Secret that is renewed, so a spec that says the same keeps its key."""
    return replace(snapshot, spec_hash=key) if _declares_same_spec(snapshot.spec, key, revisions) else snapshot


def _declares_same_spec(spec: DeploymentSpec, key: str, revisions: Iterable[Revision]) -> bool:
    """Whether the spec says the same as when `key` was declared."""
    return any(each.snapshot.spec_hash == key and _revised(each.snapshot.spec) == _revised(spec) for each in revisions)


def named(snapshot: Snapshot, artifact: str) -> Snapshot:
    """The snapshot under the name that people know it by."""
    return replace(snapshot, artifact=artifact)


class _Reading:
    def __init__(self, objects: Source) -> None:
        self._objects = objects
        self._env: dict[str, str] = {}
        self._files: dict[str, bytes] = {}
        self._secrets: set[str] = set()
        self.versions: dict[tuple[bool, str], SourceVersion] = {}
        self.unkeyed: dict[tuple[bool, str], SourceVersion] = {}
        """Source versions with unkeyed hashes, as version 0.1 made them."""

    async def data(self, secret: bool, name: str, optional: bool) -> Mapping[str, bytes]:
        found = await self._objects.data(secret, name, optional)
        content = repr(sorted(found.items())).encode()
        digest = hashlib.sha256(content).hexdigest()[:12] if found else ""
        version = SourceVersion("Secret" if secret else "ConfigMap", name, digest)
        self.versions[secret, name] = self.unkeyed[secret, name] = version
        if secret and found:
            # Status contains a digest of this. Without a key, a reader of status could try values until one matches.
            # The uid is random, and only users who may read the Secret know it.
            key = self._objects.secret_uid(name).encode()
            keyed = hmac.new(key, content, hashlib.sha256).hexdigest()[:16]
            self.versions[secret, name] = replace(version, version=keyed)
        return found

    def put(self, values: Mapping[str, bytes], *, secret: bool) -> None:
        for name, value in values.items():
            if b"\0" in value:
                message = f"the value for {name} has a NUL character, which no environment variable can carry"
                raise MissingReference(message)
            try:
                self._env[name] = value.decode()
            except UnicodeDecodeError:
                raise MissingReference(f"the value for {name} is not text; mount it as a file instead") from None
        if secret:
            self._hide(values.values())

    def place(self, folder: str, contents: Mapping[str, bytes], *, secret: bool) -> None:
        if wrong := next((key for key in contents if "/" in key or key in {".", ".."}), None):
            raise MissingReference(f"the key {wrong!r}, to be mounted in {folder}, is no name of a file")
        self._files |= {f"{folder.rstrip('/')}/{key}": content for key, content in contents.items()}
        if secret:
            self._hide(contents.values())

    def _hide(self, values: Iterable[bytes]) -> None:
        texts = (value.decode(errors="surrogateescape") for value in values if value.strip())
        self._secrets |= {form for text in texts for form in told_as(text)}

    def material(self) -> Material:
        return Material(self._env, self._files, frozenset(self._secrets))


def _artifact(spec: DeploymentSpec) -> str:
    artifact = spec.artifact
    return artifact.image or artifact.path or artifact.archive or ""


def _digest(spec: DeploymentSpec, versions: Iterable[SourceVersion]) -> str:
    told = [[each.kind, each.name, each.version] for each in versions]
    return hashlib.sha256(orjson.dumps([_revised(spec), told], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _revised(spec: DeploymentSpec) -> dict[str, Any]:
    written: dict[str, Any] = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in written.items() if name in _REVISED}
