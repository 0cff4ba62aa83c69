"""Objects of one kind as the API server has them: of all namespaces, of those that were asked for or, where those of
all may not be listed, of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from remit.api.endpoint import Resource
from remit.errors import ApiError
from remit.kube.client import Kube, Object
from remit.kube.informer import Informer
from remit.kube.reflector import ResourceEventHandler

_FOREVER: Final = float("inf")
_AGAIN_SECONDS: Final = 10.0
"""After which a list that was refused is asked for again."""
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Scope:
    """Which namespaces are looked at."""

    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    otherwise: str = ""
    """The one that is looked at where all may not be; empty: none is."""


EVERYWHERE: Final = Scope()


class Cache:
    """It is filled between `open` and `close`, and empty before."""

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        keep: Callable[[Object], Object],
        scope: Scope,
        changed: Callable[[], None],
    ) -> None:
        """`keep` makes of each object what is kept of it. `changed` is called after each change."""
        self._kube, self._resource, self._keep = kube, resource, keep
        self._wanted = scope.namespaces or (None,)
        self._other = "" if scope.namespaces else scope.otherwise
        self._handler = ResourceEventHandler(
            on_add=lambda obj: changed(), on_update=lambda old, new: changed(), on_delete=lambda obj: changed()
        )
        self._informers: dict[str | None, Informer] = {}
        self._ended: dict[str | None, float] = {}

    async def open(self) -> None:
        """Watch, or watch again what was refused a while ago."""
        for namespace in self._wanted:
            await self._stop_refused(namespace)
            if namespace not in self._informers:
                self._start(namespace)
        await self._open_other()

    async def _open_other(self) -> None:
        whole, other = self._informers.get(None), self._other
        if whole is None or not other:
            return
        if whole.has_synced and not whole.failed:
            await self._stop(other)
        else:
            await self._stop_refused(other)
        if _is_refused(whole) and other not in self._informers:
            self._start(other)

    def _start(self, namespace: str | None) -> None:
        made = Informer(
            self._kube, self._resource, namespace, patience=_FOREVER, key=lambda obj: "", transform=self._keep
        )
        made.add_handler(self._handler)
        made.start()
        self._informers[namespace] = made

    async def _stop_refused(self, namespace: str | None) -> None:
        """Stop a watch that was refused a while ago."""
        clock, running = asyncio.get_running_loop().time, self._informers.get(namespace)
        if running is None or not running.failed:
            return
        if clock() - self._ended.setdefault(namespace, clock()) > _AGAIN_SECONDS:
            await self._stop(namespace)

    async def _stop(self, namespace: str | None) -> None:
        self._ended.pop(namespace, None)
        if (running := self._informers.pop(namespace, None)) is not None:
            await running.stop()

    async def close(self) -> None:
        for namespace in list(self._informers):
            await self._stop(namespace)

    async def settled(self) -> None:
        """Wait until lists were taken over or refused, or the server does not answer."""
        await asyncio.gather(*(each.settled() for each in list(self._informers.values())))
        before = set(self._informers)
        await self._open_other()
        await asyncio.gather(*(each.settled() for name, each in list(self._informers.items()) if name not in before))

    @property
    def shown(self) -> Sequence[Informer]:
        """The informers whose objects are shown."""
        if (other := self._informers.get(self._other)) is not None:
            return [other]
        return list(self._informers.values())

    @property
    def is_narrowed(self) -> bool:
        """Whether those of all namespaces may not be listed, and of one alone are shown."""
        return self._other in self._informers

    @property
    def is_everything(self) -> bool:
        """Whether `objects` are those of all namespaces."""
        whole = self._informers.get(None)
        return whole is not None and whole.has_synced and not whole.failed

    def objects(self) -> list[Object]:
        return [obj for each in self.shown for obj in each.objects.list()]

    def get(self, namespace: str, name: str) -> Object | None:
        found = (each.objects.get(f"{namespace}/{name}") for each in self.shown)
        return next(filter(None, found), None)

    @property
    def trouble(self) -> str:
        """Why it is not all there; empty where it is."""
        for namespace, informer in self._informers.items():
            if informer not in self.shown or informer.error is None:
                continue
            if not _is_refused(informer):
                return f"{self._resource.plural} cannot be watched: {informer.error}"
            where = f"namespace {namespace}" if namespace else "all namespaces"
            where += ", nor of all" if self.is_narrowed else ""
            return f"You may not list {self._resource.plural} of {where}: {informer.error}"
        return ""


def _is_refused(informer: Informer) -> bool:
    return isinstance(informer.error, ApiError) and informer.error.status == _FORBIDDEN
