"""Control planes that are sent what tests make up, and what must be true of them whatever that is."""

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
"""As kube-apiserver answers them: docs/control-plane.md names them. A bug has a message of its own."""


def is_expected(status: int, answer: Any) -> bool:
    """Whether a server without bugs may answer so."""
    text = answer if isinstance(answer, str) else str(answer.get("message", ""))
    return status < 500 or (status == 500 and any(words in text for words in EXPECTED_500))


def as_json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits, or a text that is no Unicode
        return json.dumps(value).encode()


@asynccontextmanager
async def fuzzed(state: Path) -> AsyncIterator[Client]:
    async with ControlPlane(state) as server, client_of(server.kubeconfig) as client:
        yield client


async def resources(client: Client) -> list[str]:
    """The path of every collection that can be listed, over all namespaces."""
    prefixes = ["/api/v1"]
    for group in (await client.get("/apis"))["groups"]:
        prefixes += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    found = []
    for prefix in prefixes:
        listed = (await client.get(prefix))["resources"]
        found += [f"{prefix}/{each['name']}" for each in listed if "list" in each["verbs"]]
    return found


async def answers(client: Client) -> dict[str, Any]:
    """Every object by its collection, without those that are on their way out, and what is told of their kinds."""
    told: dict[str, Any] = {}
    for path in await resources(client):
        items = (await client.get(path))["items"]
        told[path] = [item for item in items if "deletionTimestamp" not in item["metadata"]]
    index = (await client.get("/openapi/v3"))["paths"]
    told["/openapi/v3"] = {path: known["serverRelativeURL"] for path, known in index.items()}
    return told
