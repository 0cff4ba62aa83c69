"""A raw HTTPS client that records requests and responses. It knows paths and media types, and no rules."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import aiohttp

from conformance.harness.servers import Server

JSON = "application/json"
YAML = "application/yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

PATIENCE_SECONDS = 40.0

Object = dict[str, Any]
View = Callable[[Any], Any]


@dataclass(frozen=True)
class Answer:
    """A response. `view` narrows what is compared with the other server's response; None compares no body."""

    request: str
    status: int
    headers: Mapping[str, list[str]]
    raw: bytes
    view: View | None = lambda body: body

    @cached_property
    def body(self) -> Any:
        # Not every JSON document is declared as one: an index of OpenAPI has the type text/plain.
        try:
            return json.loads(self.raw)
        except ValueError:
            return self.raw.decode(errors="backslashreplace")

    @property
    def media_type(self) -> str:
        return self.header("Content-Type").partition(";")[0]

    @property
    def warnings(self) -> list[str]:
        """Returns each warning, whether it is in a header of its own or shares one."""
        return [text for header in self.headers.get("warning", []) for text in re.split(r", (?=299 )", header)]

    def header(self, name: str) -> str:
        return ", ".join(self.headers.get(name.lower(), []))

    def ok(self, status: int = 200) -> Any:
        assert self.status == status, f"{self.request}: expected {status}, got {self.status}: {self.raw[:1000]!r}"
        return self.body

    def refused(self, status: int, reason: str, *words: str) -> Object:
        """Asserts a well-formed Status with `status` and `reason` whose message contains each of `words`."""
        body = self.ok(status)
        assert (body["kind"], body["apiVersion"], body["status"]) == ("Status", "v1", "Failure"), body
        assert (body["code"], body.get("reason", "")) == (status, reason), f"{self.request}: {body}"
        for word in words:
            assert word in body["message"], f"{self.request}: {word!r} is not in {body['message']!r}"
        return dict(body)

    def causes(self, status: int = 422) -> set[tuple[str, str]]:
        """Returns (field, reason) of every cause of a refusal with `status`."""
        details = self.ok(status).get("details", {})
        return {(cause.get("field", ""), cause["reason"]) for cause in details.get("causes", [])}


@dataclass
class Watch:
    """An open watch. Events are read one by one, each within PATIENCE_SECONDS."""

    answer: Answer
    _content: aiohttp.StreamReader
    events: list[Object] = field(default_factory=list)

    async def next(self) -> Object:
        line = await asyncio.wait_for(self._content.readline(), PATIENCE_SECONDS)
        assert line, f"{self.answer.request}: the stream ended after {len(self.events)} events"
        self.events.append(json.loads(line))
        return self.events[-1]

    async def take(self, count: int) -> list[Object]:
        return [await self.next() for _ in range(count)]

    async def until(self, wanted: Callable[[Object], bool]) -> list[Object]:
        """Returns the events up to and including the first one that is `wanted`."""
        start = len(self.events)
        while not wanted(await self.next()):
            pass
        return self.events[start:]

    async def ended(self) -> list[Object]:
        """Returns every event until the server closes the stream."""
        start = len(self.events)
        while line := await asyncio.wait_for(self._content.readline(), PATIENCE_SECONDS):
            self.events.append(json.loads(line))
        return self.events[start:]


