"""Tests lists: selectors, pages and resource versions."""

from __future__ import annotations

from conformance.harness import points
from conformance.harness.client import Answer, Api
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, widget


def names(answer: Answer) -> list[str]:
    return [item["metadata"]["name"] for item in answer.ok()["items"]]


async def fill(api: Api) -> None:
    (await api.post(api.widgets, widget("a", spec={"color": "red"}, labels={"app": "x", "tier": "1"}))).ok(201)
    (await api.post(api.widgets, widget("b", spec={"color": "blue"}, labels={"app": "x", "tier": "2"}))).ok(201)
    (await api.post(api.widgets, widget("c", spec={"color": "blue"}, labels={"app": "y"}))).ok(201)
    (await api.post(api.widgets, widget("d", spec={"color": "green"}))).ok(201)


@conformance(points.SELECTORS)
async def test_label_selectors(api: Api) -> None:
    await fill(api)
    for selector, expected in {
        "app=x": "ab",
        "app==x": "ab",
        "app!=x": "cd",
        "app in (x, y)": "abc",
        "app notin (x)": "cd",
        "app": "abc",
        "!app": "d",
        "app=x,tier=2": "b",
        "app,!tier": "c",
        "tier>1": "b",
        "tier<2": "a",
        "": "abcd",
        "app=": "",
        " app = x ": "ab",
    }.items():
        assert names(await api.get(api.widgets, labelSelector=selector)) == list(expected), selector
    for selector in ("app=x=y", "=x", "app in x", "app in (", "a b", "!", "app>x", "UPPER_/x=1", "app=-"):
        (await api.get(api.widgets, labelSelector=selector)).refused(400, "BadRequest")


@conformance(points.SELECTORS)
async def test_field_selectors(api: Api) -> None:
    await fill(api)
    for selector, expected in {
        "metadata.name=a": "a",
        "metadata.name!=a": "bcd",
        f"metadata.namespace={api.namespace}": "abcd",
        "metadata.namespace=other": "",
        "spec.color=blue": "bc",
        "spec.color!=blue": "ad",
        "spec.color=blue,metadata.name=b": "b",
        "spec.color=none": "",
        "": "abcd",
    }.items():
        assert names(await api.get(api.widgets, fieldSelector=selector)) == list(expected), selector
    both = await api.get(api.widgets, fieldSelector="spec.color=blue", labelSelector="app=y")
    assert names(both) == ["c"]
    for selector in ("spec.size=1", "metadata.labels=a", "nonsense", "metadata.uid=x"):
        (await api.get(api.widgets, fieldSelector=selector)).refused(400, "BadRequest")
    everywhere = "/apis/conformance.example.com/v1/widgets"
    mine = await api.get(everywhere, fieldSelector=f"metadata.namespace={api.namespace}")
    assert names(mine) == list("abcd")
    (await api.get("/api/v1/namespaces", fieldSelector=f"metadata.name={api.namespace}")).ok()
    (await api.get("/api/v1/namespaces", fieldSelector="status.phase=Terminating", view=None)).ok()
    (await api.get(api.configmaps, fieldSelector="data.a=b")).refused(400, "BadRequest", "not a known field selector")
    (await api.get(f"/api/v1/namespaces/{api.namespace}/secrets", fieldSelector="type=Opaque")).ok()


@conformance(points.SELECTORS)
async def test_event_field_selectors(api: Api) -> None:
    """`kubectl describe` finds the Events of an object with these; kopf posts Events without a kind."""
    events = f"/api/v1/namespaces/{api.namespace}/events"
    about = {"apiVersion": "conformance.example.com/v1", "kind": "Widget", "name": "a", "namespace": api.namespace}
    event = {
        "metadata": {"generateName": "a-"},
        "involvedObject": {**about, "uid": "0-0"},
        "reason": "Made",
        "message": "it was made",
        "type": "Normal",
        "source": {"component": "test"},
        "firstTimestamp": "2020-01-01T00:00:00Z",
        "lastTimestamp": "2020-01-01T00:00:00Z",
        "count": 1,
    }
    created = (await api.post(events, event)).ok(201)
    assert (created["kind"], created["apiVersion"]) == ("Event", "v1")
    for selector, count in {
        "involvedObject.name=a": 1,
        "involvedObject.name=b": 0,
        f"involvedObject.name=a,involvedObject.namespace={api.namespace},involvedObject.kind=Widget": 1,
        "involvedObject.uid=0-0": 1,
        "reason=Made,type=Normal": 1,
        "type=Warning": 0,
        "source=test": 1,
        "reportingComponent=test": 0,
        "involvedObject.apiVersion=conformance.example.com/v1": 1,
    }.items():
        assert len((await api.get(events, fieldSelector=selector)).ok()["items"]) == count, selector
    (await api.get(events, fieldSelector="message=x")).refused(400, "BadRequest")
    (await api.post(events, {**event, "involvedObject": {**about, "namespace": "other"}})).refused(422, "Invalid")


