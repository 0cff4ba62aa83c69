"""Tests operators that keep artifacts in object storage: artifacts of a task, and the next task that mounts them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

import commandline
from objectstores import SECRET, Swift, keys
from remit.errors import RemitError
from remit.execution.artifacts.opening import readers
from remit.kube.client import TASKS

from .conftest import World

ARTIFACTS = {"volumes": {"artifacts": {"maxBytes": "1Gi"}}}
LEFT = {"artifacts": [{"name": "made", "path": "dist/*"}]}
MOUNTED = {
    "volumes": [{"name": "made", "artifact": {"task": "", "name": "made"}}],
    "volumeMounts": [{"name": "made", "mountPath": "/made"}],
}


def mounts(task: str) -> dict[str, object]:
    return MOUNTED | {"volumes": [{"name": "made", "artifact": {"task": task, "name": "made"}}]}


async def test_another_operator_finds_what_a_task_left(world: World, swift: Swift, tmp_path: Path) -> None:
    where = swift.bucket()
    async with world.operator(artifact_store=where):
        await world.policy("sh", "cat", **ARTIFACTS)
        made = await world.sh("mkdir dist; echo one > dist/a; echo two > dist/b", **LEFT)
        status = await world.finished(made)
        assert status["phase"] == "Succeeded", status["message"]
        listing = "".join(
            f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in (("a", b"one\n"), ("b", b"two\n"))
        )
        assert status["artifacts"][0]["digest"] == f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
        (reader,) = readers(world.settings.state_dir)
        assert [each.name for each in reader.artifacts("default", made)] == ["made"]
    assert SECRET not in "".join(path.read_text() for path in world.settings.state_dir.glob("*.json"))
    async with world.operator(artifact_store=where, state_dir=tmp_path / "another"):
        read = await world.sh("cat /made/a; cat", **mounts(made), stdinFrom={"volume": {"name": "made", "path": "b"}})
        status = await world.finished(read)
        assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "one\ntwo\n"), status["message"]
        assert status["volumes"][0]["digest"].startswith("sha256:")
        out = commandline.invoke(
            "prune", "--dry-run", "--artifacts-max-age", "0s", "--state-dir", str(tmp_path / "another")
        )
        assert f"{where}/tasks/default/{made}/" in out.output.replace("\n", "")
        await world.kube.delete(TASKS, "default", made)
        await world.gone(made)
        (reader,) = readers(tmp_path / "another")
        await world.operator_has(lambda: reader.artifacts("default", made) == [])
    assert any(key.startswith("blobs/") for key in keys(swift, where))


async def test_what_the_store_does_not_take_fails_the_task_and_gives_the_reason(world: World, swift: Swift) -> None:
    async with world.operator(artifact_store=swift.bucket()):
        await world.policy("sh", **ARTIFACTS)
        made = await world.sh("mkdir dist; echo one > dist/a", **LEFT)
        assert (await world.finished(made))["phase"] == "Succeeded"
        swift.server.stop()
        lost = await world.sh("mkdir dist; echo two > dist/a", **LEFT)
        waits = await world.sh("cat /made/a", **mounts(made))
        status = await world.finished(lost)
        assert status["attempts"][-1]["reason"] == "ArtifactNotStored"
        assert "nothing answers there; correct --s3-endpoint, or start the store" in status["error"]["message"]
        assert "artifacts" not in status
        await world.until(waits, lambda status: "cannot be looked for" in status.get("message", ""))
        swift.server.start()
        status = await world.finished(waits)
        assert status["output"]["stdoutTail"] == "one\n"


async def test_a_store_that_cannot_be_used_keeps_the_operator_from_starting(world: World, swift: Swift) -> None:
    where = swift.bucket()
    with pytest.raises(RemitError, match=r"cannot be kept in .*none-such.*the bucket does not exist; make it"):
        async with world.operator(artifact_store=replace(where, bucket="none-such")):
            pass
    async with world.operator(artifact_store=replace(where, endpoint="http://127.0.0.1:9")):
        pass  # the storage may be available again at any time


def test_doctor_tries_the_store(swift: Swift) -> None:
    where = swift.bucket()
    flags = ["--s3-endpoint", where.endpoint, "--s3-credentials", str(where.credentials)]
    good = commandline.invoke("doctor", "--artifact-store", str(where), *flags, env={"COLUMNS": "250"})
    assert "an object was written, found and removed" in good.output
    bad = commandline.invoke("doctor", "--artifact-store", "s3://none-such", *flags, env={"COLUMNS": "250"})
    assert bad.exit_code == 1
    assert "the bucket does not exist" in bad.output
    assert "make it, or correct --artifact-store" in bad.output
    usage = commandline.invoke("doctor", "--s3-region", "x")
    assert "need --artifact-store" in usage.output