@dataclass
class Api:
    """One scenario's connection to one server, with a separate namespace, API group and transcript."""

    server: Server
    http: aiohttp.ClientSession
    namespace: str
    group: str
    transcript: list[Answer] = field(default_factory=list)

    @property
    def widgets(self) -> str:
        """Path of the collection of the suite's own custom resource in the scenario's namespace."""
        return f"/apis/conformance.example.com/v1/namespaces/{self.namespace}/widgets"

    @property
    def configmaps(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    def collection(self, plural: str) -> str:
        """Returns the path of the collection of a custom resource in the scenario's own group."""
        return f"/apis/{self.group}/v1/namespaces/{self.namespace}/{plural}"

    async def send(
        self,
        method: str,
        path: str,
        body: Object | list[Any] | str | bytes | None = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
        view: View | None = lambda body: body,
        record: bool = True,
        headers: Mapping[str, str | None] | None = None,
        **query: object,
    ) -> Answer:
        text = json.dumps(body) if isinstance(body, dict | list) else body
        data = None if text is None else io.BytesIO(text.encode() if isinstance(text, str) else text)
        given: dict[str, str | None] = {"Accept": accept, "Authorization": f"Bearer {self.server.token}"}
        given |= {"Content-Type": content_type} if body is not None else {}
        given |= headers or {}
        sent = {name: value for name, value in given.items() if value is not None}
        async with self.http.request(
            method, self.server.url + path, data=data, params=_strings(query), headers=sent
        ) as response:
            raw = await response.read()
            answer = Answer(_title(method, path, query), response.status, _collect(response), raw, view)
        if record:
            self.transcript.append(answer)
        return answer

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.send("GET", path, **options)

    async def post(self, path: str, body: Object | str | bytes, **options: Any) -> Answer:
        return await self.send("POST", path, body, **options)

    async def put(self, path: str, body: Object | str | bytes, **options: Any) -> Answer:
        return await self.send("PUT", path, body, **options)

    async def delete(self, path: str, body: Object | str | bytes | None = None, **options: Any) -> Answer:
        return await self.send("DELETE", path, body, **options)

    async def merge(self, path: str, patch: Any, **options: Any) -> Answer:
        return await self.send("PATCH", path, json.dumps(patch), content_type=MERGE_PATCH, **options)

    async def json_patch(self, path: str, *operations: Any, **options: Any) -> Answer:
        return await self.send("PATCH", path, json.dumps(operations), content_type=JSON_PATCH, **options)

    async def apply(self, path: str, config: Object | str, manager: str | None = "applier", **options: Any) -> Answer:
        """Sends a server-side apply. `manager=None` omits fieldManager."""
        options |= {} if manager is None else {"fieldManager": manager}
        return await self.send("PATCH", path, config, content_type=APPLY_PATCH, **options)

    @asynccontextmanager
    async def watch(self, path: str, *, accept: str = JSON, **query: object) -> AsyncIterator[Watch]:
        query = {"watch": "true", **query}
        headers = {"Accept": accept, "Authorization": f"Bearer {self.server.token}"}
        async with self.http.get(self.server.url + path, params=_strings(query), headers=headers) as response:
            head = Answer(_title("WATCH", path, query), response.status, _collect(response), b"")
            assert response.status == 200, f"{head.request}: {response.status} {await response.text()}"
            watch = Watch(head, response.content)
            try:
                yield watch
            finally:
                if response.connection and response.connection.transport:
                    response.connection.transport.abort()  # an orderly TLS shutdown would outlive the event loop
                raw = json.dumps(watch.events).encode()
                self.transcript.append(Answer(head.request, head.status, head.headers, raw))

    async def eventually(
        self, path: str, wanted: Callable[[Answer], bool], *, record: bool = True, **options: Any
    ) -> Answer:
        """Sends GET requests until the response is as `wanted`. Only the last response is compared."""
        answers: list[Answer] = []

        async def asked() -> bool:
            answers.append(await self.get(path, record=False, **options))
            return wanted(answers[-1])

        await self.until(asked)
        if record:
            self.transcript.append(answers[-1])
        return answers[-1]

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Waits until `condition` holds, because a real server applies its CRDs with a delay."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():
                await asyncio.sleep(0.05)

    async def install(self, crd: Object) -> None:
        """Creates a CRD and waits until its resources are served."""
        created = (await self.post(CRDS, crd, record=False)).ok(201)
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        for version in crd["spec"]["versions"]:
            await self.eventually(f"/apis/{group}/{version['name']}/{plural}", lambda a: a.status == 200, record=False)
        await self.eventually(f"{CRDS}/{created['metadata']['name']}", established, record=False)


def established(answer: Answer) -> bool:
    conditions = {c["type"]: c["status"] for c in answer.body["status"].get("conditions") or ()}
    return conditions.get("Established") == "True"


def _strings(query: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in query.items()}


def _title(method: str, path: str, query: Mapping[str, object]) -> str:
    return f"{method} {path}" + ("?" + "&".join(f"{k}={v}" for k, v in _strings(query).items()) if query else "")


def _collect(response: aiohttp.ClientResponse) -> dict[str, list[str]]:
    return {name.lower(): response.headers.getall(name) for name in response.headers}
