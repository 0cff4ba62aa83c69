"""A shop whose versions have faults, and its state on this host, for tests of the outcomes of releases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import supervised
from remit.release.traffic.traffic import Traffic
from shops import GROUNDS, Shop, open_shop
from support import pauses

from .conftest import PATIENCE, World

FAULTY = """
import http.server, itertools, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
fault, turns, met = os.environ["FAULT"], itertools.cycle((True, False)), False
if fault == "talks":
    sys.exit("cannot log in with " + os.environ["PASSWORD"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global met
        if self.path == "/" and fault == "dies":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        flaps = fault == "flaps" or (fault == "flaps when live" and met)
        met = met or self.path == "/"
        self.send_response(200 if not flaps or self.path == "/" or next(turns) else 500)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(open("version").read().encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
CHECK = {"http": {"path": "/healthz", "port": "http"}}
MANUAL = {"strategy": {"blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 0}}}


class Edges(Shop):
    """The shop, and its state on this host."""

    world: World
    folder: Path

    @property
    def state(self) -> Path:
        return self.world.settings.state_dir

    async def faulty(self, version: str, fault: str, *env: dict[str, Any], first: bool = False, **changes: Any) -> None:
        """Releases a version with this fault."""
        source = self.folder / version
        source.mkdir(parents=True)
        (source / "app.py").write_text(FAULTY)
        (source / "version").write_text(version)
        release = self.create if first else self.change
        await release(version, env=[{"name": "FAULT", "value": fault}, *env], **changes)

    async def awaiting(self, version: str) -> None:
        await self.until(
            lambda status: f"/{version} " in status.get("preview", "") and status["phase"] == "AwaitingPromotion",
            f"as to have {version} wait for a promotion",
        )

    async def bakes(self, version: str) -> None:
        await self.until(
            lambda s: f"/{version} " in s.get("active", "") and s["stage"] == "Bake", f"as to bake {version}"
        )

    async def ended(self, outcome: str, revision: int = 2) -> dict[str, Any]:
        """Waits until this revision ended with this outcome."""
        return await self.until(
            lambda status: (
                (revision, outcome) in {(each["revision"], each["outcome"]) for each in status.get("history", [])}
            ),
            f"as to have revision {revision} {outcome}",
        )

    async def hook_runs(self, task: str) -> None:
        await self.until(lambda status: "hook gate runs" in status["message"], "as to run its hook")
        await self.world.phase(task, "Running")

    async def hears(self, wanted: str) -> None:
        """Waits until a client gets this response, even if it was refused before."""
        await eventually(self._hears(wanted), f"a client to hear {wanted}")

    def _hears(self, wanted: str) -> Callable[[], Any]:
        async def heard() -> bool:
            try:
                return await self.answer() == wanted
            except OSError:
                return False

        return heard

    async def proxy(self) -> int:
        seen = await Traffic(self.state / "traffic").look("default/shop")
        assert seen is not None
        return seen.pid

    async def both_run(self) -> bool:
        return len(self.supervisors()) == 2

    def supervisors(self) -> list[psutil.Process]:
        return supervised.supervisors(self.state / "instances" / "default")


async def eventually(holds: Callable[[], Any], what: str) -> None:
    pause = pauses()
    try:
        async with asyncio.timeout(PATIENCE):
            while not await holds():
                await asyncio.sleep(next(pause))
    except TimeoutError:
        pytest.fail(f"waited in vain for {what}")


def hook(*argv: str) -> dict[str, Any]:
    return {"bakeSeconds": 0, "prePromotion": [{"name": "gate", "task": {"command": {"argv": list(argv)}}}]}


@asynccontextmanager
async def open_edges(world: World, folder: Path) -> AsyncIterator[Edges]:
    """Provides the shop. `folder` is for its versions."""
    async with open_shop(GROUNDS[0], world.kube, world.settings.state_dir, folder) as opened:
        shop = Edges(opened.kube, opened.spec_of, opened.port)
        shop.world, shop.folder = world, folder
        yield shop
