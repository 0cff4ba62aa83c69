"""Which verb answers a request, and how its outcome becomes an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from remit.controlplane.failures import (
    Failure,
    bad_request,
    forbidden,
    no_such_method,
    no_such_path,
    no_such_resource,
    not_supported,
)
from remit.controlplane.http import discovery, reviews
from remit.controlplane.http.bodies import decode, load_yaml, unreadable
from remit.controlplane.http.documents import Documents
from remit.controlplane.http.negotiation import JSON, Accepted, negotiate
from remit.controlplane.http.request import Request, ResourcePath, parse_path
from remit.controlplane.resources import Resource
from remit.controlplane.resources.builtin import BUILTIN_GROUPS
from remit.controlplane.storage import Object
from remit.controlplane.verbs import read, scale, write
from remit.controlplane.verbs.cluster import Cluster, Target
from remit.controlplane.verbs.delete import DeleteOptions, delete, delete_collection
from remit.controlplane.verbs.patches import APPLY_PATCH, patch_type
from remit.controlplane.verbs.shapes import show
from remit.controlplane.verbs.watch import Watch


@dataclass(frozen=True)
class Answer:
    """What goes back: whole bytes, or a watch to stream."""

    status: int
    body: bytes | Watch
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Dispatcher:
    def __init__(self, cluster: Cluster, documents: Documents) -> None:
        self._cluster = cluster
        self._documents = documents

    async def answer(self, request: Request) -> Answer:
        """Raises `Failure` and `PlainFailure` for everything that is refused."""
        path = parse_path(request.path)
        if path is None:
            return self._document(request)
        if request.method == "POST" and not path.name and (review := self._review(path, request)):
            return review
        target = self._target(path)
        accepted = negotiate(request.headers.get("Accept", ""), pretty=request.flag("pretty"))
        if target.resource.deprecated:
            request.warnings.append(target.resource.deprecated)
        if request.method in ("GET", "HEAD"):
            return self._read(target, request, accepted)
        try:
            return await self._write(target, request, accepted)
        except Failure:
            await self._cluster.store.durable()  # the refusal may speak of a write that is still on its way
            raise

    def _document(self, request: Request) -> Answer:
        found = self._documents.find(request) if request.method in ("GET", "HEAD") else None
        if found is None:
            raise no_such_resource() if request.path.startswith("/api/") else no_such_path()
        return Answer(found.status, found.body, found.content_type, found.headers)

    def _review(self, path: ResourcePath, request: Request) -> Answer | None:
        if (path.group, path.version) not in (("authorization.k8s.io", "v1"), ("authentication.k8s.io", "v1")):
            return None
        body = decode(request.body, request.headers.get("Content-Type", ""), "SelfSubjectAccessReview")
        answer = reviews.review(path.resource, body if isinstance(body, dict) else {})
        return Answer(201, orjson.dumps(answer)) if answer else None

    def _target(self, path: ResourcePath) -> Target:
        resource = self._cluster.registry.find(path.group, path.version, path.resource)
        if resource is None or (path.namespace and not resource.namespaced):
            if path.group in BUILTIN_GROUPS:
                raise no_such_resource()
            raise no_such_path()
        if path.subresource and path.subresource not in discovery.subresources(resource):
            raise resource.not_found(path.name) if resource.custom else no_such_resource()
        if path.name and resource.namespaced and not path.namespace:
            raise no_such_path()
        return Target(resource, path.namespace, path.name, path.subresource)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read(self, target: Target, request: Request, accepted: Accepted) -> Answer:
        if request.flag("watch") and not target.name:
            return Answer(200, Watch(self._cluster, target, request, accepted))
        if target.subresource == "scale":
            return Answer(200, accepted.dump(scale.get_scale(self._cluster, target)), accepted.content_type)
        verb = read.get if target.name else read.list_objects
        return Answer(200, verb(self._cluster, target, request, accepted), accepted.content_type)

    # ---- writing ---------------------------------------------------------------------------------------------------

    async def _write(self, target: Target, request: Request, accepted: Accepted) -> Answer:
        match request.method:
            case "POST" | "DELETE" if target.resource.namespaced and not target.namespace:
                raise no_such_path()
            case "PUT" | "PATCH" if target.resource.custom and not target.name:
                raise bad_request("name must be provided")
            case "POST" if not target.name:
                written = self._with_body(target, request, "create", write.create)
            case "PUT" if target.name:
                update = scale.put_scale if target.subresource == "scale" else write.update
                written = self._with_body(target, request, "update", update)
            case "PATCH" if target.name and target.subresource != "finalize":
                written = self._patch(target, request)
            case "DELETE" if not target.subresource:
                return await self._delete(target, request, accepted)
            case _:
                raise not_allowed(target.resource, request.method)
        await self._cluster.store.durable()
        if target.subresource == "scale":
            shown = accepted.dump(written.obj)
        else:
            shown = show(target.resource, orjson.dumps(written.obj), accepted, self._cluster.now())
        return Answer(written.status, shown, accepted.content_type)

    def _with_body(
        self, target: Target, request: Request, verb: str, act: Callable[..., write.Written]
    ) -> write.Written:
        self._require_verb(target.resource, verb)
        resource = target.resource
        body = decode(
            request.body, request.headers.get("Content-Type", ""), resource.kind, protobuf=not resource.custom
        )
        return act(self._cluster, target, body, request, request.body)

    def _patch(self, target: Target, request: Request) -> write.Written:
        self._require_verb(target.resource, "patch")
        media = patch_type(target.resource, request.headers.get("Content-Type", ""))
        if target.subresource == "scale":
            return scale.patch_scale(self._cluster, target, media, request)
        if media == APPLY_PATCH:
            try:
                config = load_yaml(request.body)
            except ValueError as error:
                raise unreadable(target.resource.kind, str(error), request.body) from None
            return write.apply(self._cluster, target, config, request)
        return write.patch(self._cluster, target, media, request.body, request)

    async def _delete(self, target: Target, request: Request, accepted: Accepted) -> Answer:
        self._require_verb(target.resource, "delete" if target.name else "deletecollection")
        content_type = request.headers.get("Content-Type", "")
        body = decode(request.body, content_type, "DeleteOptions") if request.body else None
        options = DeleteOptions.of(request, body)
        if target.name:
            status, obj = delete(self._cluster, target, options)
            await self._cluster.store.durable()
            if obj["kind"] == "Status":
                return Answer(status, accepted.dump(obj), accepted.content_type)
            return Answer(status, show(target.resource, orjson.dumps(obj), accepted, self._cluster.now()))
        gone = delete_collection(self._cluster, target, request, options)
        await self._cluster.store.durable()
        metadata: Object = {"resourceVersion": str(self._cluster.store.revision)}
        if target.resource.custom:
            metadata["continue"] = ""
        return Answer(200, read.join_list(target.resource, gone, metadata))

    def _require_verb(self, resource: Resource, verb: str) -> None:
        if verb in resource.verbs:
            return
        if resource.custom:
            why = f"{verb} not allowed while custom resource definition is terminating"
            raise forbidden(resource.group, resource.plural, "", why)
        raise not_supported(resource.group, resource.plural, verb)


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def not_allowed(resource: Resource, method: str) -> Failure:
    if resource.custom:
        return not_supported(resource.group, resource.plural, _VERBS.get(method, ""))
    return no_such_method()
