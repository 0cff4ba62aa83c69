"""A web server for tests that serves archives and redirects."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from webserver import answering


@dataclass
class Archives:
    """The server. `/moved/NAME` redirects to `/moved/here/NAME`, and `/moved/out.tgz` to `/outside`, which no test
    policy allows."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    _held: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def have(self, folder: Path) -> str:
        """Serves `folder` as an archive under its name with `.tgz`, and returns the archive's SHA-256."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as tar:
            tar.add(folder, ".")
        self._held[f"{folder.name}.tgz"] = made.getvalue()
        return hashlib.sha256(made.getvalue()).hexdigest()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        name = request.path.rpartition("/")[2]
        if request.path == "/moved/out.tgz":
            return web.Response(status=302, headers={"Location": "/outside"})
        if request.path == f"/moved/{name}":
            return web.Response(status=302, headers={"Location": f"/moved/here/{name}"})
        return web.Response(body=self._held[name]) if name in self._held else web.Response(status=404)


@asynccontextmanager
async def archives() -> AsyncIterator[Archives]:
    held = Archives()
    async with answering(held.answer) as held.port:
        yield held
