"""Tests raw output of a task that prints its Secret: the file contains it, and nothing else that Remit writes does."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from remit.kube.client import POLICIES
from remit.telemetry.verifying import verify

from .conftest import World, truth
from .test_values import SECRET, reference, secret

ENCODED = base64.b64encode(SECRET.encode())
PRINTS = 'echo "row $PASSWORD"; echo "$PASSWORD" >&2; printf %s "$PASSWORD" | base64; '
ENV = [{"name": "PASSWORD", **reference("secretKeyRef", "db", "password")}]
VARIABLE = {"environment": {"allow": ["PASSWORD"]}}
ALLOWED = {**VARIABLE, "output": {"allowRaw": True}}


def files_that_tell(directory: Path) -> set[str]:
    """Returns the names of the files below `directory` that contain the secret in any encoding."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {
        path.relative_to(path.parents[1]).as_posix()
        for path in files
        if any(spelling in path.read_bytes() for spelling in (SECRET.encode(), ENCODED))
    }


async def test_the_kept_file_has_the_secret_and_nothing_else_has(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    async with world.operator():
        await world.policy("sh", **ALLOWED)
        await secret(world, "db", password=SECRET)
        name = await world.sh(PRINTS + "exit 1", env=ENV, output={"raw": True})
        status = await world.finished(name)
        events = await world.events(name, 1)
        (policy,) = await world.kube.list(POLICIES, "default")
    output = status["output"]
    assert output["raw"]
    assert output["redactions"] == 3
    assert output["stdoutTail"] == "row [redacted]\n[redacted]\n"
    assert Path(output["ref"], "stdout.head").read_bytes() == b"row %b\n%b\n" % (SECRET.encode(), ENCODED)
    assert files_that_tell(world.settings.state_dir) == {"raw/stdout.head", "raw/stderr.head"}
    assert "OutputRedacted" not in {event["reason"] for event in events}
    said = capfd.readouterr()
    for text in (str(status), str(events), str(policy), said.out, said.err):
        assert SECRET not in text
        assert ENCODED.decode() not in text
    trail = world.settings.state_dir / "audit" / "audit.jsonl"
    assert verify(trail).ok
    assert b'"output":"raw"' in trail.read_bytes()


async def test_without_permission_it_does_not_run(world: World) -> None:
    async with world.operator():
        name = await world.policy("sh", **VARIABLE)
        await secret(world, "db", password=SECRET)
        denied = await world.finished(await world.sh(PRINTS, env=ENV, output={"raw": True}))
        assert (denied["phase"], denied["conditions"][0]["reason"]) == ("Denied", "RawOutputNotAllowed")
        assert "`output: {allowRaw: true}`" in denied["message"]
        generation = (await world.kube.patch(POLICIES, "default", name, {"spec": ALLOWED}))["metadata"]["generation"]
        await world.until(
            name, lambda status: truth(status, "Ready") and status["observedGeneration"] == generation, POLICIES
        )
        await world.ceiling("sh", **VARIABLE)
        denied = await world.finished(await world.sh(PRINTS, env=ENV, output={"raw": True}))
        assert (denied["phase"], denied["conditions"][0]["reason"]) == ("Denied", "CeilingExceeded")
    assert not files_that_tell(world.settings.state_dir)
