"""get and list."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import islice
from typing import NamedTuple

import orjson

from remit.controlplane.failures import expired
from remit.controlplane.http.negotiation import Accepted
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.resources import ServedResource
from remit.controlplane.storage import Record
from remit.controlplane.verbs.cluster import Cluster, RequestInfo, load, view
from remit.controlplane.verbs.revisions import Continue, check_list_revision, parse_revision, require_reached
from remit.controlplane.verbs.selection import Selection, select
from remit.controlplane.verbs.shapes import partial_metadata, show, table


def get(cluster: Cluster, target: RequestInfo, request: ApiRequest, accepted: Accepted) -> bytes:
    require_reached(cluster.store, parse_revision(request.text("resourceVersion")))
    record = cluster.store.get(target.resource.stored_as, target.namespace, target.name)
    if record is None:
        raise target.resource.not_found(target.name)
    return show(
        target.resource,
        view(target.resource, record),
        accepted,
        cluster.now(),
        request.text("includeObject", "Metadata"),
    )


class Listing(NamedTuple):
    """A list that is decided upon. `show` selects and encodes its objects; it may be called in a thread."""

    candidates: int
    show: Callable[[], bytes]


def list_objects(cluster: Cluster, target: RequestInfo, request: ApiRequest, accepted: Accepted) -> Listing:
    """A list is one consistent view: a chunk that continues shows the revision of the first chunk."""
    store, resource = cluster.store, target.resource
    asked, match = check_list_revision(request)
    selection = select(target, request.text("labelSelector"), request.text("fieldSelector"))
    limit = request.number("limit") or 0
    request.number("timeoutSeconds")  # a list does not use it, but refuses a value that is not a number
    token = request.text("continue")
    revision, start = Continue.decode(token) if token else (store.revision, "")
    require_reached(store, asked)
    require_reached(store, revision)  # the token may be from another server or forged
    if match == "Exact" or (asked and limit and not match and not token):
        revision = asked
    if revision < store.floor:
        raise expired(_EXPIRED_CONTINUE if token else "The resourceVersion for the provided list is too old.")

    collection = store.collection(resource.stored_as)
    if revision < store.revision:
        collection = collection.at(revision)
    keys = collection.select_keys(target.namespace, start)
    remaining = len(keys) - limit
    if selection.everything and limit > 0:
        del keys[limit + 1 :]
    candidates = [collection.records[key] for key in keys]
    now = cluster.now()
    show_list = partial(_list, candidates, remaining, selection, revision, limit, request, accepted, now)
    return Listing(len(candidates), show_list)


def _list(
    candidates: list[Record],
    remaining: int,
    selection: Selection,
    revision: int,
    limit: int,
    request: ApiRequest,
    accepted: Accepted,
    now: datetime,
) -> bytes:
    resource = selection.resource
    found = iter(candidates) if selection.everything else filter(selection, candidates)
    metadata: dict[str, object] = {"resourceVersion": str(revision)}
    if resource.custom and accepted.shape == "Object":
        metadata["continue"] = ""
    if limit > 0:
        records = list(islice(found, limit))
        following = next(found, None)
        if following is not None:
            metadata["continue"] = Continue(revision, following.key).encode()
            if selection.everything:
                metadata["remainingItemCount"] = remaining
    else:
        records = list(found)
    return _show_list(resource, records, metadata, request, accepted, now)


_EXPIRED_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You must start a new list "
    "without the continue parameter, or use a continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


def _show_list(
    resource: ServedResource,
    records: list[Record],
    metadata: dict[str, object],
    request: ApiRequest,
    accepted: Accepted,
    now: datetime,
) -> bytes:
    if accepted.shape == "Object" and not accepted.yaml and not accepted.pretty:
        return join_list(resource, records, metadata)
    objects = [load(resource, record) for record in records]
    if accepted.shape == "Table":
        include = request.text("includeObject", "Metadata")
        shown = table(resource, objects, now, version=accepted.version, include=include, metadata=metadata)
    elif accepted.shape == "Metadata":
        shown = {
            "kind": "PartialObjectMetadataList",
            "apiVersion": f"meta.k8s.io/{accepted.version}",
            "metadata": metadata,
            "items": [partial_metadata(obj, accepted.version) for obj in objects],
        }
    else:
        shown = orjson.loads(join_list(resource, records, metadata))
    return accepted.dump(shown)


def join_list(resource: ServedResource, records: list[Record], metadata: dict[str, object]) -> bytes:
    """The list's JSON, made of the records' own bytes. Items of built-in kinds do not repeat their type."""
    items = [view(resource, record) for record in records]
    if not resource.custom and resource.conversion is None:
        items = [_without_type(resource, item) for item in items]
    head = {"apiVersion": resource.api_version, "kind": resource.list_kind, "metadata": metadata}
    return orjson.dumps(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def _without_type(resource: ServedResource, item: bytes) -> bytes:
    if item.startswith(resource.prefix):
        return b"{" + item[len(resource.prefix) :]
    obj = orjson.loads(item)  # this server did not write the object, so its encoding may differ
    return orjson.dumps({key: value for key, value in obj.items() if key not in ("apiVersion", "kind")})
