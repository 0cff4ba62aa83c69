"""Operators that compete for a lease, each a process with a way of its own to the API server, which can be shut.

    python leaders.py KUBECONFIG STATE_DIR SETTINGS

runs one of them with these settings, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from middleman import Gate, gate
from remit.cli import serve
from remit.cli.logsetup import QUIET
from remit.controllers.settings import Settings
from remit.telemetry import configure

SHORT = {"lease_duration": 6, "renew_deadline": 3, "retry_period": 0.5}
"""Three seconds between the end of work and the next holder: more than a busy machine keeps a process waiting."""
_PATIENCE = 60
_CONTAINED = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
_SOURCE = Path(__file__).parents[1] / "operator"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Leader:
    """An operator process."""

    gate: Gate
    home: Path
    state_dir: Path
    settings: dict[str, Any]
    contained: bool = False
    """The first process of a pid namespace, as in a container without an init."""
    metrics_port: int = field(default_factory=_free_port)
    process: asyncio.subprocess.Process = field(init=False)

    async def start(self) -> None:
        """Its log begins anew."""
        settings = json.dumps({**SHORT, "health_port": self.metrics_port, **self.settings})
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(_CONTAINED if self.contained else ()),
                *(sys.executable, __file__, str(self.home / "kubeconfig"), str(self.state_dir), settings),
                env={**os.environ, "PYTHONPATH": f"{_SOURCE}:{Path(__file__).parent}"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """To the operator itself."""
        (pid,) = psutil.Process(self.process.pid).children() if self.contained else (self.process,)
        os.kill(pid.pid, number)

    @property
    def log(self) -> Path:
        return self.home / "log"

    def lines(self) -> list[dict[str, Any]]:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if message in str(line.get("message"))]

    async def until(self, reached: Callable[[], Any], what: str) -> Any:
        try:
            async with asyncio.timeout(_PATIENCE):
                while not (found := reached()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never {what}:\n{self.log.read_text()[-3000:]}") from None
        return found

    async def works(self) -> None:
        await self.until(lambda: self.said("the operator is at work"), "at work")

    async def waits(self) -> None:
        await self.until(lambda: self.said("waiting for its lease"), "waiting for the lease")

    async def ended(self) -> int:
        async with asyncio.timeout(_PATIENCE):
            return await self.process.wait()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


@contextlib.asynccontextmanager
async def leader(
    kubeconfig: Path, home: Path, *, state_dir: Path | None = None, contained: bool = False, **settings: Any
) -> AsyncIterator[Leader]:
    """One at work or waiting; its files are in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    login = yaml.safe_load(kubeconfig.read_text())
    cluster = login["clusters"][0]["cluster"]
    async with gate(int(cluster["server"].rpartition(":")[2])) as way:
        cluster["server"] = f"https://127.0.0.1:{way.port}"
        (home / "kubeconfig").write_text(yaml.safe_dump(login))
        running = Leader(way, home, state_dir or home / "state", settings, contained)
        await running.start()
        try:
            yield running
        finally:
            way.open.set()
            await running.stop()


def main(kubeconfig: str, state_dir: str, settings: str) -> None:
    redactor = configure(format="json", level="info", levels=QUIET)
    chosen = Settings(state_dir=Path(state_dir), **json.loads(settings))
    asyncio.run(serve.operator(chosen, redactor, Path(kubeconfig), None))


if __name__ == "__main__":
    main(*sys.argv[1:])
