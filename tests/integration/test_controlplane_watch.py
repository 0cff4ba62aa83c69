"""Tests what informers rely on: lists and watches that fit together without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplanes import CONFIGMAPS, PATIENCE, Client, client_of, configmap
from remit.controlplane import server as server_module
from remit.controlplane.http.dispatch import Answer, Dispatcher
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.server import ControlPlane


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path) as server:
        yield server


@pytest.fixture
async def client(server: ControlPlane) -> AsyncIterator[Client]:
    async with client_of(server.kubeconfig) as client:
        yield client


async def revision(client: Client) -> str:
    return str((await client.get(CONFIGMAPS))["metadata"]["resourceVersion"])


async def test_selectors_turn_changes_into_coming_and_going(client: Client) -> None:
    await client.create(CONFIGMAPS, configmap("a"))
    async with client.watch(CONFIGMAPS, resourceVersion=await revision(client), labelSelector="x=y") as events:
        await client.merge(f"{CONFIGMAPS}/a", {"metadata": {"labels": {"x": "y"}}})
        await client.merge(f"{CONFIGMAPS}/a", {"data": {"k": "v"}})
        changed = await client.merge(f"{CONFIGMAPS}/a", {"metadata": {"labels": {"x": "z"}}})
        await client.merge(f"{CONFIGMAPS}/a", {"metadata": {"labels": {"x": "y"}}})
        await client.ok("DELETE", f"{CONFIGMAPS}/a")
        assert await events.take(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        kind, gone = await events.next()
        assert kind == "DELETED" and gone["metadata"]["labels"] == {"x": "y"}, "as it was when it was selected"
        assert gone["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
        assert await events.take(2) == [("ADDED", "a"), ("DELETED", "a")]


async def test_initial_events_end_with_an_annotated_bookmark(client: Client) -> None:
    for name in "ab":
        await client.create(CONFIGMAPS, configmap(name))
    options = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with client.watch(CONFIGMAPS, **options) as events:
        assert await events.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        kind, bookmark = await events.next()
        assert kind == "BOOKMARK"
        assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert bookmark["metadata"]["resourceVersion"] == await revision(client)
        await client.create(CONFIGMAPS, configmap("c"))
        assert await events.take(1) == [("ADDED", "c")]


async def test_silence_is_broken_by_bookmarks(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.controlplane.verbs.watch.BOOKMARK_SECONDS", 0.05)
    async with client.watch(CONFIGMAPS, resourceVersion="0", allowWatchBookmarks="true") as events:
        await client.create("/api/v1/namespaces/kube-system/configmaps", configmap("elsewhere"))
        wanted = await revision(client)
        async with asyncio.timeout(PATIENCE):
            while True:
                kind, bookmark = await events.next()
                assert kind == "BOOKMARK"
                if bookmark["metadata"]["resourceVersion"] == wanted:
                    break


async def test_a_forgotten_revision_is_410_within_the_stream(client: Client, server: ControlPlane) -> None:
    old = await revision(client)
    store = server._store
    assert store is not None
    store._history_limit = 5
    for size in range(10):
        await client.create(CONFIGMAPS, configmap(f"c{size}"))
    async with client.watch(CONFIGMAPS, resourceVersion=old) as events:
        kind, status = await events.next()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        assert await events.ended()
    status_code, answer = await client.call("GET", CONFIGMAPS, resourceVersion=old, resourceVersionMatch="Exact")
    assert (status_code, answer["reason"]) == (410, "Expired")


async def test_a_chunked_list_shows_one_moment(client: Client) -> None:
    for name in "abcd":
        await client.create(CONFIGMAPS, configmap(name))
    first = await client.get(CONFIGMAPS, limit="2")
    assert [i["metadata"]["name"] for i in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 2
    await client.ok("DELETE", f"{CONFIGMAPS}/c")
    await client.create(CONFIGMAPS, configmap("bb"))
    rest = await client.get(CONFIGMAPS, limit="2", **{"continue": first["metadata"]["continue"]})
    assert [i["metadata"]["name"] for i in rest["items"]] == ["c", "d"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in rest["metadata"]
    assert await client.names(CONFIGMAPS) == ["a", "b", "bb", "d"]


async def test_a_watcher_that_does_not_read_is_cut_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.controlplane.storage.store.SUBSCRIPTION_LIMIT", 3)
    async with client.watch(CONFIGMAPS, resourceVersion=await revision(client)) as events:
        big = configmap("big") | {"data": {"a": "x" * 500_000}}
        await client.create(CONFIGMAPS, big)
        for number in range(60):
            await client.merge(f"{CONFIGMAPS}/big", {"metadata": {"labels": {"n": str(number)}}})
        count = 0
        async with asyncio.timeout(PATIENCE):
            while await events.answer.content.readline():
                count += 1
        assert 0 < count < 61, "it got what was sent in order, and then the end of the stream"


async def test_timeouts_end_a_watch(client: Client) -> None:
    async with client.watch(CONFIGMAPS, timeoutSeconds="1") as events:
        assert await events.ended()


async def test_stopping_the_server_ends_watches(tmp_path: Path) -> None:
    async with (
        ControlPlane(tmp_path / "x") as server,
        client_of(server.kubeconfig) as client,
        client.watch(CONFIGMAPS) as events,
    ):
        stopping = asyncio.create_task(server.stop())
        assert await events.ended()
        await stopping


async def test_stopping_the_server_ends_watches_that_were_asked_for_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that begins after all others were asked to end would delay the server for its whole grace period."""
    monkeypatch.setattr(server_module, "STOP_SECONDS", 3600)
    asked, go_on = asyncio.Event(), asyncio.Event()
    answer = Dispatcher.answer

    async def held(self: Dispatcher, request: ApiRequest) -> Answer:
        asked.set()
        await go_on.wait()
        return await answer(self, request)

    async with ControlPlane(tmp_path / "x") as server, client_of(server.kubeconfig) as client:
        monkeypatch.setattr(Dispatcher, "answer", held)
        watching = asyncio.create_task(client.get(CONFIGMAPS, watch="true"))
        await asked.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)  # it has asked the existing watches to end
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            await watching
            await stopping


async def test_every_watcher_sees_every_change_once_and_in_order(client: Client) -> None:
    start = await revision(client)
    async with (
        client.watch(CONFIGMAPS, resourceVersion=start) as one,
        client.watch(CONFIGMAPS, resourceVersion=start) as two,
    ):
        await asyncio.gather(*(client.create(CONFIGMAPS, configmap(f"c{n}")) for n in range(50)))
        seen = [[(await events.next())[1]["metadata"] for _ in range(50)] for events in (one, two)]
    assert seen[0] == seen[1]
    revisions = [int(metadata["resourceVersion"]) for metadata in seen[0]]
    assert revisions == sorted(set(revisions)) and len({m["name"] for m in seen[0]}) == 50
