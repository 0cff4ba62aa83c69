"""A web server that receives the messages of notifications."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Hook:
    """The server. It accepts messages while `status` is 200, and refuses them otherwise."""

    url: str = ""
    """The address in Apprise's notation."""
    status: int = 200
    taken: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0
    answer: str = "the token hunter22 is wrong"

    async def post(self, request: web.Request) -> web.Response:
        if self.status == 200:
            self.taken.append(await request.json())
        else:
            self.refused += 1
        return web.Response(status=self.status, text=self.answer)


@asynccontextmanager
async def web_hook() -> AsyncIterator[Hook]:
    hook = Hook()
    app = web.Application()
    app.router.add_post("/{rest:.*}", hook.post)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook.url = f"json://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield hook
    finally:
        await runner.cleanup()
