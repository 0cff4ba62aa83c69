"""An API server in memory with what Jobs need. Tests can make it refuse or forget requests, and change its objects."""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from remit.errors import ApiError
from remit.kube.access import Access
from remit.kube.client import PODS, Kube, Object


class JobServer(Kube):
    """The API server. `before` is called with each request's method and path and may raise. `created` is called with
    each new object, so that a test can act as a controller or as another client."""

    def __init__(self) -> None:
        super().__init__(Access("http://jobs.invalid"))
        self.objects: dict[str, Object] = {}
        self.logs: dict[str, bytes] = {}
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.created: Callable[[str, Object], None] = lambda path, obj: None
        self.deaf = False
        """Whether watches end immediately."""
        self.requests: list[tuple[str, str]] = []
        self.partial: list[str] = []
        """Paths of objects of which only the metadata was read."""
        self._numbers = itertools.count(1)
        self._watches: list[asyncio.Queue[tuple[str, Object]]] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        await asyncio.sleep(0)
        self.requests.append((method, path))
        self.before(method, path)
        if method == "POST":
            made = copy.deepcopy(body)
            if "generateName" in made["metadata"]:
                made["metadata"]["name"] = f"{made['metadata']['generateName']}{next(self._numbers)}"
            path = f"{path}/{made['metadata']['name']}"
            if path in self.objects:
                raise ApiError(f"{path} already exists", status=409, reason="AlreadyExists")
            return self._stamped(made) if (params or {}).get("dryRun") else self.put(path, made)
        if method == "GET" and path not in self.objects and not path.rsplit("/", 1)[1].startswith("remit-"):
            return {"items": self.under(path), "metadata": {"resourceVersion": str(next(self._numbers))}}
        if path not in self.objects:
            raise ApiError(f"{path} not found", status=404, reason="NotFound")
        if method == "DELETE":
            self._delete(path, ((body or {}).get("preconditions") or {}).get("uid"))
        found = copy.deepcopy(self.objects.get(path, {}))
        if "PartialObjectMetadata" in accept:
            self.partial.append(path)
            return {"metadata": found["metadata"]}
        return found

    def put(self, path: str, obj: Object) -> Object:
        """Stores an object as if another client had created or changed it."""
        if namespace := re.search("/namespaces/([^/]+)/", path):
            obj["metadata"]["namespace"] = namespace[1]
        made = self.objects[path] = self._stamped(obj)
        self._tell("MODIFIED" if made is None else "ADDED", path)
        self.created(path, copy.deepcopy(made))
        return copy.deepcopy(made)

    def take(self, path: str) -> None:
        """Removes an object as if another client had deleted it."""
        self._tell("DELETED", path)
        del self.objects[path]

    def under(self, path: str) -> list[Object]:
        folders = {key: key.rpartition("/")[0] for key in self.objects}
        everywhere = {key: re.sub("/namespaces/[^/]+", "", folder) for key, folder in folders.items()}
        return [copy.deepcopy(obj) for key, obj in self.objects.items() if path in {folders[key], everywhere[key]}]

    def _stamped(self, obj: Object) -> Object:
        obj["metadata"].setdefault("uid", f"u{next(self._numbers)}")
        obj["metadata"].setdefault("creationTimestamp", datetime.now(UTC).isoformat())
        obj["metadata"]["resourceVersion"] = str(next(self._numbers))
        return obj

    def _delete(self, path: str, uid: str | None) -> None:
        metadata = self.objects[path]["metadata"]
        if uid is not None and uid != metadata["uid"]:
            raise ApiError("the UID in the precondition is another one", status=409, reason="Conflict")
        if metadata.get("finalizers"):
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return
        self.take(path)
        for other, obj in list(self.objects.items()):
            if any(owner["uid"] == metadata["uid"] for owner in obj["metadata"].get("ownerReferences", [])):
                self.take(other)

    def _tell(self, kind: str, path: str) -> None:
        if "/pods/" in path:
            obj = self.objects[path]
            obj["metadata"]["resourceVersion"] = str(next(self._numbers))
            for watch in self._watches:
                watch.put_nowait((kind, copy.deepcopy(obj)))

    async def watch(self, resource: Any, namespace: str | None = None, **how: str) -> AsyncGenerator[Any, None]:
        self.before("WATCH", resource.path(namespace))
        assert resource is PODS
        if self.deaf:
            return
        changes: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self._watches.append(changes)
        try:
            while True:
                yield await changes.get()
        finally:
            self._watches.remove(changes)

    async def stream(
        self, path: str, *, params: Mapping[str, str], silence_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        self.before("GET", path)
        yield self.logs.get(path.split("/")[-2], b"")
