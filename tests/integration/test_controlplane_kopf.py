"""Tests that kopf runs a small operator on the control plane and continues after the server was killed and
restarted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import kopf
import pytest

from controlplanes import CRDS, PATIENCE, WIDGETS, WIDGETS_CRD, Client, client_of, serve, served, widget


def make_registry() -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = True
        settings.scanning.disabled = True
        settings.networking.error_backoffs = [0.1] * 100

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.create("example.dev", "v1", "widgets", registry=registry)
    def made(patch: kopf.Patch, body: kopf.Body, **_: Any) -> None:
        patch.status["phase"] = "Made"
        kopf.info(body, reason="Made", message="It was made")

    @kopf.on.delete("example.dev", "v1", "widgets", registry=registry)
    def unmade(**_: Any) -> None:
        """This handler makes kopf add a finalizer to the object."""

    return registry


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.05)


def phase_is(client: Client, name: str, phase: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        found = await client.get(f"{WIDGETS}/{name}")
        return bool(found.get("status", {}).get("phase") == phase)

    return check


@pytest.mark.slow
async def test_kopf_works_and_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve(tmp_path)
    port = int(server.url.rpartition(":")[2])
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    stop = asyncio.Event()
    async with client_of(server.kubeconfig) as client:
        await client.create(CRDS, WIDGETS_CRD)
        operator = asyncio.create_task(
            kopf.operator(registry=make_registry(), clusterwide=True, standalone=True, stop_flag=stop)
        )
        try:
            await client.create(WIDGETS, widget("before"))
            await until(phase_is(client, "before", "Made"))
            await server.kill()
            async with served(tmp_path, port):
                with contextlib.suppress(Exception):  # the pooled connection ended with the old server
                    await client.get(WIDGETS)
                await client.create(WIDGETS, widget("after"))
                await until(phase_is(client, "after", "Made"))
                held = (await client.get(f"{WIDGETS}/after"))["metadata"]
                assert held["finalizers"]
                await client.ok("DELETE", f"{WIDGETS}/after")
                await client.gone(f"{WIDGETS}/after")
                events = (await client.get("/api/v1/namespaces/default/events"))["items"]
                assert {(e["reason"], e["involvedObject"]["name"]) for e in events} >= {("Made", "before")}
                stop.set()
                await asyncio.wait_for(operator, PATIENCE)
        finally:
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)
