"""Tests file operations as tasks: under policies, with output, retries and an audit record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from remit.kube.client import SECRETS
from webserver import answering

from .conftest import PATIENCE, World

pytestmark = pytest.mark.no_cover


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    return place


async def test_a_file_is_written_from_a_secret_and_read_redacted(world: World, folder: Path) -> None:
    await world.kube.create(
        SECRETS,
        "default",
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"pem": "canary-value"}},
    )
    rule = {"paths": [f"{folder}/**"], "operations": ["create", "read"]}
    async with world.operator():
        await world.policy(files={"allow": [rule]})
        source = {"secretKeyRef": {"name": "key", "key": "pem"}}
        written = await world.finished(
            await world.task(file={"operation": "create", "path": f"{folder}/key.pem", "contentFrom": source})
        )
        read = await world.finished(await world.task(file={"operation": "read", "path": f"{folder}/key.pem"}))
        denied = await world.finished(await world.task(file={"operation": "delete", "path": f"{folder}/key.pem"}))
        missing = await world.finished(
            await world.task(
                file={"operation": "read", "path": f"{folder}/none"},
                retry={"maxRetries": 1, "backoff": {"initialSeconds": 0}},
            )
        )
    assert (written["phase"], written["policy"]["rule"]) == ("Succeeded", "files.allow[0]")
    assert written["message"] == f"wrote 12 bytes to {folder}/key.pem"
    assert (folder / "key.pem").read_text() == "canary-value"
    assert read["output"]["stdoutBytes"] == 12
    assert denied["phase"] == "Denied"
    assert "files.allow[0] allows create, read there" in denied["message"]
    assert (missing["phase"], missing["attemptCount"], missing["error"]["category"]) == ("Failed", 2, "Operation")
    assert missing["attempts"][-1]["reason"] == "NotFound"


async def test_files_that_are_slow_to_come_do_not_delay_others(world: World, folder: Path) -> None:
    """There are as many as an operator runs at once, and each waits in a thread."""
    asked, answer_now = 0, asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await answer_now.wait()
        return web.Response(text="late")

    async with answering(answer) as port, world.operator(max_concurrent=33):
        await world.policy(
            "true",
            files={"allow": [{"paths": [f"{folder}/**"], "operations": ["create"]}]},
            http={"allow": [{"hosts": ["127.0.0.1"], "ports": [port], "addresses": ["127.0.0.0/8"]}]},
        )
        content = {"url": f"http://127.0.0.1:{port}/"}
        slow = [
            await world.task(file={"operation": "create", "path": f"{folder}/{index}", "contentFrom": content})
            for index in range(32)
        ]
        async with asyncio.timeout(PATIENCE):
            while asked < len(slow):
                await asyncio.sleep(0.02)
        assert (await world.finished(await world.task("true")))["phase"] == "Succeeded"
        answer_now.set()
        for name in slow:
            assert (await world.finished(name))["phase"] == "Succeeded"
