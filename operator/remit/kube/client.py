"""The one client that Remit talks to an API server with.

Requests are plain JSON over aiohttp: Remit's objects are validated by its own models, and generated classes for
everything else would be a second copy of Kubernetes.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import orjson

from remit.api.endpoint import Resource
from remit.api.group import GROUP, VERSION
from remit.errors import ApiError
from remit.kube.access import Access

if TYPE_CHECKING:
    from remit.telemetry.metrics import Metrics

Object = dict[str, Any]
Objects = list[Object]
Headers = list[tuple[str, str]]
"""Named here, because `Kube` has a method `list`."""


TASKS = Resource(GROUP, VERSION, "executiontasks")
POLICIES = Resource(GROUP, VERSION, "commandpolicies")
DEPLOYMENTS = Resource(GROUP, VERSION, "deployments")
EVENTS = Resource("", "v1", "events")
SECRETS = Resource("", "v1", "secrets")
CONFIG_MAPS = Resource("", "v1", "configmaps")
NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
CLAIMS = Resource("", "v1", "persistentvolumeclaims")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)

_EXPIRED, _BAD_GATEWAY = 410, 502
_LARGE = 1 << 20
_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_NO_ANSWER: Final = "<error>"
"""The `code` of a request without an answer, as in client-go."""

ANSWER_SECONDS: Final = 30
"""How long the whole answer to a request may take, except for watches and streams."""
WATCH_SECONDS = 290
"""After which the server ends a watch, and the next one begins."""
SILENCE_SECONDS = 75
"""A watch that brings no whole event for so long is dead: servers send a bookmark every minute."""
LONGEST_EVENT: Final = 16 << 20
"""Bytes of one event of a watch. Objects have 3 MiB at most, as etcd and API servers have it."""


class Kube:
    """A connection to an API server. Use it as an async context manager, in one event loop.

    Methods raise `ApiError` with the server's own message and code.
    """

    def __init__(
        self,
        access: Access,
        *,
        before_write: Callable[[], None] = lambda: None,
        connections: int = 64,
        metrics: Metrics | None = None,
    ) -> None:
        """`before_write` is called before each request that may change something, and refuses it by an exception.
        `connections` is how many there are at most; 0: as many as are wanted. `metrics` counts the requests."""
        self.access = access
        self._metrics = metrics
        self._connections = connections
        self._before_write = before_write
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            ssl=self.access.ssl_context() or True, limit=self._connections, keepalive_timeout=60
        )
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, connect=5)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """One request; the answer's JSON object."""
        if self._session is None:
            raise RuntimeError("use Kube as an async context manager")
        headers = await self._headers(content_type, accept)
        if method != "GET":
            self._before_write()
        content = orjson.dumps(body) if body is not None else b""
        # Aiohttp warns about large bytes objects.
        data = io.BytesIO(content) if len(content) > _LARGE else content or None
        url = self.access.server.rstrip("/") + path
        started, code = time.monotonic(), _NO_ANSWER
        try:
            async with self._session.request(method, url, data=data, params=params, headers=headers) as response:
                answer = await response.read()
                code = str(response.status)
                if response.status >= 400:
                    raise api_error(response.status, answer)
        except aiohttp.ClientSSLError as error:
            why = getattr(error.__cause__, "verify_message", "") or error
            text = f"the certificate of {self.access.server} is not trusted: {why}"
            remedy = "use the kubeconfig that belongs to this server; 'remit up' writes one each time it starts"
            raise ApiError(f"{text}; {remedy}", status=503, reason="CertificateNotTrusted") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            text = f"{self.access.server} does not answer: {str(error) or type(error).__name__}"
            raise ApiError(text, status=503, reason="ServiceUnavailable") from None
        finally:
            self._count(method, code, time.monotonic() - started)
        result: Object = orjson.loads(answer)
        return result

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self.request("GET", resource.path(namespace, name))

    async def get_metadata(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object without all but its metadata, as PartialObjectMetadata."""
        return await self.request("GET", resource.path(namespace, name), accept=_METADATA)

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Objects:
        """All objects, in pages behind the scenes."""
        return (await self.snapshot(resource, namespace, label_selector=label_selector, field_selector=field_selector))[
            0
        ]

    async def snapshot(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[Object], Object] | None = None,
    ) -> tuple[Objects, str]:
        """All objects as they were at one moment, and its resourceVersion, from which a watch goes on. They come in
        pages or, where the server forgets that moment meanwhile, all at once, as for client-go. `transform` makes of
        each what is kept, page by page."""
        items: Objects = []
        version = ""
        async for first, page in self.list_pages(resource, namespace, label_selector, field_selector):
            if first:
                items = []
            found = page.get("items", [])
            items += map(transform, found) if transform else found
            version = str(page.get("metadata", {}).get("resourceVersion", ""))
        return items, version

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Objects, None]:
        """All objects, some hundred at a time. Where the server forgets the moment of the first page meanwhile, all of
        them come once more, and at once: whoever counts has to know an object by its uid."""
        async with contextlib.aclosing(
            self.list_pages(resource, namespace, label_selector, field_selector)
        ) as answered:
            async for _, page in answered:
                yield page.get("items", [])

    async def list_pages(
        self, resource: Resource, namespace: str | None, label_selector: str, field_selector: str
    ) -> AsyncGenerator[tuple[bool, Object], None]:
        """The pages of a list as the server gives them, each with whether it is the first of one: then those before are
        to be forgotten. The last one's resourceVersion is where a watch goes on."""
        given = {"limit": "500", "labelSelector": label_selector, "fieldSelector": field_selector}
        params = {name: value for name, value in given.items() if value}

        def ask() -> asyncio.Task[Object]:
            return asyncio.create_task(self.request("GET", resource.path(namespace), params=dict(params)))

        asked = ask()
        try:
            while True:
                try:
                    page = await asked
                except ApiError as error:
                    if error.status != _EXPIRED or "continue" not in params:
                        raise
                    del params["limit"], params["continue"]
                    asked = ask()
                    continue
                first = "continue" not in params
                token = page.get("metadata", {}).get("continue")
                if token:
                    params["continue"] = token
                    asked = ask()
                    await asyncio.sleep(0)  # the server reads the next page while this one is taken over
                yield first, page
                if not token:
                    return
        finally:
            asked.cancel()
            asked.add_done_callback(_retrieve)

    async def create(
        self,
        resource: Resource,
        namespace: str | None,
        body: Object,
        *,
        manager: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """`manager` is who the server notes as the author of the fields. With `dry_run`, it checks and stores
        nothing."""
        params = {"fieldManager": manager} if manager else {}
        params |= {"dryRun": "All"} if dry_run else {}
        return await self.request("POST", resource.path(namespace), body=body, params=params)

    async def replace(self, resource: Resource, namespace: str | None, name: str, body: Object) -> Object:
        return await self.request("PUT", resource.path(namespace, name), body=body)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str | None = None
    ) -> Object:
        """A JSON merge patch."""
        return await self.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            body=body,
            content_type="application/merge-patch+json",
        )

    async def apply(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, manager: str, force: bool = False
    ) -> Object:
        """Server-side apply, as `kubectl apply --server-side`."""
        return await self.request(
            "PATCH",
            resource.path(namespace, name),
            body=body,
            params={"fieldManager": manager, "force": str(force).lower()},
            content_type="application/apply-patch+yaml",
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete, only if it is still the object `uid`, in this version, where that is given."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        wanted = {"uid": uid, "resourceVersion": resource_version}
        if preconditions := {name: value for name, value in wanted.items() if value}:
            body["preconditions"] = preconditions
        await self.request("DELETE", resource.path(namespace, name), body=body)

    async def discard(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object `uid`; where it is gone, or another has its name by now, there is nothing to do."""
        try:
            await self.delete(resource, namespace, name, uid=uid)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Changes as (type, object), until the server ends the stream or should have; BOOKMARK tells of a newer version
        only. Raises `ApiError` and, where the server is silent or the connection is lost, as `aiohttp` does."""
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        given = {name: value for name, value in params.items() if value}
        ends = asyncio.get_running_loop().time() + WATCH_SECONDS + SILENCE_SECONDS
        async with self._opened(resource.path(namespace), given, SILENCE_SECONDS) as response:
            lines = _Lines(response)
            while asyncio.get_running_loop().time() < ends and (line := await lines.next(SILENCE_SECONDS)) is not None:
                type_, obj = _event(line, self.access.server)
                if type_ == "ERROR":
                    raise api_error(obj.get("code", 500), orjson.dumps(obj))
                yield type_, obj

    async def stream(
        self, path: str, *, params: Mapping[str, str], silence_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes, until the server ends it or says nothing for so long, which is no error.
        Raises `ApiError` for a refusal, and as `aiohttp` does where the connection is lost."""
        async with self._opened(path, params, silence_seconds) as response:
            with contextlib.suppress(aiohttp.SocketTimeoutError):
                async for chunk in response.content.iter_any():
                    yield chunk

    @contextlib.asynccontextmanager
    async def _opened(
        self, path: str, params: Mapping[str, str], silence_seconds: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """An answer whose body is still to come. It begins within `silence_seconds`, and is left without a goodbye."""
        if self._session is None:
            raise RuntimeError("use Kube as an async context manager")
        timeout = aiohttp.ClientTimeout(total=None, connect=5, sock_read=silence_seconds)
        headers = await self._headers()
        url, code = self.access.server.rstrip("/") + path, _NO_ANSWER
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(silence_seconds):
                    response = await stack.enter_async_context(
                        self._session.get(url, params=params, headers=headers, timeout=timeout)
                    )
                    stack.callback(abort, response)
                    refused = await response.read() if response.status >= 400 else None
                    code = str(response.status)
            finally:
                self._count("GET", code)
            if refused is not None:
                raise api_error(response.status, refused)
            yield response

    def _count(self, method: str, code: str, seconds: float | None = None) -> None:
        if self._metrics is None:
            return
        host = urlsplit(self.access.server).netloc
        self._metrics.api_requests.labels(code, method, host).inc()
        if seconds is not None:
            self._metrics.api_request_duration.labels(method, host).observe(seconds)

    async def _headers(self, content_type: str = "application/json", accept: str = "application/json") -> Headers:
        headers = [("Accept", accept), ("Content-Type", content_type), ("User-Agent", "remit")]
        return [*headers, *await self.access.login()]


def abort(response: aiohttp.ClientResponse) -> None:
    """Left in the middle of a stream, there is nobody to wait for with TLS's goodbye."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()


class _Lines:
    """The lines of a body. They may be longer than aiohttp's own line reader accepts."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._chunks = response.content
        self._rest = bytearray()

    async def next(self, seconds: float) -> bytes | None:
        """The next one, whole within `seconds`; None at the end, also in the midst of one. Raises `TimeoutError`, and
        `ApiError` for one that is too long."""
        looked = 0
        async with asyncio.timeout(seconds):
            while (end := self._rest.find(b"\n", looked)) < 0:
                if (looked := len(self._rest)) > LONGEST_EVENT:
                    message = f"an event of a watch has more than {LONGEST_EVENT >> 20} MiB, which no object has"
                    raise ApiError(message, status=_BAD_GATEWAY, reason="EventTooLarge")
                if not (chunk := await self._chunks.readany()):
                    return None
                self._rest += chunk
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line


def _event(line: bytes, server: str) -> tuple[str, Object]:
    try:
        event = orjson.loads(line)
        type_, obj = str(event["type"]), dict(event["object"])
        if type_ != "ERROR":
            dict(obj["metadata"])
    except (KeyError, TypeError, ValueError):  # includes orjson.JSONDecodeError
        message = f"{server} does not answer a watch as an API server does"
        raise ApiError(message, status=_BAD_GATEWAY, reason="BadEvent") from None
    return type_, obj


def api_error(status: int, body: bytes) -> ApiError:
    """The server's refusal in its own words."""
    try:
        answer = orjson.loads(body)
        return ApiError(str(answer["message"]), status=status, reason=str(answer.get("reason", "")))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ApiError(body.decode(errors="replace")[:500] or f"HTTP {status}", status=status)


def _retrieve(asked: asyncio.Task[Object]) -> None:
    """Retrieve the error of a request that nobody waits for any more, so that it is not logged."""
    if not asked.cancelled():
        asked.exception()
