"""Workspaces in PersistentVolumeClaims: made, enlarged, written by one attempt at a time, and removed in the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Container, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import structlog

from remit.backends.base import AttemptRequest, TaskReference
from remit.backends.elapsed import ElapsedTime
from remit.backends.kubernetes import labels
from remit.backends.kubernetes.ensuring import exists, read
from remit.backends.kubernetes.workspaceclaim import (
    IDLE,
    LAST_USED,
    SELECTOR,
    WorkspaceClaim,
    begun,
    claim,
    claim_name,
    claims,
    idle,
    size_told,
    uses,
)
from remit.errors import ApiError, InvalidInput
from remit.kube.client import CLAIMS, PODS, Kube
from remit.sandbox import ClaimMount

log = structlog.get_logger(__name__)
LOOK_SECONDS: Final = 600.0
"""The longest time between two looks at what is to be removed."""
_BUSY_SECONDS: Final = 10.0
"""The shortest time until it is looked again at what is used: its task, or its pod, may be about to end."""
_RETRY_SECONDS: Final = 1.0
_LAST_WORDS_SECONDS: Final = 10.0
_CONFLICT, _NOT_FOUND, _FORBIDDEN, _INVALID = 409, 404, 403, 422

Key = tuple[str, str]
"""A workspace, by its namespace and its name."""
Notify = Callable[[TaskReference, Literal["Normal", "Warning"], str, str], None]
"""Posts an Event about a task: its type, reason and message."""


class Workspaces:
    """The claims of workspaces. `storage_class`: in which they are made; empty: in the cluster's default one.

    `ended` is set when an attempt has let go of a claim, so that its time to live begins.
    """

    def __init__(self, kube: Kube, storage_class: str = "", elapsed: ElapsedTime | None = None) -> None:
        self.notify: Notify = lambda *_: None
        self.ended = asyncio.Event()
        self._kube, self._storage_class = kube, storage_class
        self._elapsed = elapsed or ElapsedTime()
        self._used: dict[str, frozenset[Key]] = {}
        """By the attempt's id, what it uses or waits for."""
        self._waits_for: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def held(self, request: AttemptRequest, namespace: str) -> AsyncIterator[None]:
        """While it is entered, an attempt uses its claims, and `prune` removes none of them. Cancelled, it leaves the
        claims as they are: the Job goes on, and the next operator holds them."""
        self._used[request.id] = frozenset((namespace, name) for name in claims(request))
        goes_on = False
        try:
            yield
        except asyncio.CancelledError:
            goes_on = True
            raise
        finally:
            used = self._used.pop(request.id)
            self._waits_for.pop(request.id, None)
            if used and not goes_on:
                await self._note_end(used)

    async def prepare(self, request: AttemptRequest, namespace: str) -> bool:
        """True when the claims of an attempt are there, and those that it writes to for it alone; waits for that.
        Raises `ApiError`, and `InvalidInput` for a stranger's claim."""
        for mount in claims(request).values():
            await self._have(mount, namespace, request)
            if not mount.read_only:
                await self._be_only_writer(mount.workspace, namespace, request)
        return True

    def waits_for(self, request: AttemptRequest) -> str:
        """Describe what `prepare` waited for last."""
        return self._waits_for.get(request.id, "")

    async def prune(self, namespaces: Sequence[str], wanted: Callable[[], Container[Key]]) -> float:
        """Remove what no task has used for its time to live. `wanted` are the workspaces that tasks have or wait for;
        without `namespaces`, those of all. Gives the seconds until the next one may be due. Raises nothing."""
        soonest = LOOK_SECONDS
        for namespace in namespaces or (None,):
            try:
                listed = await self._kube.list(CLAIMS, namespace, label_selector=SELECTOR)
            except ApiError as error:
                log.warning("the claims of workspaces cannot be listed", namespace=namespace, reason=str(error))
                continue
            mortal = [found for each in listed if (found := WorkspaceClaim.of(each)) and _is_mortal(found)]
            had = wanted() if mortal else ()
            for found in mortal:
                try:
                    soonest = min(soonest, await self._prune(found, found.ttl_seconds or 0, had, wanted))
                except ApiError as error:
                    # Another client used or removed the workspace meanwhile.
                    if error.status not in {_CONFLICT, _NOT_FOUND}:
                        log.warning("a workspace cannot be removed", workspace=found.name, reason=str(error))
        return soonest

    async def _prune(
        self, found: WorkspaceClaim, ttl_seconds: int, had: Container[Key], wanted: Callable[[], Container[Key]]
    ) -> float:
        """`had` is what was wanted when the claims were listed: tasks may be many."""
        key = found.namespace, found.name
        seconds, is_stale = self._elapsed.seconds(found.idle)
        is_due = seconds >= ttl_seconds and found.idle is not None
        if self._is_used(key) or key in had or (is_due and await self._is_mounted(found)):
            if found.idle is not None:
                await self._annotate(found, {IDLE: None})
            return min(LOOK_SECONDS, max(_BUSY_SECONDS, ttl_seconds))
        if not is_due:
            if is_stale:
                await self._annotate(found, idle(self._elapsed.mark(seconds)))
            return max(0.0, ttl_seconds - seconds)
        if self._is_used(key) or key in wanted():  # a task may have begun to use it since the pods were listed
            return _BUSY_SECONDS
        # An attempt that begins now either changes the claim first, so that the deletion fails, or finds the claim
        # being deleted.
        await self._kube.delete(
            CLAIMS, found.namespace, claim_name(found.name), uid=found.uid, resource_version=found.resource_version
        )
        log.warning(
            "removed a workspace whose time to live is over",
            namespace=found.namespace,
            workspace=found.name,
            ttl_seconds=ttl_seconds,
        )
        return LOOK_SECONDS

    def _is_used(self, key: Key) -> bool:
        return any(key in used for used in self._used.values())

    async def _is_mounted(self, found: WorkspaceClaim) -> bool:
        return any(uses(await self._kube.list(PODS, found.namespace), found.name))

    async def _have(self, mount: ClaimMount, namespace: str, request: AttemptRequest) -> None:
        """The claim, made by its first attempt."""
        name = claim_name(mount.workspace)
        while True:
            now = begun(request.id, mount.ttl_seconds, _time_of_day())
            obj = await read(self._kube, CLAIMS, namespace, name)
            if obj is None:
                try:
                    await self._kube.create(CLAIMS, namespace, claim(mount, namespace, self._storage_class, now))
                except ApiError as error:
                    if not exists(error):
                        raise
                    continue
                return
            found = WorkspaceClaim.of(obj)
            if found is None:
                raise InvalidInput(
                    f"workspace {mount.workspace}: there is a PersistentVolumeClaim {name} that Remit did not make;"
                    " delete it, give it the labels of a workspace, or use another name"
                )
            if not found.is_going:
                found = await self._annotate(found, now)
                if found is not None and not found.is_going:
                    await self._resize(found, mount.size_bytes, request)
                    return
            if found is not None:
                why = f"workspace {mount.workspace} is being removed, and stays until no pod mounts it"
                await self._wait(request, "WorkspaceTerminating", why)

    async def _resize(self, found: WorkspaceClaim, wanted: int, request: AttemptRequest) -> None:
        """Have it enlarged, or tell why it keeps its size: the attempt runs with what there is."""
        if told := size_told(found, wanted):
            self._tell(request, "Normal", "WorkspaceLarger", told)
        if found.size is None or wanted <= found.size:
            return
        patch = {"metadata": {"uid": found.uid}, "spec": {"resources": {"requests": {"storage": str(wanted)}}}}
        try:
            await self._kube.patch(CLAIMS, found.namespace, claim_name(found.name), patch)
        except ApiError as error:
            if error.status not in {_FORBIDDEN, _INVALID}:
                raise
            why = (
                f"workspace {found.name} keeps its {found.size} bytes, and is not enlarged to {wanted}: {error};"
                f" ask for less, or remove it with 'remit workspace rm {found.name}' to have it made anew"
            )
            self._tell(request, "Warning", "WorkspaceNotEnlarged", why)

    async def _be_only_writer(self, workspace: str, namespace: str, request: AttemptRequest) -> None:
        """Wait for pods of attempts that are on their way out: the queue does not know those whose task is gone."""
        while True:
            pods = await self._kube.list(PODS, namespace, label_selector=labels.ATTEMPTS)
            others = [use for use in uses(pods, workspace) if use.writes and use.attempt != request.id]
            if not others:
                return
            why = f"pod {others[0].pod} of another attempt still writes to workspace {workspace}"
            await self._wait(request, "WorkspaceInUse", why)

    async def _wait(self, request: AttemptRequest, reason: str, why: str) -> None:
        if self._waits_for.get(request.id) != why:
            self._waits_for[request.id] = why
            self._tell(request, "Normal", reason, f"waits: {why}")
        await asyncio.sleep(_RETRY_SECONDS)

    def _tell(self, request: AttemptRequest, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        if request.task is not None:
            self.notify(request.task, type_, reason, message)

    async def _note_end(self, used: frozenset[Key]) -> None:
        """The claims are idle from now on. Where that cannot be noted, `prune` begins to count later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                for namespace, name in used:
                    mark = {} if self._is_used((namespace, name)) else idle(self._elapsed.mark())
                    patch = {"metadata": {"annotations": {LAST_USED: _time_of_day(), **mark}}}
                    with contextlib.suppress(ApiError):
                        await self._kube.patch(CLAIMS, namespace, claim_name(name), patch)
        self.ended.set()

    async def _annotate(self, found: WorkspaceClaim, annotations: dict[str, Any]) -> WorkspaceClaim | None:
        """The claim with these; None: it is not there any more. Raises `ApiError`."""
        patch = {"metadata": {"uid": found.uid, "annotations": annotations}}
        try:
            return WorkspaceClaim.of(await self._kube.patch(CLAIMS, found.namespace, claim_name(found.name), patch))
        except ApiError as error:
            if error.status not in {_CONFLICT, _NOT_FOUND}:
                raise
            return None


def _is_mortal(found: WorkspaceClaim) -> bool:
    return found.ttl_seconds is not None and not found.is_going


def _time_of_day() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