@conformance(points.PAGES)
async def test_pages(api: Api) -> None:
    for name in "abcde":
        (await api.post(api.widgets, widget(name, labels={"odd": str(name in "ace").lower()}))).ok(201)
    first = await api.get(api.widgets, limit=2)
    assert names(first) == ["a", "b"] and first.body["metadata"]["remainingItemCount"] == 3
    (await api.post(api.widgets, widget("f"))).ok(201)
    (await api.delete(f"{api.widgets}/c")).ok()
    token = first.body["metadata"]["continue"]
    second = await api.get(api.widgets, limit=2, **{"continue": token})
    assert names(second) == ["c", "d"], "pages are of one moment"
    assert second.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]
    last = await api.get(api.widgets, limit=2, **{"continue": second.body["metadata"]["continue"]})
    assert names(last) == ["e"]
    assert not last.body["metadata"].get("continue") and "remainingItemCount" not in last.body["metadata"]
    rest = await api.get(api.widgets, **{"continue": token})
    assert names(rest) == ["c", "d", "e"]
    assert names(await api.get(api.widgets, limit=500)) == list("abdef")
    assert names(await api.get(api.widgets, limit=0)) == list("abdef")
    selected = await api.get(api.widgets, limit=1, labelSelector="odd=true")
    assert names(selected) == ["a"] and "remainingItemCount" not in selected.body["metadata"]
    assert selected.body["metadata"]["continue"]


@conformance(points.PAGES)
async def test_pages_refused(api: Api) -> None:
    await fill(api)
    token = (await api.get(api.widgets, limit=2)).body["metadata"]["continue"]
    (await api.get(api.widgets, limit=2, **{"continue": "nonsense"})).refused(400, "BadRequest")
    both = {"continue": token, "resourceVersion": "5"}
    assert (await api.get(api.widgets, limit=2, **both)).status == 400
    assert (await api.get(api.widgets, limit=-1)).status in {200, 400, 422}
    assert (await api.get(api.widgets, limit="many")).status == 400
    assert (await api.get(api.widgets, limit=2, **{"continue": token, "resourceVersion": "0"})).status in {200, 400}


@conformance(points.OLD_VERSIONS)
async def test_list_resource_versions(api: Api) -> None:
    await fill(api)
    now = (await api.get(api.widgets)).ok()["metadata"]["resourceVersion"]
    assert now.isdigit()
    for options in (
        {"resourceVersion": ""},
        {"resourceVersion": "0"},
        {"resourceVersion": now},
        {"resourceVersion": now, "resourceVersionMatch": "NotOlderThan"},
        {"resourceVersion": now, "resourceVersionMatch": "Exact"},
        {"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan"},
    ):
        assert names(await api.get(api.widgets, **options)) == list("abcd"), options
    (await api.get(api.widgets, resourceVersion="text")).refused(400, "BadRequest")
    (await api.get(api.widgets, resourceVersion="-1")).refused(400, "BadRequest")
    (await api.get(api.widgets, resourceVersionMatch="Exact")).refused(422, "Invalid", "resourceVersionMatch")
    (await api.get(api.widgets, resourceVersion="0", resourceVersionMatch="Exact")).refused(422, "Invalid")
    (await api.get(api.widgets, resourceVersion=now, resourceVersionMatch="Sometimes")).refused(422, "Invalid")
    assert (await api.get(f"{api.widgets}/a", resourceVersion="0")).status == 200
    assert (await api.get(f"{api.widgets}/a", resourceVersion="text")).status in {400, 500}


@conformance(points.OLD_VERSIONS)
async def test_future_resource_version(api: Api) -> None:
    """For a version in the future, the server waits a moment (kube-apiserver three seconds) and then refuses."""
    now = int((await api.get(api.widgets)).ok()["metadata"]["resourceVersion"])
    answer = await api.get(api.widgets, resourceVersion=now + 1_000_000)
    body = answer.refused(504, "Timeout", "Too large resource version")
    assert body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert "Retry-After" in answer.headers or body["details"].get("retryAfterSeconds")


@conformance()
async def test_lists_have_a_kind(api: Api) -> None:
    empty = (await api.get(api.widgets)).ok()
    assert empty["kind"] == "WidgetList" and empty["items"] == []
    await fill(api)
    listed = (await api.get(api.widgets)).ok()
    assert all(item["kind"] == "Widget" for item in listed["items"]), "items of a custom resource carry their kind"
    (await api.post(api.configmaps, configmap("c"))).ok(201)
    plain = (await api.get(api.configmaps)).ok()
    assert plain["kind"] == "ConfigMapList" and "kind" not in plain["items"][0]
    pretty = await api.get(api.widgets, pretty="true", view=None)
    assert b"\n  " in pretty.raw
