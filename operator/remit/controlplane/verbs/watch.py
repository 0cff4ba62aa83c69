"""watch: the changes of a resource as a stream of events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import orjson

from remit.controlplane.failures import Failure, invalid
from remit.controlplane.http.negotiation import Accepted
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.storage import Change, EventType, Object, Record, Subscription
from remit.controlplane.verbs.cluster import Cluster, RequestInfo, load, view
from remit.controlplane.verbs.revisions import parse_revision, too_old
from remit.controlplane.verbs.selection import Selection, select
from remit.controlplane.verbs.shapes import partial_metadata, table

BOOKMARK_SECONDS = 50.0
"""kopf gives up on a watch that is silent for 70 s; kube-apiserver sends about one a minute."""
CHUNK_BYTES = 256 * 1024
"""A watcher is sent so much at once: what it does not read stays in history, which all watchers share."""
_LINE_BYTES = 64
"""A change that this watcher does not see counts too, for the time that it takes."""


@dataclass(frozen=True)
class WatchOptions:
    """How a watch begins and ends. `revision` 0 means: from now, after events for what exists."""

    revision: int
    initial: bool
    initial_end: bool
    bookmarks: bool
    timeout: float


def watch_options(request: ApiRequest) -> WatchOptions:
    """Raises 422 for options that contradict each other, 400 for a bad resourceVersion."""
    text, match = request.text("resourceVersion"), request.text("resourceVersionMatch")
    initial_asked = "sendInitialEvents" in request.query
    send_initial, bookmarks = request.flag("sendInitialEvents"), request.flag("allowWatchBookmarks")
    if initial_asked and match != "NotOlderThan":
        raise _options_invalid("resourceVersionMatch", "resourceVersionMatch must be set to NotOlderThan")
    if not initial_asked and match:
        raise _options_invalid(
            "resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )
    revision = parse_revision(text)
    return WatchOptions(
        revision=revision,
        initial=send_initial or (revision == 0 and not initial_asked),
        initial_end=send_initial and bookmarks,
        bookmarks=bookmarks,
        timeout=float(request.number("timeoutSeconds") or random.randint(1800, 3600)),  # noqa: S311 - spreads load
    )


def _options_invalid(field: str, why: str) -> Failure:
    message = f"Forbidden: {why}"
    return invalid("meta.k8s.io", "ListOptions", "", [("FieldValueForbidden", message, field)])


class Watch:
    """One watch request. Iterate over it: chunks of whole lines; it ends at its timeout, or with an ERROR event."""

    def __init__(self, cluster: Cluster, target: RequestInfo, request: ApiRequest, accepted: Accepted) -> None:
        self._cluster = cluster
        self._resource = target.resource
        self._selection: Selection = select(target, request.text("labelSelector"), request.text("fieldSelector"))
        self._options = watch_options(request)
        self._accepted = accepted
        self._include = request.text("includeObject", "Metadata")
        self._first_row = True
        self._stopping = False
        self._awake = asyncio.Event()

    def stop(self) -> None:
        """End the stream at the next opportunity: the server is going down."""
        self._stopping = True
        self._awake.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        store, options = self._cluster.store, self._options
        stored_as = self._resource.stored_as
        after = store.revision if options.initial or options.revision == 0 else options.revision
        if after < store.floor:
            yield self._error(too_old(after, store.floor))
            return
        subscription = store.subscribe(stored_as, after, self._awake.set)
        try:
            if options.initial:
                for chunk in self._initial_chunks():
                    yield chunk
            yield self._bookmark(after, initial_end=True) if options.initial_end else b""
            loop = asyncio.get_running_loop()
            end = loop.time() + options.timeout
            while (now := loop.time()) < end and not self._stopping:
                if subscription.changes:
                    self._awake.clear()
                    yield self._chunk(subscription)
                elif subscription.overrun:
                    return
                else:
                    self._awake.clear()
                    try:
                        async with asyncio.timeout(min(end - now, BOOKMARK_SECONDS)):
                            await self._awake.wait()
                    except TimeoutError:
                        if options.bookmarks:
                            yield self._bookmark(store.revision)
        finally:
            store.unsubscribe(stored_as, subscription)

    # ---- events ----------------------------------------------------------------------------------------------------

    def _initial_chunks(self) -> Iterator[bytes]:
        records = list(self._cluster.store.collection(self._resource.stored_as).select(self._selection.namespace))
        lines: list[bytes] = []
        size = 0
        for record in records:
            if self._selection(record):
                lines.append(self._encode("ADDED", record))
                size += len(lines[-1])
            if size >= CHUNK_BYTES:
                yield b"".join(lines)
                lines, size = [], 0
        yield b"".join(lines)

    def _chunk(self, subscription: Subscription) -> bytes:
        """The next changes, so many that their memory does not count."""
        lines: list[bytes] = []
        size = 0
        while subscription.changes and size < CHUNK_BYTES:
            lines.append(self._line(subscription.changes.popleft()))
            size += len(lines[-1]) + _LINE_BYTES
        return b"".join(lines)

    def _line(self, change: Change) -> bytes:
        """The event as this watcher's selectors see it: objects come and go with their labels."""
        selection = self._selection
        now = not change.deleted and selection(change.record)
        before = change.previous is not None and selection(change.previous)
        if change.deleted:
            return self._encode("DELETED", change.record) if before else b""
        if now:
            return self._encode("MODIFIED" if before else "ADDED", change.record)
        if before and change.previous is not None:
            return self._encode("DELETED", _at_revision(change.previous, change.record.revision))
        return b""

    def _encode(self, kind: EventType, record: Record) -> bytes:
        if self._accepted.shape != "Object":
            return self._wrap(kind, self._reshape(load(self._resource, record)))
        return _event(kind, view(self._resource, record))

    def _reshape(self, obj: Object) -> Object:
        if self._accepted.shape == "Metadata":
            return partial_metadata(obj, self._accepted.version)
        metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        columns, self._first_row = self._first_row, False
        return table(
            self._resource,
            [obj],
            self._cluster.now(),
            version=self._accepted.version,
            include=self._include,
            metadata=metadata,
            columns=columns,
        )

    def _bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata: Object = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Object = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        if self._accepted.shape == "Metadata":
            obj = partial_metadata(obj, self._accepted.version)
        elif self._accepted.shape == "Table":
            version = self._accepted.version
            obj = {"kind": "Table", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata, "rows": []}
        return self._wrap("BOOKMARK", obj)

    def _error(self, failure: Failure) -> bytes:
        return self._wrap("ERROR", failure.body())

    @staticmethod
    def _wrap(kind: str, obj: Object) -> bytes:
        return _event(kind, orjson.dumps(obj))


def _event(kind: str, raw: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"


def _at_revision(record: Record, revision: int) -> Record:
    """The object that left a selection, at the revision when it did."""
    obj = record.load()
    obj["metadata"]["resourceVersion"] = str(revision)
    return Record.of(obj, revision)
