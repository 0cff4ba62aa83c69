"""Tests watches: resumption, selectors, bookmarks and the end of a stream."""

from __future__ import annotations

from conformance.harness import points
from conformance.harness.client import TABLE, Api, Object
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, widget


def seen(events: list[Object]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


def named(name: str, event_type: str = "ADDED") -> object:
    return lambda event: (event["type"], event["object"]["metadata"]["name"]) == (event_type, name)


@conformance()
async def test_watch_from_a_list(api: Api) -> None:
    (await api.post(api.widgets, widget("old"))).ok(201)
    version = (await api.get(api.widgets)).ok()["metadata"]["resourceVersion"]
    async with api.watch(api.widgets, resourceVersion=version) as watch:
        created = (await api.post(api.widgets, widget("a"))).ok(201)
        (await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})).ok()
        (await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})).ok()
        (await api.delete(f"{api.widgets}/a")).ok()
        (await api.post(api.widgets, widget("end"))).ok(201)
        events = await watch.take(4)
    assert seen(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "end")]
    assert events[0]["object"] == created
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions)), "a deletion has a version of its own"
    async with api.watch(api.widgets, resourceVersion=versions[1]) as resumed:
        assert await resumed.take(2) == events[2:]


@conformance()
async def test_watch_from_nothing(api: Api) -> None:
    """Without a version, or from 0, existing objects come first, as additions."""
    for name in "ab":
        (await api.post(api.widgets, widget(name))).ok(201)
    for query in ({}, {"resourceVersion": "0"}):
        async with api.watch(api.widgets, **query) as watch:
            assert sorted(seen(await watch.take(2))) == [("ADDED", "a"), ("ADDED", "b")]
            (await api.post(api.widgets, widget(None, generateName="new-"))).ok(201)
            assert (await watch.next())["type"] == "ADDED"
            for item in (await api.get(api.widgets)).body["items"][2:]:
                (await api.delete(f"{api.widgets}/{item['metadata']['name']}", record=False)).ok()
                # From 0 a server answers from its cache: once the deletion is observed here, the cache has it too.
                assert (await watch.next())["type"] == "DELETED"


@conformance()
async def test_watch_of_one_object(api: Api) -> None:
    (await api.post(api.widgets, widget("a"))).ok(201)
    async with api.watch(api.widgets, fieldSelector="metadata.name=a") as watch:
        await watch.next()
        (await api.post(api.widgets, widget("b"))).ok(201)
        (await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})).ok()
        assert seen([await watch.next()]) == [("MODIFIED", "a")]
    (await api.get(f"{api.widgets}/a", watch=True)).ok()
    old_style = api.widgets.replace("/v1/namespaces", "/v1/watch/namespaces")
    assert (await api.get(f"{old_style}/a", view=None, timeoutSeconds=1)).status in {200, 404}


@conformance(points.WATCH_SELECTORS)
async def test_selected_objects_come_and_go(api: Api) -> None:
    version = (await api.get(api.widgets)).ok()["metadata"]["resourceVersion"]
    path = f"{api.widgets}/a"
    async with (
        api.watch(api.widgets, resourceVersion=version, labelSelector="on=yes") as by_label,
        api.watch(api.widgets, resourceVersion=version, fieldSelector="spec.color=blue") as by_field,
    ):
        (await api.post(api.widgets, widget("a", labels={"on": "no"}))).ok(201)
        (await api.merge(path, {"metadata": {"labels": {"on": "yes"}}, "spec": {"color": "blue"}})).ok()
        (await api.merge(path, {"spec": {"size": 3}})).ok()
        (await api.merge(path, {"metadata": {"labels": {"on": "no"}}, "spec": {"color": "red"}})).ok()
        (await api.merge(path, {"metadata": {"labels": {"on": "yes"}}, "spec": {"color": "blue"}})).ok()
        (await api.delete(path)).ok()
        expected = [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("DELETED", "a")]
        labelled = await by_label.take(5)
        assert seen(labelled) == expected
        assert seen(await by_field.take(5)) == expected
    gone = labelled[2]["object"]
    assert gone["metadata"]["labels"] == {"on": "yes"} and gone["spec"]["size"] == 3, "a leaver is shown as it last was"
    assert gone["metadata"]["resourceVersion"] != labelled[1]["object"]["metadata"]["resourceVersion"]


