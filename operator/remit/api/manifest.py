"""Parses manifests of the Python API, which may be a model, a dict, YAML text or the path of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.api.group import API_VERSION
from remit.errors import InvalidInput
from remit.regularfile import read_text
from remit.safeyaml import load_documents

TaskManifest = ExecutionTask | Mapping[str, Any] | str | Path
"""An ExecutionTask: a model, a dict such as `{"spec": {"command": {"line": "ls"}}}`, YAML text, or a file's path."""


DeploymentManifest = Deployment | Mapping[str, Any] | str | Path
"""A Deployment, in the same forms. Its `metadata.name` is required."""


def documents(given: str | Path) -> list[dict[str, Any]]:
    """Returns the objects in a YAML text or in the file at a path. Raises `InvalidInput` if the file cannot be read or
    a document is not an object."""
    try:
        text = read_text(given) if isinstance(given, Path) else given
    except OSError as error:
        raise InvalidInput(f"cannot be read: {given}: {error.strerror}") from None
    found = load_documents(text)
    if not all(isinstance(document, dict) for document in found):
        raise InvalidInput("is YAML, but not an object")
    return found


def task_object(given: TaskManifest) -> dict[str, Any]:
    """Returns the ExecutionTask as an object for the API server; `metadata` need not have a name. Raises `InvalidInput`
    for an invalid task."""
    task = _object(given, "ExecutionTask")
    ExecutionTask.parse({**task, "metadata": {"name": "task", **task["metadata"]}})
    return task


def deployment_object(given: DeploymentManifest) -> dict[str, Any]:
    """Returns the Deployment as an object for the API server. Raises `InvalidInput` for an invalid Deployment."""
    deployment = _object(given, "Deployment")
    Deployment.parse(deployment)
    return deployment


def _object(given: ExecutionTask | Deployment | Mapping[str, Any] | str | Path, kind: str) -> dict[str, Any]:
    if isinstance(given, ExecutionTask | Deployment):
        written = given.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        written.pop("status", None)
    elif isinstance(given, Mapping):
        written = dict(given)
    else:
        found = documents(given)
        if len(found) != 1:
            raise InvalidInput(f"holds {len(found)} documents; give one {kind}")
        written = found[0]
    result = {"apiVersion": API_VERSION, "kind": kind, "metadata": {}, **written}
    if not isinstance(result["metadata"], Mapping):
        raise InvalidInput("must be an object", field="metadata")
    return result
