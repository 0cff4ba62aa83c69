"""Tests that artifacts of a task are kept, shown in status, and deleted with the task."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from remit.execution.artifacts.folderstore import FolderStore
from remit.kube.client import SECRETS, TASKS

from .conftest import World

ARTIFACTS = {"volumes": {"artifacts": {"maxBytes": "1Gi", "maxRetainSeconds": 3600}}}


def wanted(path: str, **fields: Any) -> dict[str, Any]:
    return {"artifacts": [{"name": "made", "path": path, **fields}]}


async def test_they_are_kept_with_their_digest_and_go_with_the_task(world: World) -> None:
    store = FolderStore(world.settings.state_dir / "artifacts")
    async with world.operator():
        await world.policy("sh", **ARTIFACTS)
        name = await world.sh(
            "mkdir dist; echo 1 > dist/a; head -c 100000 /dev/zero > dist/b; ln -s /etc/passwd dist/c;"
            " echo 1.2.3 > version",
            **wanted("dist/*"),
            results=[{"name": "version", "path": "version"}],
        )
        status = await world.finished(name)
        assert status["phase"] == "Succeeded", status["message"]
        digests = {"a": hashlib.sha256(b"1\n"), "b": hashlib.sha256(bytes(100_000))}
        listing = "".join(f"{digest.hexdigest()}  {path}\n" for path, digest in digests.items())
        digest = f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
        assert status["artifacts"] == [{"name": "made", "files": 2, "bytes": 100_002, "digest": digest}]
        assert status["results"] == [{"name": "version", "value": "1.2.3"}]
        found = store.find("default", name, "made", digest)
        assert found is not None
        await world.kube.delete(TASKS, "default", name)
        await world.gone(name)
        await world.operator_has(lambda: store.artifacts("default", name) == [])


async def test_what_a_failed_attempt_left_is_kept_if_that_was_asked(world: World) -> None:
    async with world.operator():
        await world.policy("sh", **ARTIFACTS)
        script = "echo x > core; exit 3"
        kept, left = await world.sh(script, **wanted("core", when="Always")), await world.sh(script, **wanted("core"))
        assert len((await world.finished(kept))["artifacts"]) == 1
        status = await world.finished(left)
        assert "artifacts" not in status
        assert status["exitCode"] == 3


async def test_what_is_missing_or_too_large_fails_the_task(world: World) -> None:
    async with world.operator():
        await world.policy("sh", **ARTIFACTS)
        missing = await world.sh("true", **wanted("dist/*.whl"))
        large = await world.sh("head -c 3000000 /dev/zero > a", **wanted("a", maxBytes="2Mi"))
        status = await world.finished(missing)
        assert status["error"]["message"].startswith("completed, but artifact made (/workspace/dist/*.whl): no file")
        assert status["attempts"][-1]["reason"] == "ArtifactMissing"
        status = await world.finished(large)
        assert status["attempts"][-1]["reason"] == "ArtifactTooLarge"
        assert "2Mi" in status["error"]["message"]


async def test_artifacts_are_kept_raw_and_results_are_redacted(world: World) -> None:
    store = FolderStore(world.settings.state_dir / "artifacts")
    secret = "correct-horse-battery"  # an invented value
    async with world.operator():
        await world.policy("sh", **ARTIFACTS, environment={"allow": ["TOKEN"]})
        data = {"token": base64.b64encode(secret.encode()).decode()}
        about = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
        await world.kube.create(SECRETS, "default", {**about, "data": data})
        name = await world.sh(
            "echo $TOKEN > dump; echo $TOKEN > told",
            env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}}],
            **wanted("dump"),
            results=[{"name": "told", "path": "told"}],
        )
        status = await world.finished(name)
        assert status["results"][0]["value"] == "[redacted]"
        found = store.find("default", name, "made")
        assert found is not None
        with store.open(found.files[0]) as content:
            assert content.read().decode().strip() == secret


async def test_paths_outside_of_what_is_the_task_s_are_refused(world: World) -> None:
    async with world.operator():
        await world.policy("sh", **ARTIFACTS)
        for path in ("/etc/passwd", "../x", "/tmp/x", "a/../b"):
            status = await world.finished(await world.sh("true", **wanted(path)))
            assert status["phase"] == "Denied", path
            assert "spec.artifacts[0].path" in status["error"]["message"]


async def test_a_program_that_cannot_be_started_is_reported_as_that(world: World) -> None:
    async with world.operator():
        await world.policy("sh", **ARTIFACTS)
        status = await world.finished(await world.sh("true", **wanted("a"), workingDir="/workspace/none"))
        assert status["attempts"][-1]["reason"] == "StartFailed"


async def test_the_store_s_descriptors_are_closed(world: World) -> None:
    async with world.operator():
        await world.policy("sh", **ARTIFACTS)
        await world.finished(await world.sh("echo > a", **wanted("a")))
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            await world.finished(await world.sh("echo > a", **wanted("a")))
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
