"""Tests `RemitClient` against the embedded control plane, with an operator where one is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.api.executiontask import ExecutionTask
from remit.client import RemitClient
from remit.errors import ApiError, InvalidInput, RemitError, WaitTimeout
from remit.kube.client import TASKS
from support import repetitions

from .conftest import World


@pytest.fixture
async def client(world: World) -> AsyncIterator[RemitClient]:
    async with RemitClient(world.kube.access, patience=5) as client:
        yield client


SLEEPS = {"command": {"line": "sleep 1000"}, "terminationGracePeriodSeconds": 0}


def echo(name: str | None = None, *words: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name} if name else {}
    return {"metadata": metadata, "spec": {"command": {"argv": ["echo", *words]}, **spec}}


async def test_a_task_from_submission_to_its_output(world: World, client: RemitClient) -> None:
    await world.policy("echo")
    async with world.operator():
        task = await client.submit(echo("first", "hello"))
        done = await client.wait(task, timeout=60)
        assert (done.status.phase, done.status.exit_code) == ("Succeeded", 0)
        assert (await client.output(done)).stdout_tail == "hello\n"
        assert (await client.get("first")).metadata.uid == task.metadata.uid
    (listed,) = await client.list()
    assert listed.status.phase == "Succeeded"


async def test_what_a_task_may_be_given_as(client: RemitClient, tmp_path: Path) -> None:
    text = "kind: ExecutionTask\nmetadata: {name: from-yaml}\nspec: {command: {line: echo}}\n"
    file = tmp_path / "task.yaml"
    file.write_text(text.replace("from-yaml", "from-file"))
    model = ExecutionTask.parse(echo("from-model"))
    for given, name in ((text, "from-yaml"), (file, "from-file"), (model, "from-model"), (echo("dict"), "dict")):
        assert (await client.submit(given)).metadata.name == name
    assert (await client.submit(model)).metadata.name == "from-model"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"spec": {}}, "spec"),
        ({"spec": {"command": {"argv": []}}}, "spec.command.argv"),
        ({"metadata": [], "spec": {}}, "metadata"),
        ("a: 1\n---\nb: 2\n", ""),
        ("- 1", ""),
    ],
)
async def test_what_is_no_task_is_refused_with_the_field(client: RemitClient, given: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await client.submit(given)
    assert refusal.value.field == field
    assert await client.list() == []


async def test_a_name_makes_it_happen_once(client: RemitClient) -> None:
    first = await client.submit(echo("once"))
    assert (await client.submit(echo("once"))).metadata.uid == first.metadata.uid
    await client.cancel("once")
    assert (await client.submit(echo("once"))).metadata.uid == first.metadata.uid
    with pytest.raises(ApiError, match="another command, stdin; take another name") as refusal:
        await client.submit(echo("once", "other", stdin="x"))
    assert (refusal.value.status, refusal.value.reason) == (409, "AlreadyExists")


async def test_without_a_name_each_is_another(client: RemitClient) -> None:
    tasks = [await client.submit(echo()) for _ in range(3)]
    tasks.append(await client.submit({**echo(), "metadata": {"generateName": "mine-"}}))
    assert len({task.metadata.name for task in tasks}) == 4
    assert tasks[-1].metadata.name.startswith("mine-")


async def test_without_a_name_it_goes_some_time_after_its_end_and_with_one_it_stays(
    world: World, client: RemitClient
) -> None:
    await client.submit(echo("named"))
    await client.submit({**echo(), "metadata": {"name": "both", "generateName": "mine-"}})
    unnamed = [await client.submit(echo()), await client.submit({**echo(), "metadata": {"generateName": "mine-"}})]
    await world.policy("echo")
    async with world.operator(finished_task_ttl=3600):
        expires = {
            name: (await client.wait(name, timeout=60)).status.expiration_time is not None
            for name in ("named", "both", *(task.metadata.name for task in unnamed))
        }
    assert [*expires.values()] == [False, False, True, True]


async def test_one_watch_serves_all_who_wait(
    world: World, client: RemitClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    kube = client._kube

    def noted(method: str, call: Any) -> Any:
        def note(*args: Any, **options: Any) -> Any:
            asked.append(method or args[0])
            return call(*args, **options)

        return note

    names = [f"many-{number}" for number in range(repetitions(20, soak=60))]
    for name in names:
        await client.submit(echo(name))
    await world.policy("echo")
    async with world.operator():
        monkeypatch.setattr(kube, "request", noted("", kube.request))
        monkeypatch.setattr(kube, "watch", noted("WATCH", kube.watch))
        done = await asyncio.gather(*(client.wait(name, timeout=60) for name in names))
    assert {task.status.phase for task in done} == {"Succeeded"}
    assert sorted(asked) == ["GET", "WATCH"]


async def test_waiting_has_an_end(client: RemitClient) -> None:
    await client.submit(echo("never"))
    with pytest.raises(WaitTimeout, match=r"default/never has not finished within 0\.2 s; it goes on") as late:
        await client.wait("never", timeout=0.2)
    assert isinstance(late.value, TimeoutError)
    assert str(late.value).endswith("; it is Pending, and no operator has said why yet")


async def test_a_wait_counts_the_time_in_the_queue_and_reports_it(world: World, client: RemitClient) -> None:
    await world.policy("sleep")
    async with world.operator(max_concurrent=1):
        first = await client.submit({"metadata": {"name": "first"}, "spec": SLEEPS})
        await world.phase("first", "Running")
        queued = await client.submit({"spec": {"command": {"line": "sleep 0"}, "timeoutSeconds": 600}})
        await world.until(queued.metadata.name, lambda status: status.get("phase") == "Pending")
        with pytest.raises(WaitTimeout, match="it is Running: "):
            await client.wait(first, timeout=0.2)
        with pytest.raises(WaitTimeout, match="it goes on: wait again, or cancel it; it is Pending"):
            await client.wait(queued, timeout=1)
        await client.cancel(first)
        assert (await client.wait(queued, timeout=60)).status.phase == "Succeeded"


async def test_a_cancelled_task_is_waited_for(world: World, client: RemitClient) -> None:
    await world.policy("sleep")
    async with world.operator():
        task = await client.submit({"metadata": {"name": "long"}, "spec": SLEEPS})
        await world.phase("long", "Running")
        await client.cancel(task)
        assert (await client.wait(task, timeout=60)).status.phase == "Cancelled"
        again = await client.cancel(task)
        assert again.status.phase == "Cancelled"


async def test_requests_for_a_missing_task_get_404(client: RemitClient) -> None:
    for asking in (client.get("no"), client.wait("no", timeout=60), client.cancel("no"), client.output("no")):
        with pytest.raises(ApiError) as refusal:
            await asking
        assert refusal.value.status == 404
    assert not await client.delete("no")


async def test_a_task_that_is_deleted_while_it_is_waited_for(client: RemitClient) -> None:
    first = await client.submit(echo("gone"))
    waiting = asyncio.ensure_future(client.wait("gone", timeout=60))
    other = asyncio.ensure_future(client.wait(first, timeout=60))
    async for _ in client.watch(first):
        break
    assert await client.delete(first)
    for wait in (waiting, other):
        with pytest.raises(ApiError, match="default/gone was deleted") as refusal:
            await wait
        assert refusal.value.status == 404
    second = await client.submit(echo("gone"))
    for asking in (client.get(first), client.wait(first, timeout=60), client.cancel(first)):
        with pytest.raises(ApiError, match="default/gone was deleted"):
            await asking
    assert not await client.delete(first)
    assert (await client.get("gone")).metadata.uid == second.metadata.uid


async def test_watching_a_task_ends_with_it(world: World, client: RemitClient) -> None:
    await world.policy("echo")
    await client.submit(echo("seen"))
    phases = []
    async with asyncio.timeout(60), world.operator():
        async for change in client.watch("seen"):
            phases.append(change.task.status.phase)
    assert phases[-1] == "Succeeded"


async def test_watching_a_namespace(client: RemitClient) -> None:
    await client.submit(echo("a"))
    changes = client.watch()
    first = await anext(changes)
    assert (first.type, first.task.metadata.name) == ("ADDED", "a")
    await client.submit({**echo("b"), "metadata": {"name": "b", "labels": {"team": "data"}}})
    await client.delete("a")
    rest = {(change.type, change.task.metadata.name) for change in [await anext(changes), await anext(changes)]}
    assert rest == {("ADDED", "b"), ("DELETED", "a")}
    await changes.aclose()
    assert [task.metadata.name for task in await client.list(labels={"team": "data"})] == ["b"]
    assert await client.list(namespace="elsewhere") == []


async def test_waiting_goes_on_over_a_restart_of_the_server(world: World, client: RemitClient) -> None:
    """This includes a task that is created and deleted while the server is down, of which the watch reports neither."""
    await world.policy("echo")
    await client.submit(echo("first"))
    await client.submit(echo("second"))
    waiting = [asyncio.ensure_future(client.wait(name, timeout=60)) for name in ("first", "second")]
    async for _ in client.watch("first"):
        break
    await world.restart_api_server()
    await client.delete("second")
    with pytest.raises(ApiError, match="default/second was deleted"):
        await waiting[1]
    async with world.operator():
        assert (await waiting[0]).status.phase == "Succeeded"


async def test_a_server_that_stays_away_is_reported(world: World) -> None:
    async with RemitClient(world.kube.access, patience=0.5) as client:
        task = await client.submit(echo("left"))
        waiting = asyncio.ensure_future(client.wait(task))
        async for _ in client.watch(task):
            break
        await world.control_plane.stop()
        for asking in (waiting, client.get("left")):
            with pytest.raises(ApiError, match="does not answer") as refusal:
                await asking
            assert refusal.value.status == 503
        await world.control_plane.start()
        assert (await client.get("left")).metadata.uid == task.metadata.uid
        with pytest.raises(WaitTimeout):  # the client watches again
            await client.wait(task, timeout=0.2)


async def test_waiting_callers_get_an_error_when_the_client_is_closed(world: World) -> None:
    async with RemitClient(world.kube.access) as client:
        waiting = asyncio.ensure_future(client.wait(await client.submit(echo())))
        async for _ in client.watch():
            break
    with pytest.raises(RemitError, match="the watch was closed"):
        await waiting


async def test_a_refusal_is_final(world: World, client: RemitClient) -> None:
    async with RemitClient(replace(world.kube.access, token="wrong", configuration=None)) as stranger:
        with pytest.raises(ApiError) as refusal:
            await asyncio.wait_for(stranger.wait("any"), 60)
    assert refusal.value.status == 401


async def test_a_server_is_found_by_its_kubeconfig(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RemitClient(kubeconfig=world.control_plane.kubeconfig, namespace="default") as client:
        assert await client.list() == []
    monkeypatch.setenv("KUBECONFIG", str(world.control_plane.kubeconfig))
    async with RemitClient() as client:
        assert (client.namespace, await client.list()) == ("default", [])


async def test_who_asked_is_the_programs_name(world: World) -> None:
    async with RemitClient(world.kube.access, name="hive") as client:
        await client.submit(echo("known"))
    (entry,) = (await world.kube.get(TASKS, "default", "known"))["metadata"]["managedFields"]
    assert entry["manager"] == "hive"


async def test_a_deployment_without_an_operator_times_out(world: World, client: RemitClient) -> None:
    body = {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["serve"]}}}
    shop = {"metadata": {"name": "shop"}, "spec": body}
    with pytest.raises(WaitTimeout, match=r"default/shop has not come to its end within 0.1 s"):
        await client.deploy(shop, timeout=0.1)
    async with RemitClient(world.kube.access, patience=0.1) as hasty:
        with pytest.raises(RemitError, match=r"no operator has taken the request within 0.1 s"):
            await hasty.rollback("shop")
    with pytest.raises(InvalidInput, match=r"metadata.name"):
        await client.deploy({"spec": body})
    with pytest.raises(ApiError, match="nobody") as absent:
        await client.rollback("nobody")
    assert absent.value.status == 404


async def test_a_client_that_is_not_open_reports_it() -> None:
    with pytest.raises(RuntimeError, match="async context manager"):
        await RemitClient().list()


async def test_a_pool_runs_a_few_at_once_and_waits_for_all(world: World, client: RemitClient) -> None:
    await world.policy("sh")
    script = {"command": {"argv": ["sh", "-c", "sleep 0.2"]}}
    async with world.operator():
        async with client.pool(2) as pool:
            runs = [pool.submit({"metadata": {"name": f"pooled-{number}"}, "spec": script}) for number in range(6)]
        ended = [run.result() for run in runs]
        assert [task.metadata.name for task in ended] == [f"pooled-{number}" for number in range(6)]
        assert {str(task.status.phase) for task in ended} == {"Succeeded"}
    spans = sorted((task.status.start_time, task.status.completion_time) for task in ended)
    starts = [start for start, _ in spans if start]
    assert all(sum(1 for begin, end in spans if begin and end and begin <= at < end) <= 2 for at in starts)


async def test_what_a_server_refuses_ends_a_pool(world: World, client: RemitClient) -> None:
    await world.policy("sleep")
    async with world.operator():
        with pytest.raises(ExceptionGroup) as caught:
            async with client.pool(2) as pool:
                pool.submit({"metadata": {"name": "long"}, "spec": SLEEPS})
                async for change in client.watch():
                    if change.task.status.phase == "Running":
                        break
                pool.submit({"metadata": {"name": "Not_A_Name"}, "spec": SLEEPS})
                pool.submit({"metadata": {"name": "never"}, "spec": SLEEPS})
        assert caught.group_contains(ApiError) or caught.group_contains(InvalidInput)
        assert (await client.wait("long", timeout=60)).status.phase == "Cancelled"
        with pytest.raises(ApiError, match="never"):
            await client.get("never")


async def test_a_pool_of_none_is_refused(client: RemitClient) -> None:
    with pytest.raises(InvalidInput, match="at least 1"):
        client.pool(0)
