"""Everything that is not a resource: discovery, OpenAPI, version, health, metrics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from remit.controlplane.http import discovery
from remit.controlplane.http.metrics import RequestMetrics
from remit.controlplane.http.negotiation import JSON, negotiate
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.schema import openapi_v3
from remit.controlplane.schema.protobuf import openapi_v2_protobuf
from remit.controlplane.verbs.cluster import Cluster

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0+remit",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
"""The kube-apiserver release whose behaviour is followed."""
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


@dataclass(frozen=True)
class Document:
    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Documents:
    """Documents are made when they are asked for, and kept until what is served changes."""

    def __init__(self, cluster: Cluster, address: str, metrics: RequestMetrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._address = address
        self._openapi: dict[tuple[str, str], bytes] = {}
        self._made_for = -1

    def find(self, request: ApiRequest) -> Document | None:
        """None when the path leads nowhere."""
        parts = request.path.strip("/").split("/")
        match parts:
            case ["healthz" | "livez" | "readyz", *_]:
                return self._health()
            case ["metrics"]:
                accept, cluster = request.headers.get("Accept", ""), self._cluster
                return Document(*self._metrics.render(accept, cluster.store, cluster.registry))
            case ["version"]:
                return _json(VERSION)
            case ["api"] | ["apis"] | ["api", _] | ["apis", _] | ["apis", _, _]:
                return self._discovery(parts, request)
            case ["openapi", "v2"]:
                return Document(openapi_v2_protobuf(), _V2_PROTOBUF, headers={"Vary": "Accept"})
            case ["openapi", "v3"]:
                return self._openapi_index()
            case ["openapi", "v3", "api", version]:
                return self._openapi_document("", version)
            case ["openapi", "v3", "apis", group, version]:
                return self._openapi_document(group, version)
            case [""]:
                return _json(
                    {
                        "paths": [
                            "/api",
                            "/apis",
                            "/healthz",
                            "/livez",
                            "/metrics",
                            "/openapi/v2",
                            "/openapi/v3",
                            "/readyz",
                            "/version",
                        ]
                    }
                )
        return None

    def _health(self) -> Document:
        if self._cluster.store.failed.done():
            return Document(b"storage failed\n", "text/plain; charset=utf-8", 500)
        return Document(b"ok", "text/plain; charset=utf-8")

    def _discovery(self, parts: list[str], request: ApiRequest) -> Document | None:
        registry, accept = self._cluster.registry, request.headers.get("Accept", "")
        version = discovery.wanted_aggregation(accept) if len(parts) == 1 else None
        if version:
            names = [""] if parts == ["api"] else discovery.groups(registry)
            document = discovery.aggregated(registry, names, version)
            tag = discovery.etag(document)
            headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
            kind = discovery.aggregated_type(version)
            if request.headers.get("If-None-Match") == tag:
                return Document(b"", kind, 304, headers)
            return Document(orjson.dumps(document), kind, headers=headers)
        negotiate(accept)
        match parts:
            case ["api"]:
                return _json(discovery.core_versions(self._address))
            case ["apis"]:
                return _json(discovery.group_list(registry))
            case ["api", "v1"]:
                return _json(discovery.resource_list(registry, "", "v1"))
            case ["apis", group] if discovery.versions(registry, group):
                return _json(discovery.api_group(registry, group))
            case ["apis", group, version] if version in discovery.versions(registry, group):
                return _json(discovery.resource_list(registry, group, version))
        return None

    # ---- OpenAPI ---------------------------------------------------------------------------------------------------

    def _openapi_bytes(self, group: str, version: str) -> bytes:
        registry = self._cluster.registry
        if self._made_for != registry.generation:
            self._openapi.clear()
            self._made_for = registry.generation
        key = (group, version)
        if key not in self._openapi:
            self._openapi[key] = orjson.dumps(openapi_v3(group, version, registry.served(group, version)))
        return self._openapi[key]

    def _openapi_index(self) -> Document:
        registry = self._cluster.registry
        paths = {}
        for group in ["", *registry.groups()]:
            for version in registry.versions(group):
                path = f"apis/{group}/{version}" if group else f"api/{version}"
                digest = hashlib.sha256(self._openapi_bytes(group, version)).hexdigest().upper()
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
        return _json({"paths": paths})

    def _openapi_document(self, group: str, version: str) -> Document | None:
        if version not in self._cluster.registry.versions(group):
            return None
        body = self._openapi_bytes(group, version)
        return Document(body, headers={"ETag": f'"{hashlib.sha256(body).hexdigest().upper()}"'})


def _json(document: Any) -> Document:
    return Document(orjson.dumps(document))
