"""Finds workspaces: folders of this host, and claims of the cluster."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field
from typing import Any, Final

import typer

from remit.backends.kubernetes.workspaceclaim import SELECTOR, WorkspaceClaim, claim_name, uses
from remit.describe.connection import Connection
from remit.errors import ApiError, RemitError
from remit.execution.workspaces import Workspace, WorkspaceStore
from remit.kube.client import CLAIMS, PODS, TASKS, Object
from remit.telemetry.logs import escape

ON_HOST: Final = ("process", "docker")
ON_CLUSTER: Final = ("kubernetes",)
_FORBIDDEN, _NOT_FOUND, _CONFLICT = 403, 404, 409


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace as people see it: of this host where `store` is set, else a claim. Sizes are in bytes."""

    namespace: str
    name: str
    size: int | None
    last_used: datetime.datetime | None
    ttl_seconds: int | None
    used_by: tuple[str, ...]
    """Users of the workspace, such as `task/NAME`."""
    store: WorkspaceStore | None = None
    folder: Workspace | None = None
    claim: WorkspaceClaim | None = None

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends whose tasks can use the workspace."""
        return ON_CLUSTER if self.claim else ON_HOST

    def as_json(self) -> dict[str, Any]:
        about: dict[str, Any] = {
            "namespace": self.namespace,
            "name": self.name,
            "backends": list(self.backends),
            "sizeBytes": self.size,
            "lastUsed": f"{self.last_used:%FT%TZ}" if self.last_used else None,
            "ttlSecondsAfterLastUse": self.ttl_seconds,
            "usedBy": list(self.used_by),
        }
        if self.folder is not None:
            about |= {"folder": str(self.folder.data), "usedBytes": self.folder.used_bytes()}
        if self.claim is not None:
            claim = self.claim
            about |= {
                "claim": claim_name(claim.name),
                "phase": claim.phase,
                "capacityBytes": claim.capacity,
                "storageClass": claim.storage_class,
            }
        return about


@dataclass(slots=True)
class Users:
    """Who uses workspaces. `pods_refused`: why the caller may not know of pods; empty: that is known."""

    tasks: list[Object]
    pods: list[Object] = field(default_factory=list)
    pods_refused: str = ""

    def of_folder(self, namespace: str, name: str) -> tuple[str, ...]:
        return tuple(f"task/{task['metadata']['name']}" for task in self._tasks(namespace, name, on_cluster=False))

    def of_claim(self, namespace: str, name: str) -> tuple[str, ...]:
        """Pods of the tasks that are told are not told once more."""
        tasks = self._tasks(namespace, name, on_cluster=True)
        uids = tuple(f"{task['metadata']['uid']}-" for task in tasks)
        mine = (pod for pod in self.pods if pod["metadata"]["namespace"] == namespace)
        pods = tuple(f"pod/{use.pod}" for use in uses(mine, name) if not (uids and use.attempt.startswith(uids)))
        return (*(f"task/{task['metadata']['name']}" for task in tasks), *pods)

    def _tasks(self, namespace: str, name: str, *, on_cluster: bool) -> list[Object]:
        return [task for task in self.tasks if _uses(task, namespace, name, on_cluster=on_cluster)]


def _uses(task: Object, namespace: str, name: str, *, on_cluster: bool) -> bool:
    status = task.get("status") or {}
    return (
        task["metadata"]["namespace"] == namespace
        and status.get("phase") == "Running"
        and (status.get("backend") in ON_CLUSTER) is on_cluster
        and any((volume.get("workspace") or {}).get("name") == name for volume in task["spec"].get("volumes") or [])
    )


async def places(connection: Connection, namespace: str | None) -> tuple[list[Place], Users]:
    """The workspaces of a namespace; None: of all. Raises `RemitError` if there can be none, or none may be seen."""
    stores = _stores(connection)
    claims = await _claims(connection, namespace, required=not stores)
    users = await _users(connection, namespace, pods=bool(claims))
    found = [
        Place(
            folder.namespace,
            folder.name,
            folder.size,
            datetime.datetime.fromtimestamp(folder.used_at, datetime.UTC),
            folder.ttl_seconds,
            users.of_folder(folder.namespace, folder.name),
            store=store,
            folder=folder,
        )
        for store in stores
        for folder in store.all()
        if namespace in (None, folder.namespace)
    ]
    found += [
        Place(
            claim.namespace,
            claim.name,
            claim.size,
            _moment(claim.last_used),
            claim.ttl_seconds,
            users.of_claim(claim.namespace, claim.name),
            claim=claim,
        )
        for claim in claims
    ]
    return sorted(found, key=lambda place: (place.namespace, place.name)), users


async def find(connection: Connection, name: str, backend: str | None) -> tuple[Place, Users]:
    """The one of that name in the connection's namespace. Raises `RemitError` where there is none, or are two."""
    found, users = await places(connection, connection.namespace)
    named = [place for place in found if place.name == name and backend in (None, *place.backends)]
    if not named:
        where = f" of backend {backend}" if backend else ""
        raise RemitError(
            f"there is no workspace {name}{where} in namespace {connection.namespace};"
            " 'remit workspace list -A' lists all"
        )
    if len({place.backends for place in named}) > 1:
        raise RemitError(
            f"workspace {name} is both a folder of this host and a claim of the cluster; give --backend process or"
            " --backend kubernetes"
        )
    return named[0], users


