"""A local HTTP server for tests: redirects, slow bodies, failures, and TLS with a private authority."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from webserver import answering


@dataclass
class Server:
    port: int = 0
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    failures: int = 0
    """Number of further requests to /storm that are answered with 503."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.path_qs, dict(request.headers), body))
        match request.path.split("/")[1]:
            case "redirect":
                return web.Response(
                    status=int(request.query.get("code", "302")), headers={"Location": request.query["to"]}
                )
            case "loop":
                return web.Response(status=302, headers={"Location": "/loop"})
            case "big":
                return web.Response(body=b"x" * int(request.query["bytes"]))
            case "endless":
                response = web.StreamResponse()
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await response.write(b"x" * 65536)
                return response
            case "bomb":
                return web.Response(body=gzip.compress(bytes(10 << 20)), headers={"Content-Encoding": "gzip"})
            case "drip":
                response = web.StreamResponse()
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await response.write(b"x")
                        await asyncio.sleep(0.05)
                return response
            case "slow":
                await asyncio.Event().wait()
            case "cut":
                assert request.transport is not None
                request.transport.abort()
            case "status":
                return web.Response(status=int(request.query["code"]), text="told")
            case "storm":
                self.failures -= 1
                return web.Response(status=503 if self.failures >= 0 else 200, text="at last")
        return web.Response(text=f"{request.method} {request.path}", headers={"X-Answer": "yes"})


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Starts a server on a free port of 127.0.0.1."""
    server = Server()
    async with answering(server.handle, context) as server.port:
        yield server