@conformance(points.BOOKMARKS, needs="watch-progress")
async def test_initial_events(api: Api) -> None:
    for name in "ab":
        (await api.post(api.widgets, widget(name))).ok(201)
    streaming = {"sendInitialEvents": True, "allowWatchBookmarks": True, "resourceVersionMatch": "NotOlderThan"}
    for version in ({}, {"resourceVersion": "0"}):
        async with api.watch(api.widgets, **streaming, **version) as watch:
            events = await watch.until(lambda event: event["type"] == "BOOKMARK")
        assert seen(events[:-1]) == [("ADDED", "a"), ("ADDED", "b")]
        mark = events[-1]["object"]
        assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(mark["metadata"]["resourceVersion"]) >= int(events[-2]["object"]["metadata"]["resourceVersion"])
        assert (mark["kind"], mark["apiVersion"]) == ("Widget", "conformance.example.com/v1")
    async with api.watch(api.configmaps, **streaming) as watch:
        events = await watch.until(lambda event: event["type"] == "BOOKMARK")
    assert seen(events) == [("BOOKMARK", "")]


@conformance(points.BOOKMARKS)
async def test_initial_events_refused(api: Api) -> None:
    for query in (
        {"sendInitialEvents": True, "allowWatchBookmarks": True},
        {"sendInitialEvents": True, "resourceVersionMatch": "Exact"},
        {"resourceVersionMatch": "NotOlderThan"},
        {"sendInitialEvents": True, "resourceVersionMatch": "NotOlderThan"},
    ):
        answer = await api.get(api.widgets, watch=True, timeoutSeconds=1, view=None, **query)
        assert answer.status in {200, 422}, query
    answer = await api.get(api.widgets, sendInitialEvents=True, resourceVersionMatch="NotOlderThan")
    answer.refused(422, "Invalid", "sendInitialEvents")


@conformance(points.OLD_VERSIONS)
async def test_watch_of_versions_that_are_not(api: Api) -> None:
    assert (await api.get(api.widgets, watch=True, resourceVersion="text")).status in {400, 500}
    now = int((await api.get(api.widgets)).ok()["metadata"]["resourceVersion"])
    future = await api.get(api.widgets, watch=True, resourceVersion=now + 1_000_000, timeoutSeconds=1)
    assert future.status in {200, 504}


@conformance()
async def test_timeout_ends_a_watch(api: Api) -> None:
    (await api.post(api.widgets, widget("a"))).ok(201)
    async with api.watch(api.widgets, timeoutSeconds=1) as watch:
        assert seen(await watch.ended()) == [("ADDED", "a")]


@conformance(points.TABLES)
async def test_watch_of_tables(api: Api) -> None:
    """Tests `kubectl get -w`: only the first event needs the columns."""
    (await api.post(api.widgets, widget("a"))).ok(201)
    async with api.watch(api.widgets, accept=TABLE) as watch:
        first = await watch.next()
        (await api.merge(f"{api.widgets}/a", {"spec": {"size": 2}})).ok()
        second = await watch.next()
    assert first["object"]["kind"] == second["object"]["kind"] == "Table"
    assert [column["name"] for column in first["object"]["columnDefinitions"]] == ["Name", "Size", "Color", "Age"]
    assert not second["object"]["columnDefinitions"]
    assert second["object"]["rows"][0]["cells"][:2] == ["a", 2]
    assert second["object"]["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


@conformance(needs="watch-progress")
async def test_watch_in_every_namespace(api: Api) -> None:
    everywhere = "/apis/conformance.example.com/v1/widgets"
    mine = f"metadata.namespace={api.namespace}"
    async with api.watch(everywhere, fieldSelector=mine) as watch:
        (await api.post(api.widgets, widget("a"))).ok(201)
        assert seen([await watch.next()]) == [("ADDED", "a")]
    async with api.watch("/api/v1/namespaces", fieldSelector=f"metadata.name={api.namespace}") as watch:
        assert seen([await watch.next()]) == [("ADDED", api.namespace)]
    async with api.watch(api.configmaps) as watch:
        (await api.post(api.configmaps, configmap("c"))).ok(201)
        event = await watch.next()
    assert (event["object"]["kind"], event["object"]["apiVersion"]) == ("ConfigMap", "v1")
