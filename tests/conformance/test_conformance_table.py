"""Tests what kubectl prints: Tables and metadata-only responses."""

from __future__ import annotations

from conformance.harness import points
from conformance.harness.client import JSON, METADATA, METADATA_LIST, TABLE, Api
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, crd, spec_schema, widget

COLUMNS = [
    {"name": "Missing", "type": "string", "jsonPath": ".spec.missing"},
    {"name": "Number", "type": "integer", "jsonPath": ".spec.number"},
    {"name": "Float", "type": "number", "jsonPath": ".spec.float"},
    {"name": "Flag", "type": "boolean", "jsonPath": ".spec.flag"},
    {"name": "When", "type": "date", "jsonPath": ".spec.when"},
    {"name": "First", "type": "string", "jsonPath": ".spec.list[0].name"},
    {"name": "Every", "type": "string", "jsonPath": ".spec.list[*].name"},
    {"name": "Chosen", "type": "string", "jsonPath": '.spec.list[?(@.name=="b")].value'},
    {"name": "Label", "type": "string", "jsonPath": r".metadata.labels.example\.com/app"},
    {"name": "Object", "type": "string", "jsonPath": ".spec.inner"},
    {"name": "Wrong", "type": "integer", "jsonPath": ".spec.text"},
]
CELLS = spec_schema(
    missing={"type": "string"},
    number={"type": "integer"},
    float={"type": "number"},
    flag={"type": "boolean"},
    when={"type": "string"},
    text={"type": "string"},
    inner={"type": "object", "additionalProperties": {"type": "string"}},
    list={
        "type": "array",
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}},
    },
)


@conformance(points.TABLES)
async def test_tables(api: Api) -> None:
    (await api.post(api.widgets, widget("a", spec={"size": 5}))).ok(201)
    table = (await api.get(api.widgets, accept=TABLE)).ok()
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [(c["name"], c["priority"]) for c in table["columnDefinitions"]] == [
        ("Name", 0),
        ("Size", 0),
        ("Color", 1),
        ("Age", 0),
    ]
    assert table["rows"][0]["cells"][:3] == ["a", 5, "red"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    one = (await api.get(f"{api.widgets}/a", accept=TABLE)).ok()
    assert len(one["rows"]) == 1
    bare = (await api.get(api.widgets, accept=TABLE, includeObject="None")).ok()
    assert bare["rows"][0].get("object") is None
    full = (await api.get(api.widgets, accept=TABLE, includeObject="Object")).ok()
    assert full["rows"][0]["object"]["spec"]["size"] == 5
    assert (await api.get(api.widgets, accept=TABLE, includeObject="Half")).status in {400, 422}
    paged = (await api.get(api.widgets, accept=TABLE, limit=1)).ok()
    assert len(paged["rows"]) == 1
    kubectl = f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,{JSON}"
    assert (await api.get(api.widgets, accept=kubectl)).ok()["kind"] == "Table"
    (await api.get(f"{api.widgets}/none", accept=TABLE)).refused(404, "NotFound")
    assert (await api.get(api.collection("none"), accept=TABLE)).status == 404
    created = (await api.post(api.widgets, widget("b"), accept=TABLE)).ok(201)
    assert created["kind"] == "Table"


@conformance(points.TABLES, crds=[crd("Cell", CELLS, additionalPrinterColumns=COLUMNS)])
async def test_cells(api: Api) -> None:
    spec = {
        "number": 7,
        "float": 1.5,
        "flag": True,
        "when": "2001-01-01T00:00:00Z",
        "text": "text",
        "inner": {"a": "b"},
        "list": [{"name": "a"}, {"name": "b", "value": "v"}],
    }
    metadata = {"name": "full", "labels": {"example.com/app": "x"}}
    body = {"apiVersion": f"{api.group}/v1", "kind": "Cell", "metadata": metadata, "spec": spec}
    (await api.post(api.collection("cells"), body)).ok(201)
    (await api.post(api.collection("cells"), {**body, "metadata": {"name": "empty"}, "spec": {}})).ok(201)
    (await api.post(api.collection("cells"), {**body, "metadata": {"name": "odd"}, "spec": {"when": "soon"}})).ok(201)
    table = (await api.get(api.collection("cells"), accept=TABLE)).ok()
    assert [row["cells"][0] for row in table["rows"]] == ["empty", "full", "odd"]
    full = table["rows"][1]["cells"]
    assert full[2:5] == [7, 1.5, True] and full[6] == "a" and full[8:10] == ["v", "x"]


@conformance(points.TABLES)
async def test_tables_of_core_kinds(api: Api) -> None:
    """Compares names and numbers of the usual columns. A kind without columns of its own has Name and Created At."""
    (await api.post(api.configmaps, configmap("c", {"a": "b", "d": "e"}))).ok(201)
    secrets = f"/api/v1/namespaces/{api.namespace}/secrets"
    (await api.post(secrets, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})).ok(201)
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{api.namespace}/leases"
    (await api.post(leases, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}})).ok(201)
    assert (await api.get(api.configmaps, accept=TABLE)).ok()["rows"][0]["cells"][:2] == ["c", 2]
    assert (await api.get(secrets, accept=TABLE)).ok()["rows"][0]["cells"][:3] == ["s", "Opaque", 1]
    assert (await api.get(leases, accept=TABLE)).ok()["rows"][0]["cells"][:2] == ["l", "me"]
    mine = await api.get(f"/api/v1/namespaces/{api.namespace}", accept=TABLE)
    assert mine.ok()["rows"][0]["cells"][:2] == [api.namespace, "Active"]
    events = f"/api/v1/namespaces/{api.namespace}/events"
    about = {"kind": "Widget", "name": "a", "namespace": api.namespace}
    body = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "Why", "message": "what", "type": "Normal"}
    (await api.post(events, body)).ok(201)
    cells = (await api.get(events, accept=TABLE)).ok()["rows"][0]["cells"]
    assert cells[1:5] == ["Normal", "Why", "widget/a", cells[4]]
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.conformance.example.com"
    assert (await api.get(crds, accept=TABLE)).ok()["rows"][0]["cells"][0] == "widgets.conformance.example.com"


@conformance(points.TABLES)
async def test_metadata_only(api: Api) -> None:
    (await api.post(api.widgets, widget("a", labels={"x": "y"}))).ok(201)
    one = (await api.get(f"{api.widgets}/a", accept=METADATA)).ok()
    assert (one["kind"], one["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1") and "spec" not in one
    listed = (await api.get(api.widgets, accept=METADATA_LIST)).ok()
    assert listed["kind"] == "PartialObjectMetadataList" and "spec" not in listed["items"][0]
    async with api.watch(api.widgets, accept=METADATA) as watch:
        event = await watch.next()
    assert event["object"]["kind"] == "PartialObjectMetadata"
    patched = (await api.merge(f"{api.widgets}/a", {"metadata": {"labels": {"z": "z"}}}, accept=METADATA)).ok()
    assert patched["metadata"]["labels"] == {"x": "y", "z": "z"}
    assert (await api.delete(f"{api.widgets}/a", accept=METADATA, view=None)).status == 200
