"""The revisions of a Deployment, each with all that a rollback restores. Values of Secrets are among it."""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
from pydantic import ValidationError

from remit.api.deployment import DeploymentSpec
from remit.errors import DeploymentError
from remit.privatefiles import write_private
from remit.release.model import Revision, Snapshot, SourceVersion
from remit.release.target import Material

_BY_VALUE: Final = frozenset({"env", "envFrom", "config", "secrets", "stages"})
"""Fields of a kept spec that nothing is done by: a revision has its own variables and files, and runs no hooks."""


class Revisions(Protocol):
    """The revisions of one Deployment. All methods raise DeploymentError."""

    async def keep(self, revision: Revision, material: Material) -> None:
        """Stores a revision completely or not at all. A number that is stored already is not changed."""

    async def load(self, number: int) -> tuple[Revision, Material]:
        """Raises DeploymentError with the reason `RevisionNotFound` where it is not kept any more."""

    async def all(self) -> Mapping[int, Revision]:
        """The revisions by number."""

    async def forget(self, numbers: set[int]) -> None:
        """Removes these revisions."""

    async def clear(self) -> None:
        """Removes all revisions."""


class LocalRevisions:
    """Revisions on the operator's own disk, one file each below `folder`, which only the operator may access, like its
    run store.

    No other process changes them, so they are listed once; their configuration is read each time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[int, Revision] | None = None

    async def keep(self, revision: Revision, material: Material) -> None:
        """See `Revisions.keep`."""
        path = self._path(revision.number)
        if path.exists():
            return
        write_private(path, orjson.dumps(_written(revision, material)))
        if self._known is not None:
            self._known[revision.number] = revision

    async def load(self, number: int) -> tuple[Revision, Material]:
        """See `Revisions.load`."""
        try:
            document = orjson.loads(self._path(number).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            raise DeploymentError(f"revision {number} is not kept any more", reason="RevisionNotFound") from None
        return _read(number, document)

    async def all(self) -> dict[int, Revision]:
        """See `Revisions.all`."""
        if self._known is None:
            self._known = {}
            for path in self._folder.glob("*.json"):
                with contextlib.suppress(DeploymentError):
                    self._known[int(path.stem)] = (await self.load(int(path.stem)))[0]
        return dict(self._known)

    async def forget(self, numbers: set[int]) -> None:
        """See `Revisions.forget`."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
            if self._known is not None:
                self._known.pop(number, None)

    async def clear(self) -> None:
        """See `Revisions.clear`."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._known = None

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def kept_spec(number: int, document: Mapping[str, Any]) -> DeploymentSpec:
    """The spec of a revision, as it was kept.

    It was valid then. Where this version refuses it for fields that nothing is done by, it is read without them, so
    that an upgrade does not lose what is live. Raises DeploymentError.
    """
    try:
        return DeploymentSpec.model_validate(document)
    except ValidationError as error:
        refused = {str(each["loc"][0]) if each["loc"] else "" for each in error.errors()}
    try:
        if refused <= _BY_VALUE:
            return DeploymentSpec.model_validate({k: v for k, v in document.items() if k not in refused})
    except ValidationError:
        pass
    message = f"revision {number} was kept by another version of Remit, which this one cannot read"
    raise DeploymentError(message, reason="RevisionNotFound")


def _written(revision: Revision, material: Material) -> dict[str, Any]:
    snapshot = revision.snapshot
    return {
        "artifact": snapshot.artifact,
        "spec": snapshot.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        "specHash": snapshot.spec_hash,
        "versions": [[each.kind, each.name, each.version] for each in snapshot.versions],
        "env": dict(material.env),
        "files": {path: base64.b64encode(content).decode() for path, content in material.files.items()},
        "secrets": sorted(material.secrets),
    }


def _read(number: int, document: dict[str, Any]) -> tuple[Revision, Material]:
    snapshot = Snapshot(
        artifact=document["artifact"],
        spec=kept_spec(number, document["spec"]),
        spec_hash=document["specHash"],
        versions=tuple(SourceVersion(*each) for each in document["versions"]),
    )
    files = {path: base64.b64decode(content) for path, content in document["files"].items()}
    return Revision(number, snapshot), Material(document["env"], files, frozenset(document["secrets"]))