async def remove(connection: Connection, place: Place, users: Users, *, force: bool) -> str:
    """Remove it, and say so. Raises `RemitError` where something uses it, or begins to, unless with `force`."""
    name = place.name
    if not force and place.used_by:
        raise RemitError(f"workspace {name} is used by {', '.join(place.used_by)}; wait for the end, or give --force")
    if place.store is not None and place.folder is not None:
        place.store.remove(place.folder)
    elif place.claim is not None:
        if not force and users.pods_refused:
            raise RemitError(
                f"whether a pod mounts workspace {name} is not known: {users.pods_refused}; have somebody remove it who"
                " may list pods, or give --force"
            )
        version = None if force else place.claim.resource_version
        try:
            await connection.kube.delete(
                CLAIMS, place.namespace, claim_name(name), uid=place.claim.uid, resource_version=version
            )
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
            raise RemitError(
                f"workspace {name} was changed at this moment, as by a task that begins to use it; try again"
            ) from None
        if place.used_by:
            return f"workspace {place.namespace}/{name} goes when {', '.join(place.used_by)} has ended"
    return f"workspace {place.namespace}/{name} removed"


async def _claims(connection: Connection, namespace: str | None, *, required: bool) -> list[WorkspaceClaim]:
    """Raises `RemitError` where there are none to see, if those of this host are none either."""
    try:
        listed = await connection.kube.list(CLAIMS, namespace, label_selector=SELECTOR)
    except ApiError as error:
        if error.status == _NOT_FOUND and not required:  # the API server of `remit up` has no claims
            return []
        if error.status == _NOT_FOUND:
            raise RemitError(
                "no operator of this machine and user keeps workspaces; run this command where the operator runs and"
                " as its user, and see --state-dir"
            ) from None
        if error.status != _FORBIDDEN or required:
            raise
        typer.echo(f"only folders of this host: {escape(str(error))}", err=True)
        return []
    return [claim for each in listed if (claim := WorkspaceClaim.of(each)) is not None]


async def _users(connection: Connection, namespace: str | None, *, pods: bool) -> Users:
    users = Users(await connection.kube.list(TASKS, namespace))
    if pods:
        try:
            users.pods = await connection.kube.list(PODS, namespace)
        except ApiError as error:
            if error.status != _FORBIDDEN:
                raise
            users.pods_refused = str(error)
    return users


def _stores(connection: Connection) -> tuple[WorkspaceStore, ...]:
    """The stores of this server's operator, if it runs on this machine as this user."""
    roots = dict.fromkeys(state_dir / "workspaces" for state_dir in connection.own_state_dirs)
    return tuple(WorkspaceStore(root) for root in roots if os.access(root, os.R_OK | os.X_OK))


def _moment(text: str) -> datetime.datetime | None:
    """None for a text that is no time, which somebody wrote by hand."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(datetime.UTC) if found.tzinfo else None
