"""Control planes for tests, in this process or as a process that can be killed, and a small client."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
Object = dict[str, Any]

WIDGETS_CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.dev"},
    "spec": {
        "group": "example.dev",
        "scope": "Namespaced",
        "names": {
            "plural": "widgets",
            "singular": "widget",
            "kind": "Widget",
            "shortNames": ["wd"],
            "categories": ["all"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase", "priority": 1},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A widget, for tests.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What is wanted.",
                                "properties": {
                                    "size": {"type": "integer", "minimum": 0, "description": "How big it is."},
                                    "replicas": {"type": "integer", "default": 1},
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "replicas": {"type": "integer"},
                                    "phase": {"type": "string"},
                                    "conditions": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                                        },
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.dev/v1/namespaces/default/widgets"
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


def widget(name: str, size: int = 1, **metadata: Any) -> Object:
    metadata = {"name": name, **metadata}
    return {"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": metadata, "spec": {"size": size}}


def configmap(name: str, **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": "b"}}


def options(**fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": "DeleteOptions", **fields}


@dataclass
class Client:
    """A JSON client of a control plane, configured by its kubeconfig."""

    session: aiohttp.ClientSession
    url: str

    async def call(
        self, method: str, path: str, body: Any = None, *, type: str = "application/json", **query: str
    ) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Content-Type": type} if data is not None else {}
        async with self.session.request(method, self.url + path, data=data, params=query, headers=headers) as answer:
            raw = await answer.read()
            return answer.status, orjson.loads(raw) if raw[:1] in (b"{", b"[") else raw.decode()

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, answer = await self.call(method, path, body, **more)
        assert status in (200, 201, 202), (method, path, status, answer)
        return answer

    async def get(self, path: str, **query: str) -> Any:
        return await self.ok("GET", path, **query)

    async def create(self, path: str, body: Object) -> Any:
        return await self.ok("POST", path, body)

    async def merge(self, path: str, patch: Object) -> Any:
        return await self.ok("PATCH", path, patch, type="application/merge-patch+json")

    async def gone(self, path: str) -> None:
        """Waits until the object does not exist any more."""
        async with asyncio.timeout(PATIENCE):
            while (await self.call("GET", path))[0] != 404:
                await asyncio.sleep(0.02)

    async def names(self, path: str) -> list[str]:
        return [item["metadata"]["name"] for item in (await self.get(path))["items"]]

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[Events]:
        params = {"watch": "true", **query}
        async with self.session.get(self.url + path, params=params) as answer:
            assert answer.status == 200, await answer.text()
            yield Events(answer)


@dataclass
class Events:
    answer: aiohttp.ClientResponse

    async def next(self) -> tuple[str, Object]:
        async with asyncio.timeout(PATIENCE):
            line = await self.answer.content.readline()
        assert line, "the watch has ended"
        event = orjson.loads(line)
        return event["type"], event["object"]

    async def take(self, count: int) -> list[tuple[str, str]]:
        """Returns type and name of the next `count` events."""
        found = [await self.next() for _ in range(count)]
        return [(kind, obj["metadata"].get("name", "")) for kind, obj in found]

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            return not await self.answer.content.readline()


@asynccontextmanager
async def client_of(kubeconfig: Path) -> AsyncIterator[Client]:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    tls = ssl.create_default_context(cadata=authority)
    connector = aiohttp.TCPConnector(ssl=tls, limit=0)
    headers = {"Authorization": f"Bearer {user['token']}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**22) as session:
        yield Client(session, cluster["server"])


@dataclass
class Served:
    """A control plane in a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    kubeconfig: Path

    async def kill(self) -> None:
        """Kills the process, as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


async def serve(state: Path, port: int = 0) -> Served:
    """Starts `python -m remit.controlplane` and waits for its ready line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "remit.controlplane", "--state", str(state), "--port", str(port)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "operator")},
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        line = (await process.stdout.readline()).decode().split()
    assert line[:1] == ["ready"], line
    return Served(process, line[1], Path(line[2]))


@asynccontextmanager
async def served(state: Path, port: int = 0) -> AsyncIterator[Served]:
    server = await serve(state, port)
    try:
        yield server
    finally:
        await server.stop()
