"""Sends generated requests to control planes, and checks what must hold for every response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from controlplanes import Client, client_of
from remit.controlplane.server import ControlPlane

EXPECTED_500 = (
    "resourceVersion should not be set",
    "strconv.ParseUint",
    "failed to create typed patch object",
    "spec replicas field",
)
"""Responses with status 500 that kube-apiserver also gives; docs/control-plane.md lists them. A response to a bug has
another message."""


def is_expected(status: int, answer: Any) -> bool:
    """Returns whether a server without bugs may give this response."""
    text = answer if isinstance(answer, str) else str(answer.get("message", ""))
    return status < 500 or (status == 500 and any(words in text for words in EXPECTED_500))


def as_json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits, or text that is not valid Unicode
        return json.dumps(value).encode()


@asynccontextmanager
async def fuzzed(state: Path) -> AsyncIterator[Client]:
    async with ControlPlane(state) as server, client_of(server.kubeconfig) as client:
        yield client


async def resources(client: Client) -> list[str]:
    """Returns the path of every collection that can be listed over all namespaces."""
    prefixes = ["/api/v1"]
    for group in (await client.get("/apis"))["groups"]:
        prefixes += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    found = []
    for prefix in prefixes:
        listed = (await client.get(prefix))["resources"]
        found += [f"{prefix}/{each['name']}" for each in listed if "list" in each["verbs"]]
    return found


async def answers(client: Client) -> dict[str, Any]:
    """Returns every object by its collection, without objects that are being deleted, and the discovery documents of
    their kinds."""
    told: dict[str, Any] = {}
    for path in await resources(client):
        items = (await client.get(path))["items"]
        told[path] = [item for item in items if "deletionTimestamp" not in item["metadata"]]
    index = (await client.get("/openapi/v3"))["paths"]
    told["/openapi/v3"] = {path: known["serverRelativeURL"] for path, known in index.items()}
    return told
