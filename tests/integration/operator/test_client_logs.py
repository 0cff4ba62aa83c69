"""Tests `RemitClient.logs`: the output of a running task, from the embedded control plane and an operator beside it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.client import RemitClient
from remit.errors import ApiError, InvalidInput, RemitError
from remit.operations.process.logs import RotatingOutput

from .conftest import PATIENCE, World

FOREVER = "i=0; while :; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.05; done"


@pytest.fixture
async def client(world: World) -> AsyncIterator[RemitClient]:
    await world.policy("sh", "head")
    async with RemitClient(world.kube.access, patience=5, state_dir=world.settings.state_dir) as client:
        yield client


async def test_what_a_task_writes_comes_while_it_runs(world: World, client: RemitClient) -> None:
    async with world.operator(), asyncio.timeout(PATIENCE):
        name = await world.sh(FOREVER)
        said = {"stdout": b"", "stderr": b""}
        ended = False
        async for chunk in client.logs(name, follow=True):
            assert chunk.attempt == 1
            said[chunk.stream] += chunk.data
            if not ended and all(text.count(b"\n") > 2 for text in said.values()):
                assert (await client.get(name)).status.phase == "Running"
                await client.cancel(name)
                ended = True
        assert ended
        done = await client.get(name)
        assert done.status.phase == "Cancelled"
        for stream, text in said.items():
            lines = text.decode().splitlines()
            assert lines == [f"{stream.removeprefix('std')} {number}" for number in range(len(lines))]
        assert done.status.output
        assert len(said["stdout"]) == done.status.output.stdout_bytes
        assert len(said["stderr"]) == done.status.output.stderr_bytes
        now = [chunk async for chunk in client.logs(name)]
        assert b"".join(chunk.data for chunk in now if chunk.stream == "stderr") == said["stderr"]


async def test_every_attempt_is_followed_and_one_can_be_chosen(world: World, client: RemitClient) -> None:
    async with world.operator(), asyncio.timeout(PATIENCE):
        name = await world.sh("echo x; exit 1", retry={"maxRetries": 2, "initialBackoffSeconds": 0})
        following = [(chunk.attempt, chunk.text) async for chunk in client.logs(name, follow=True)]
        assert following == [(1, "x\n"), (2, "x\n"), (3, "x\n")]
        assert [chunk.attempt async for chunk in client.logs(name)] == [3]
        assert [chunk.attempt async for chunk in client.logs(name, attempt=2)] == [2]
        assert [chunk.attempt async for chunk in client.logs(name, attempt=2, follow=True)] == [2, 3]
        assert [chunk async for chunk in client.logs(name, streams=("stderr",))] == []
        with pytest.raises(InvalidInput, match="no attempt 9"):
            await anext(client.logs(name, attempt=9))


async def test_output_that_is_kept_elsewhere(world: World, client: RemitClient, tmp_path: Path) -> None:
    async with world.operator(), asyncio.timeout(PATIENCE):
        name = await world.sh("echo x")
        await client.wait(name)
        async with RemitClient(world.kube.access, state_dir=tmp_path / "nothing") as other:
            for follow in (True, False):
                with pytest.raises(RemitError, match=r"kept on the operator's host.*state_dir"):
                    await anext(other.logs(name, follow=follow))


async def test_much_output_is_never_held(world: World, client: RemitClient) -> None:
    async with world.operator(), asyncio.timeout(PATIENCE):
        name = await world.task("head", "-c", "4000000", "/dev/zero", output={"maxBytes": "1Mi"})
        await client.wait(name)
        chunks = [(len(chunk.data), chunk.gap) async for chunk in client.logs(name)]
        assert max(size for size, _ in chunks) <= 64 << 10
        assert 500_000 < sum(size for size, _ in chunks) <= 1 << 20
        assert sum(gap for _, gap in chunks) == 1


def outputs(world: World) -> list[str]:
    """Returns the output files that this process, which includes the operator, has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(descriptor.readlink()))
    return sorted(path for path in found if path.startswith(str(world.settings.state_dir / "runs")))


async def test_a_reader_that_goes_leaves_nothing(world: World, client: RemitClient) -> None:
    async with world.operator(), asyncio.timeout(PATIENCE):
        name = await world.sh(FOREVER)
        async with contextlib.aclosing(client.logs(name, follow=True)) as chunks:
            await anext(chunks)
        opened = outputs(world)
        came = asyncio.Event()

        async def read() -> None:
            async for _ in client.logs(name, follow=True):
                came.set()

        reading = asyncio.create_task(read())
        await came.wait()
        assert len(outputs(world)) > len(opened)
        assert [task for task in asyncio.all_tasks() if "_Newest" in repr(task)]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert outputs(world) == opened
        assert not [task for task in asyncio.all_tasks() if "_Newest" in repr(task)]
        await client.cancel(name)
        await client.wait(name)


async def test_a_task_that_goes(world: World, client: RemitClient) -> None:
    async with world.operator(), asyncio.timeout(PATIENCE):
        name = await world.sh(FOREVER)
        with pytest.raises(ApiError) as gone:
            async for _ in client.logs(name, follow=True):
                await client.delete(name)
        assert gone.value.status == 404
        with pytest.raises(ApiError):
            await anext(client.logs("nothing", follow=True))
        scheduled = await world.sh("true", schedule={"cron": "0 0 1 1 *"})
        with pytest.raises(InvalidInput, match="its runs"):
            await anext(client.logs(scheduled))


async def test_lines_with_their_times_the_last_ones_and_those_since(world: World, client: RemitClient) -> None:
    async with world.operator(), asyncio.timeout(PATIENCE):
        before = datetime.datetime.now(datetime.UTC)
        name = await world.sh("echo 1; echo 2; printf 3")
        await client.wait(name)
        lines = [chunk async for chunk in client.logs(name, lines=True)]
        assert [chunk.text for chunk in lines] == ["1\n", "2\n", "3"]
        for chunk in lines:
            assert chunk.time
            assert chunk.time >= before - datetime.timedelta(milliseconds=1)
        assert [chunk.text async for chunk in client.logs(name, tail=1)] == ["3"]
        assert len([chunk async for chunk in client.logs(name, since=before)]) == 3
        later = before + datetime.timedelta(days=1)
        assert [chunk async for chunk in client.logs(name, since=later, follow=True)] == []
        with pytest.raises(InvalidInput, match="time zone"):
            await anext(client.logs(name, since=before.replace(tzinfo=None)))


async def test_processes_and_instances_by_their_names(world: World, client: RemitClient) -> None:
    for place in ("processes/default/web", "instances/default/shop/blue-0", "instances/default/shop/green-0"):
        folder = world.settings.state_dir / place
        folder.mkdir(parents=True)
        output = RotatingOutput(folder, 1000)
        for run in ("first", "second"):
            output.begin()
            output.write("stdout", f"{run} of {folder.name}\n".encode())
    web = [(chunk.source, chunk.text) async for chunk in client.logs("process/web", follow=True)]
    assert web == [("process/web", "second of web\n")]
    both = [(chunk.source, chunk.text) async for chunk in client.logs("deploy/shop", previous=True)]
    assert both == [
        ("deploy/shop/blue-0", "first of blue-0\n"),
        ("deploy/shop/green-0", "first of green-0\n"),
    ]
    assert len([chunk async for chunk in client.logs("deploy/shop/green-0")]) == 1
    for name in ("process/none", "deploy/shop/red-0", "process/../default", "deploy/../x", "pod/x"):
        with pytest.raises(InvalidInput):
            await anext(client.logs(name))
