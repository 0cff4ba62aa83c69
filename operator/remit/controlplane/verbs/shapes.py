"""The forms an object is shown in: itself, a row of a Table, its metadata."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson

from remit.controlplane.failures import bad_request
from remit.controlplane.http.negotiation import Accepted
from remit.controlplane.resources import ServedResource
from remit.controlplane.storage import Object


def partial_metadata(obj: Object, version: str) -> Object:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": obj["metadata"],
    }


def table(
    resource: ServedResource,
    objects: Iterable[Object],
    now: datetime,
    *,
    version: str = "v1",
    include: str = "Metadata",
    metadata: dict[str, Any] | None = None,
    columns: bool = True,
) -> Object:
    """A meta.k8s.io Table. `include` is the includeObject option: None, Metadata or Object."""
    if include not in ("", "None", "Metadata", "Object"):
        why = f"Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
        raise bad_request(f"Unable to convert to Table as requested: includeObject: {why}")
    rows = []
    for obj in objects:
        row: dict[str, Any] = {"cells": resource.columns.cells(obj, now)}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = partial_metadata(obj, version)
        else:
            row["object"] = None
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata or {},
        "columnDefinitions": resource.columns.definitions if columns else None,
        "rows": rows,
    }


def show(resource: ServedResource, shown: bytes, accepted: Accepted, now: datetime, include: str = "Metadata") -> bytes:
    """One object, as its resource shows it, in the form that was asked for."""
    if accepted.shape == "Object" and not accepted.yaml and not accepted.pretty:
        return shown
    obj = orjson.loads(shown)
    if accepted.shape == "Table":
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        obj = table(resource, [obj], now, version=accepted.version, include=include, metadata=metadata)
    elif accepted.shape == "Metadata":
        obj = partial_metadata(obj, accepted.version)
    return accepted.dump(obj)
