"""ExecutionTasks as commands make, find and change them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from remit.api.controllerref import is_controlled_by
from remit.api.executiontask import ExecutionTask
from remit.api.group import API_VERSION
from remit.cli import manifests
from remit.describe.connection import Connection
from remit.errors import InvalidInput
from remit.execution import schedule
from remit.execution.copies import copy_of
from remit.kube.client import TASKS, Kube, Object
from remit.safeyaml import load_documents

MAX_STDIN = 262_144


def for_command(
    argv: list[str],
    *,
    name: str | None = None,
    labels: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
    stdin: str = "",
    timeout: int | None = None,
    retries: int | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    raw_output: bool = False,
    secrets: Sequence[Object] = (),
    **more: Any,
) -> Object:
    """A task that runs `argv`. `secrets` are further entries of `env`, `more` further fields of the spec as they are.
    Raises `InvalidInput`."""
    spec: Object = {
        "command": {"argv": argv},
        "env": [*({"name": key, "value": value} for key, value in (env or {}).items()), *secrets],
        "stdin": stdin,
        "timeoutSeconds": timeout,
        "retry": {"maxRetries": retries} if retries else None,
        "output": {"raw": True} if raw_output else None,
        "resources": {key: value for key, value in {"cpu": cpu, "memory": memory}.items() if value},
        **more,
    }
    metadata: Object = {"name": name} if name else {"generateName": f"run-{_word(argv[0])}-"}
    if labels:
        metadata["labels"] = labels
    return _checked(
        {
            "apiVersion": API_VERSION,
            "kind": "ExecutionTask",
            "metadata": metadata,
            "spec": {key: value for key, value in spec.items() if value},
        }
    )


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A scheduled task by its name, to be run once by hand."""

    parent: str
    name: str | None = None

    async def child(self, connection: Connection) -> Object:
        """The task to create. Raises `RemitError` when there is no such scheduled task."""
        obj = await connection.find(TASKS, self.parent)
        if "schedule" not in obj["spec"]:
            raise InvalidInput(f"task {self.parent} has no schedule; it has run, or will, by itself")
        task = schedule.child(obj, None)
        if self.name:
            task["metadata"] = {**task["metadata"], "name": self.name}
        return task


@dataclass(frozen=True, slots=True)
class Again:
    """A task by its name, of which a copy is to be run."""

    original: str
    name: str | None = None

    async def child(self, connection: Connection) -> Object:
        """The task to create. Raises `RemitError` when there is no such task, or when it has a schedule."""
        return copy_of(await connection.find(TASKS, self.original), self.name)


async def runs_of(connection: Connection, schedule_obj: Object) -> list[Object]:
    """The runs of a scheduled task that are there, in no order."""
    selector = f"{schedule.PARENT_LABEL}={schedule_obj['metadata']['name']}"
    found = await connection.kube.list(TASKS, connection.namespace, label_selector=selector)
    return [obj for obj in found if is_controlled_by(obj, schedule_obj)]


async def newest_run(connection: Connection, schedule_obj: Object) -> Object | None:
    """The run of a scheduled task that was created last, if there is one."""
    runs = await runs_of(connection, schedule_obj)
    return max(runs, key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]), default=None)


def from_file(path: Path, name: str | None = None) -> Object:
    """The one ExecutionTask in a YAML file; `-` is standard input. Raises `InvalidInput`."""
    text = manifests.read(path)
    try:
        documents = load_documents(text)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict) or documents[0].get("kind") != "ExecutionTask":
        raise InvalidInput(f"{path} must hold one ExecutionTask and nothing else; use kubectl apply for more")
    task: Object = documents[0]
    metadata = task.setdefault("metadata", {})
    if name:
        metadata["name"] = name
        metadata.pop("generateName", None)
    return _checked(task)


def read_standard_input() -> str:
    """All of it, as text. Raises `InvalidInput` when it is more than a task may carry, or no text."""
    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise InvalidInput(
            f"standard input is larger than the {MAX_STDIN} bytes that a task may carry; put it into a file on the"
            " operator's host and give --stdin-from its path"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"standard input is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None


async def request_cancel(kube: Kube, task: ExecutionTask) -> None:
    """Ask for the end of the task that was read, and not of another one that has its name by now. Raises `ApiError`."""
    metadata = task.metadata
    body = {"metadata": {"uid": metadata.uid}, "spec": {"cancel": True}}
    await kube.patch(TASKS, metadata.namespace, metadata.name, body)


def _checked(task: Object) -> Object:
    """Refuse what the API server would refuse, with the field's name, before anything is sent."""
    metadata: dict[str, Any] = task["metadata"]
    if not metadata.get("name") and not metadata.get("generateName"):
        raise InvalidInput("the task has no metadata.name; set it, or give --name")
    ExecutionTask.parse({**task, "metadata": {"name": metadata.get("generateName", "-"), **metadata}})
    return task


def _word(program: str) -> str:
    """A part of a Kubernetes name that tells what was run."""
    return re.sub(r"[^a-z0-9]+", "-", PurePosixPath(program).name.lower()).strip("-")[:40] or "command"
