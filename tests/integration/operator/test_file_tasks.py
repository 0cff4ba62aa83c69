"""File operations as tasks: under policy, with output, retries and an audit record."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.reconcilers.kube import SECRETS

from .conftest import World


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
