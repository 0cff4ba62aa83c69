"""Requests as they are counted and timed, in kube-apiserver's names and labels."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from remit.controlplane.http.request import ApiRequest
from remit.controlplane.resources import Registry
from remit.controlplane.storage import Store
from remit.controlplane.verbs.patches import APPLY_PATCH

_SECONDS: Final = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
_METHODS: Final = {"GET": "GET", "HEAD": "GET", "POST": "POST", "PUT": "PUT", "PATCH": "PATCH", "DELETE": "DELETE"}
_UNKNOWN: Final = ("OTHER", "", "", "", "", "")


class RequestMetrics:
    """Every metric of one control plane.

    Labels are bounded by what is served: a path that leads nowhere, a method that HTTP does not know, and a request
    without the token have empty labels but the verb, and one that could not be read has the verb `OTHER`.
    """

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("verb", "group", "version", "resource", "subresource", "scope")
        self._requests: Final = Counter(
            "apiserver_request_total", "Requests, by the code of the answer.", (*labels, "code"), registry=self.registry
        )
        self._duration: Final = Histogram(
            "apiserver_request_duration_seconds",
            "From a request to its answer, watches excepted.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._inflight: Final = Gauge(
            "apiserver_current_inflight_requests",
            "Requests that are being answered, watches excepted.",
            ("request_kind",),
            registry=self.registry,
        )
        self._watches: Final = Gauge(
            "apiserver_longrunning_requests", "Watches that are open.", labels, registry=self.registry
        )
        self._series: Final[dict[tuple[str, ...], _Series]] = {}
        self._objects: Final = Gauge(
            "apiserver_resource_objects", "Objects that are stored.", ("group", "resource"), registry=self.registry
        )

    def render(self, accept: str, store: Store, registry: Registry) -> tuple[bytes, str]:
        """The exposition in the format that an `Accept` header asks for, and its content type."""
        self._objects.clear()
        for resource in {(each.group, each.plural): each for each in registry}.values():
            number = len(store.collection(resource.stored_as).records)
            self._objects.labels(resource.group, resource.plural).set(number)
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def begin(self, request: ApiRequest, registry: Registry) -> Measuring:
        """Begin to measure `request`; call the result when it is answered."""
        labels = _labels(request, registry)
        if (series := self._series.get(labels)) is None:
            series = self._series[labels] = self._find(labels)
        return Measuring(series)

    def _find(self, labels: tuple[str, ...]) -> _Series:
        if labels[0] == "WATCH":
            return _Series(self._requests, labels, self._watches.labels(*labels), None)
        kind = "readOnly" if labels[0] in {"GET", "LIST"} else "mutating"
        return _Series(self._requests, labels, self._inflight.labels(kind), self._duration.labels(*labels))

    def refuse(self, code: int) -> None:
        """Count a request that was refused before anything of it was read."""
        self._requests.labels(*_UNKNOWN, str(code)).inc()


class _Series:
    """The metrics in which requests of the same labels are counted. Finding them by its labels takes longer than
    counting."""

    def __init__(self, requests: Counter, labels: tuple[str, ...], open_: Gauge, duration: Histogram | None) -> None:
        self._requests, self._labels = requests, labels
        self.open: Final = open_
        self.duration: Final = duration
        self._by_code: Final[dict[int, Counter]] = {}

    def answered(self, code: int) -> Counter:
        if (counter := self._by_code.get(code)) is None:
            counter = self._by_code[code] = self._requests.labels(*self._labels, str(code))
        return counter


class Measuring:
    """One request, from when it was read to its answer."""

    def __init__(self, series: _Series) -> None:
        self._series = series
        self._started = time.monotonic()
        series.open.inc()

    def end(self, code: int | None) -> None:
        """None: there was no answer, because the client has gone."""
        series = self._series
        series.open.dec()
        if code is None:
            return
        series.answered(code).inc()
        if series.duration is not None:
            series.duration.observe(time.monotonic() - self._started)


def _labels(request: ApiRequest, registry: Registry) -> tuple[str, ...]:
    verb = _METHODS.get(request.method, "OTHER")
    path = request.resource_path
    resource = registry.find(path.group, path.version, path.resource) if path is not None else None
    if path is None or resource is None:
        return verb, "", "", "", "", ""
    if not path.name:
        watched = verb == "GET" and request.flag("watch")
        verb = "WATCH" if watched else {"GET": "LIST", "DELETE": "DELETECOLLECTION"}.get(verb, verb)
    elif verb == "PATCH" and APPLY_PATCH in request.headers.get("Content-Type", ""):
        verb = "APPLY"
    scope = "resource" if path.name else "namespace" if path.namespace else "cluster"
    subresource = path.subresource
    if subresource != "finalize" and subresource not in resource.subresources:
        subresource = ""
    return verb, path.group, path.version, path.resource, subresource, scope
