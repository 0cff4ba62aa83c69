"""Tests that scripts run like commands, with their source as a private file."""

from __future__ import annotations

import hashlib

from .conftest import World

SOURCE = "import sys\nprint('hello', sys.argv[1])\n"


async def test_a_script_that_policy_knows_runs(world: World) -> None:
    async with world.operator():
        await world.policy(
            scripts={"interpreters": ["python3"], "sha256": [hashlib.sha256(SOURCE.encode()).hexdigest()]}
        )
        status = await world.finished(
            await world.task(script={"interpreter": "python3", "source": SOURCE, "args": ["world"]})
        )
    assert (status["phase"], status["operation"]) == ("Succeeded", "script")
    assert status["output"]["stdoutTail"] == "hello world\n"
    assert status["policy"]["rule"] == "scripts.sha256[0]"


async def test_a_script_that_was_changed_does_not(world: World) -> None:
    async with world.operator():
        await world.policy(
            scripts={"interpreters": ["python3"], "sha256": [hashlib.sha256(SOURCE.encode()).hexdigest()]}
        )
        status = await world.finished(
            await world.task(script={"interpreter": "python3", "source": SOURCE + "#", "args": ["world"]})
        )
    assert status["phase"] == "Denied"
    assert "spec.scripts.sha256" in status["message"]


async def test_a_missing_backend_is_reported(world: World) -> None:
    async with world.operator():
        status = await world.finished(await world.task(backend="kubernetes", image="x", command={"argv": ["true"]}))
    assert (status["phase"], status["message"].split(";")[0]) == (
        "Failed",
        "this operator has no backend kubernetes",
    )
