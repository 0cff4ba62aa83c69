"""Chooses the verb that answers a request, and turns its outcome into an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import orjson

from remit.controlplane.failures import (
    Failure,
    bad_request,
    body_too_large,
    conflict,
    forbidden,
    no_such_method,
    no_such_path,
    no_such_resource,
    not_supported,
)
from remit.controlplane.http import discovery
from remit.controlplane.http.bodies import decode, load_yaml, unreadable
from remit.controlplane.http.documents import Documents
from remit.controlplane.http.negotiation import JSON, Accepted, negotiate
from remit.controlplane.http.request import ApiRequest, ResourcePath
from remit.controlplane.http.reviews import Reviews
from remit.controlplane.resources import ServedResource
from remit.controlplane.resources.builtin import BUILTIN_GROUPS
from remit.controlplane.schema.celcost import NotOnLoop
from remit.controlplane.storage import Object
from remit.controlplane.verbs import read, scale, write
from remit.controlplane.verbs.cluster import Cluster, RequestInfo, Writer
from remit.controlplane.verbs.delete import DeleteOptions, delete, delete_collection
from remit.controlplane.verbs.draft import Aside, Draft
from remit.controlplane.verbs.patches import APPLY_PATCH, JSON_PATCH, patch_type
from remit.controlplane.verbs.shapes import show
from remit.controlplane.verbs.watch import Watch

LONG_BYTES = 64 * 1024
"""Larger objects are decided upon in a thread: a dictionary of that size takes some 20 ms."""
MANY_OBJECTS = 200
MOST_THREADS = 2
MOST_DECISIONS = 10
"""How often a write is decided upon anew because others wrote meanwhile."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """An answer: whole bytes, or a watch to stream."""

    status: int
    body: bytes | Watch
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Dispatcher:
    def __init__(self, cluster: Cluster, documents: Documents, reviews: Reviews) -> None:
        self._cluster = cluster
        self._documents = documents
        self._reviews = reviews
        self._threads = asyncio.Semaphore(MOST_THREADS)
        self._turns: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()
        """Locks of objects whose write is retried after a conflict. Others wait, or it could lose to them for ever."""

    async def answer(self, request: ApiRequest) -> Answer:
        """Raises `Failure` and `PlainFailure` for everything that is refused."""
        path = request.resource_path
        if path is None:
            return self._document(request)
        if request.method == "POST" and (review := self._reviews.answer(path, partial(self._review_body, request))):
            return Answer(201, orjson.dumps(review))
        target = self._target(path)
        accepted = negotiate(request.headers.get("Accept", ""), pretty=request.flag("pretty"))
        if target.resource.deprecated:
            request.warnings.append(target.resource.deprecated)
        if request.method in ("GET", "HEAD"):
            return await self._read(target, request, accepted)
        try:
            return await self._write(path, target, request, accepted)
        except Failure:
            await self._cluster.store.durable()  # the refusal may be based on a write that is not yet durable
            raise

    def _document(self, request: ApiRequest) -> Answer:
        found = self._documents.find(request) if request.method in ("GET", "HEAD") else None
        if found is None:
            raise no_such_resource() if request.path.startswith("/api/") else no_such_path()
        return Answer(found.status, found.body, found.content_type, found.headers)

    async def _decode(self, request: ApiRequest, kind: str) -> Any:
        content_type = request.headers.get("Content-Type", "")
        act = partial(decode, request.body, content_type, kind)
        return await self._aside(act) if is_long(request.body, content_type) else act()

    def _review_body(self, request: ApiRequest, kind: str) -> Any:
        if len(request.body) > LONG_BYTES:
            raise body_too_large(LONG_BYTES)
        return decode(request.body, request.headers.get("Content-Type", ""), kind)

    def _target(self, path: ResourcePath) -> RequestInfo:
        resource = self._cluster.registry.find(path.group, path.version, path.resource)
        if resource is None or (path.namespace and not resource.namespaced):
            if path.group in BUILTIN_GROUPS:
                raise no_such_resource()
            raise no_such_path()
        if path.subresource and path.subresource not in discovery.subresources(resource):
            raise resource.not_found(path.name) if resource.custom else no_such_resource()
        if path.name and resource.namespaced and not path.namespace:
            raise no_such_path()
        return RequestInfo(resource, path.namespace, path.name, path.subresource)

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def _read(self, target: RequestInfo, request: ApiRequest, accepted: Accepted) -> Answer:
        if request.flag("watch") and not target.name:
            return Answer(200, Watch(self._cluster, target, request, accepted))
        if target.subresource == "scale":
            return Answer(200, accepted.dump(scale.get_scale(self._cluster, target)), accepted.content_type)
        if target.name:
            return Answer(200, read.get(self._cluster, target, request, accepted), accepted.content_type)
        listing = read.list_objects(self._cluster, target, request, accepted)
        shown = await self._aside(listing.show) if listing.candidates > MANY_OBJECTS else listing.show()
        return Answer(200, shown, accepted.content_type)

    # ---- writing ---------------------------------------------------------------------------------------------------

    async def _write(self, path: ResourcePath, target: RequestInfo, request: ApiRequest, accepted: Accepted) -> Answer:
        match request.method:
            case "POST" | "DELETE" if target.resource.namespaced and not target.namespace:
                raise no_such_path()
            case "PUT" | "PATCH" if target.resource.custom and not target.name:
                raise bad_request("name must be provided")
            case "DELETE" if not target.subresource:
                return await self._delete(target, request, accepted)
        written = await self._decide(path, request)
        await self._cluster.store.durable()
        if target.subresource == "scale":
            shown = accepted.dump(scale.show_scale(target.resource, written.obj))
        else:
            shown = show(target.resource, orjson.dumps(written.obj), accepted, self._cluster.now())
        return Answer(written.status, shown, accepted.content_type)

    async def _decide(self, path: ResourcePath, request: ApiRequest) -> write.Written:
        """Decide on a write before it reaches the store, without blocking the event loop."""
        told = len(request.warnings)
        key = path.group, path.resource, path.namespace, path.name
        async with self._turns.get(key) or contextlib.nullcontext():
            target = self._target(path)
            if not self._takes_long(target, request):
                try:
                    return self._act(self._cluster, target, request)
                except NotOnLoop:
                    del request.warnings[told:]
        if (written := await self._decide_aside(path, request)) is not None:
            return written
        async with self._turns.setdefault(key, asyncio.Lock()):
            for _ in range(MOST_DECISIONS):
                del request.warnings[told:]
                if (written := await self._decide_aside(path, request)) is not None:
                    return written
        raise conflict(target.resource.group, target.resource.plural, target.name)

    async def _decide_aside(self, path: ResourcePath, request: ApiRequest) -> write.Written | None:
        """Decide in a thread. None, and nothing is written, when the object or its kind has changed meanwhile."""
        target = self._target(path)
        draft = Draft(self._cluster.store)
        written = await self._aside(partial(self._act, Aside(draft, self._cluster.now), target, request))
        return written if self._target(path).resource is target.resource and draft.commit() else None

    def _takes_long(self, target: RequestInfo, request: ApiRequest) -> bool:
        live = self._cluster.store.latest(target.resource.stored_as, target.namespace, target.name)
        return is_long(request.body, request.headers.get("Content-Type", "")) or (
            live is not None and len(live.raw) > LONG_BYTES
        )

    async def _aside(self, act: Callable[[], T]) -> T:
        """Run it in a thread. There are few threads, so that the event loop gets its share of the interpreter."""
        async with self._threads:
            return await asyncio.to_thread(act)

    def _act(self, cluster: Writer, target: RequestInfo, request: ApiRequest) -> write.Written:
        match request.method:
            case "POST" if not target.name:
                return self._with_body(cluster, target, request, "create", write.create)
            case "PUT" if target.name:
                update = scale.put_scale if target.subresource == "scale" else write.update
                return self._with_body(cluster, target, request, "update", update)
            case "PATCH" if target.name and target.subresource != "finalize":
                return self._patch(cluster, target, request)
        raise not_allowed(target.resource, request.method)

    def _with_body(
        self, cluster: Writer, target: RequestInfo, request: ApiRequest, verb: str, act: Callable[..., write.Written]
    ) -> write.Written:
        self._require_verb(target.resource, verb)
        resource = target.resource
        body = decode(
            request.body, request.headers.get("Content-Type", ""), resource.kind, protobuf=not resource.custom
        )
        return act(cluster, target, body, request, request.body)

    def _patch(self, cluster: Writer, target: RequestInfo, request: ApiRequest) -> write.Written:
        self._require_verb(target.resource, "patch")
        media = patch_type(target.resource, request.headers.get("Content-Type", ""))
        if target.subresource == "scale":
            return scale.patch_scale(cluster, target, media, request)
        if media == APPLY_PATCH:
            try:
                config = load_yaml(request.body)
            except ValueError as error:
                raise unreadable(target.resource.kind, str(error), request.body) from None
            return write.apply(cluster, target, config, request)
        return write.patch(cluster, target, media, request.body, request)

    async def _delete(self, target: RequestInfo, request: ApiRequest, accepted: Accepted) -> Answer:
        self._require_verb(target.resource, "delete" if target.name else "deletecollection")
        body = await self._decode(request, "DeleteOptions") if request.body else None
        options = DeleteOptions.of(request, body)
        if target.name:
            status, obj = delete(self._cluster, target, options)
            await self._cluster.store.durable()
            if obj["kind"] == "Status":
                return Answer(status, accepted.dump(obj), accepted.content_type)
            return Answer(status, show(target.resource, orjson.dumps(obj), accepted, self._cluster.now()))
        gone = await delete_collection(self._cluster, target, request, options)
        await self._cluster.store.durable()
        metadata: Object = {"resourceVersion": str(self._cluster.store.revision)}
        if target.resource.custom:
            metadata["continue"] = ""
        return Answer(200, read.join_list(target.resource, gone, metadata))

    def _require_verb(self, resource: ServedResource, verb: str) -> None:
        if verb in resource.verbs:
            return
        if resource.custom:
            why = f"{verb} not allowed while custom resource definition is terminating"
            raise forbidden(resource.group, resource.plural, "", why)
        raise not_supported(resource.group, resource.plural, verb)


def is_long(body: bytes, content_type: str) -> bool:
    """Whether reading or applying the body may take longer than the event loop may stand still."""
    if len(body) > LONG_BYTES or ("yaml" in content_type and body[:1] != b"{"):
        return True
    return JSON_PATCH in content_type and (len(body) > 1024 or b"copy" in body or b"\\" in body)


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def not_allowed(resource: ServedResource, method: str) -> Failure:
    if resource.custom:
        return not_supported(resource.group, resource.plural, _VERBS.get(method, ""))
    return no_such_method()
