"""Tests structural schemas: unknown fields, pruning, defaults, numbers and list types."""

from __future__ import annotations

import json

from conformance.harness import points
from conformance.harness.client import YAML, Api
from conformance.harness.play import conformance
from conformance.harness.widget import crd, spec_schema, widget


@conformance(points.FIELD_VALIDATION)
async def test_field_validation(api: Api) -> None:
    unknown = {"size": 1, "siez": 2, "inner": {"leval": 1}, "ports": [{"name": "a", "prot": 1}]}
    strict = await api.post(api.widgets, widget(spec=unknown), fieldValidation="Strict")
    strict.refused(
        400, "BadRequest", 'unknown field "spec.siez"', 'unknown field "spec.inner.leval"', "spec.ports[0].prot"
    )
    warned = await api.post(api.widgets, widget("warn", spec=unknown), fieldValidation="Warn")
    assert warned.status == 201 and len(warned.warnings) == 3
    ignored = await api.post(api.widgets, widget("ignore", spec=unknown), fieldValidation="Ignore")
    assert ignored.status == 201 and not ignored.warnings
    default = await api.post(api.widgets, widget("default", spec=unknown))
    assert default.status == 201 and len(default.warnings) == 3
    (await api.post(api.widgets, widget("other"), fieldValidation="Sometimes")).refused(
        422, "Invalid", "fieldValidation"
    )
    path = f"{api.widgets}/warn"
    for strict in (
        await api.merge(path, {"spec": {"siez": 3}}, fieldValidation="Strict"),
        await api.json_patch(path, {"op": "add", "path": "/spec/siez", "value": 3}, fieldValidation="Strict"),
    ):
        assert strict.status in {400, 422} and 'unknown field "spec.siez"' in strict.body["message"].replace("\\", "")
    assert (await api.merge(path, {"spec": {"siez": 3}})).warnings
    top = widget("top") | {"extra": 1, "status": {"nothing": 1}}
    (await api.post(api.widgets, top, fieldValidation="Strict")).refused(400, "BadRequest", 'unknown field "extra"')
    meta = widget("meta", unknown="x")
    (await api.post(api.widgets, meta, fieldValidation="Strict")).refused(400, "BadRequest", "metadata.unknown")
    (await api.post(api.configmaps, {"metadata": {"name": "c"}, "dta": {}}, fieldValidation="Strict")).refused(
        400, "BadRequest", 'unknown field "dta"'
    )


@conformance(points.FIELD_VALIDATION)
async def test_duplicate_keys(api: Api) -> None:
    twice = json.dumps(widget()).replace('"size": 1', '"size": 1, "size": 2')
    (await api.post(api.widgets, twice, fieldValidation="Strict")).refused(
        400, "BadRequest", 'duplicate field "spec.size"'
    )
    warned = await api.post(api.widgets, twice)
    assert warned.ok(201)["spec"]["size"] == 2 and warned.warnings
    in_yaml = "apiVersion: conformance.example.com/v1\nkind: Widget\nmetadata: {name: b}\nspec:\n  size: 1\n  size: 2\n"
    (await api.post(api.widgets, in_yaml, content_type=YAML, fieldValidation="Strict")).refused(400, "BadRequest")
    assert (await api.post(api.widgets, in_yaml, content_type=YAML)).warnings
    (
        await api.post(api.configmaps, '{"metadata":{"name":"c"},"data":{"a":"1","a":"2"}}', fieldValidation="Strict")
    ).refused(400, "BadRequest", "duplicate field")


@conformance(points.FIELD_VALIDATION)
async def test_warnings_ride_on_refusals(api: Api) -> None:
    answer = await api.post(api.widgets, widget(spec={"size": 1000, "siez": 1}))
    answer.refused(422, "Invalid", "spec.size")
    assert answer.warnings


@conformance(points.PRUNING)
async def test_pruning(api: Api) -> None:
    spec = {
        "size": 1,
        "unknown": {"deep": 1},
        "inner": {"level": 1, "unknown": 2},
        "free": {"any": {"thing": [1, {"a": None}]}},
        "labels": {"any": "key"},
        "ports": [{"name": "a", "unknown": 1}],
    }
    body = widget(spec=spec) | {"unknown": 1}
    created = (await api.post(api.widgets, body, fieldValidation="Ignore")).ok(201)
    assert "unknown" not in created and "unknown" not in created["spec"]
    assert created["spec"]["inner"] == {"level": 1} and created["spec"]["free"] == {"any": {"thing": [1, {"a": None}]}}
    assert created["spec"]["ports"] == [{"name": "a", "protocol": "TCP"}]
    managed = created["metadata"]["managedFields"][0]["fieldsV1"]
    assert "f:unknown" not in managed["f:spec"]
    merged = (await api.merge(f"{api.widgets}/a", {"spec": {"unknown": 5, "free": {"more": 1}}})).ok()
    assert "unknown" not in merged["spec"] and merged["spec"]["free"]["more"] == 1


EMBEDDED = spec_schema(
    template={
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}},
    },
    open={"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"known": {"type": "integer"}}},
)


@conformance(points.PRUNING, crds=[crd("Holder", EMBEDDED)])
async def test_embedded_resources(api: Api) -> None:
    def holder(name: str, **spec: object) -> dict[str, object]:
        return {"apiVersion": f"{api.group}/v1", "kind": "Holder", "metadata": {"name": name}, "spec": spec}

    holders = api.collection("holders")
    template = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "junk": 1}, "spec": {"a": "b", "c": "d"}}
    created = (await api.post(holders, holder("a", template=template))).ok(201)
    assert created["spec"]["template"]["metadata"] == {"name": "x"} and created["spec"]["template"]["spec"] == {
        "a": "b"
    }
    (await api.post(holders, holder("b", template={"spec": {}}))).refused(422, "Invalid", "apiVersion")
    kept = (await api.post(holders, holder("c", open={"known": 1, "other": {"x": 1}}))).ok(201)
    assert kept["spec"]["open"] == {"known": 1, "other": {"x": 1}}
    (await api.post(holders, holder("d", open={"known": "text"}))).refused(422, "Invalid", "spec.open.known")


@conformance(points.DEFAULTING)
async def test_defaulting(api: Api) -> None:
    created = (await api.post(api.widgets, widget(spec={"inner": {}, "ports": [{"name": "a"}]}))).ok(201)
    assert created["spec"]["color"] == "red" and created["spec"]["inner"] == {"level": 3}
    assert created["spec"]["ports"] == [{"name": "a", "protocol": "TCP"}]
    nulls = (await api.post(api.widgets, widget("b", spec={"color": None, "inner": {"level": None, "note": None}}))).ok(
        201
    )
    assert nulls["spec"] == {"color": "red", "inner": {"level": 3, "note": None}}
    removed = (await api.merge(f"{api.widgets}/b", {"spec": {"color": None}})).ok()
    assert removed["spec"]["color"] == "red"
    blue = (await api.merge(f"{api.widgets}/b", {"spec": {"color": "blue"}})).ok()
    assert blue["spec"]["color"] == "blue" and blue["metadata"]["generation"] == 2
    dropped = (await api.post(api.widgets, widget("c", spec={"size": None, "labels": None, "list": None}))).ok(201)
    assert dropped["spec"] == {"color": "red"}
    inside = await api.post(api.widgets, widget("d", spec={"list": ["a", None], "labels": {"a": None}}))
    assert inside.status in {201, 422}


STATUS_DEFAULT = spec_schema(size={"type": "integer", "default": 1})
STATUS_DEFAULT["properties"]["spec"]["default"] = {}
STATUS_DEFAULT["properties"]["status"] = {
    "type": "object",
    "default": {"observedGeneration": -1},
    "properties": {"observedGeneration": {"type": "integer"}, "phase": {"type": "string"}},
}


@conformance(points.DEFAULTING, crds=[crd("Early", STATUS_DEFAULT, subresources={"status": {}})])
async def test_status_default(api: Api) -> None:
    """Because of a default for status, clients read a new object as in progress."""
    earlies = api.collection("earlys")
    body = {"apiVersion": f"{api.group}/v1", "kind": "Early", "metadata": {"name": "a"}}
    created = (await api.post(earlies, body)).ok(201)
    assert created["spec"] == {"size": 1}
    read = (await api.get(f"{earlies}/a")).ok()
    assert read["status"] == {"observedGeneration": -1}
    patched = (await api.merge(f"{earlies}/a/status", {"status": {"phase": "x"}})).ok()
    assert patched["status"] == {"observedGeneration": -1, "phase": "x"}
    replaced = (await api.json_patch(f"{earlies}/a/status", {"op": "remove", "path": "/status"})).ok()
    assert replaced["status"] == {"observedGeneration": -1}


@conformance(points.NUMBERS)
async def test_numbers(api: Api) -> None:
    def made(name: str, spec: str) -> str:
        return json.dumps(widget(name, spec={"SPEC": 0})).replace('{"SPEC": 0}', spec)

    created = (await api.post(api.widgets, made("float", '{"size": 2.0, "ratio": 1}'))).ok(201)
    assert created["spec"]["size"] == 2 and created["spec"]["ratio"] == 1
    assert (await api.post(api.widgets, made("exponent", '{"size": 1e1}'))).ok(201)["spec"]["size"] == 10
    for spec in (
        '{"size": 2.5}',
        '{"size": "2"}',
        '{"size": true}',
        '{"replicas": 3000000000}',
        '{"on": 1}',
        '{"ratio": "1"}',
    ):
        assert (await api.post(api.widgets, made("bad", spec))).status in {422, 400}, spec
    for name, spec in {"int": '{"share": 5}', "text": '{"share": "50%"}'}.items():
        (await api.post(api.widgets, made(name, spec))).ok(201)
    for spec in ('{"share": true}', '{"share": 1.5}', '{"share": []}'):
        (await api.post(api.widgets, made("bad", spec))).refused(422, "Invalid", "spec.share")
    assert (await api.post(api.widgets, made("big", '{"free": {"n": 9007199254740993}}'))).ok(201)["spec"]["free"] == {
        "n": 9007199254740993
    }
    fraction = (await api.post(api.widgets, made("fraction", '{"ratio": 0.1, "free": {"f": 1.0, "e": 1e3}}'))).ok(201)
    assert fraction["spec"]["ratio"] == 0.1


@conformance(points.LIST_TYPES)
async def test_list_types(api: Api) -> None:
    (await api.post(api.widgets, widget(spec={"tags": ["a", "b"], "ports": [{"name": "a"}, {"name": "b"}]}))).ok(201)
    twice = await api.post(api.widgets, widget("b", spec={"tags": ["a", "b", "a"]}))
    assert twice.causes() == {("spec.tags[2]", "FieldValueDuplicate")}
    twice = await api.post(api.widgets, widget("b", spec={"ports": [{"name": "a"}, {"name": "a", "protocol": "TCP"}]}))
    assert twice.causes() == {("spec.ports[1]", "FieldValueDuplicate")}
    (await api.post(api.widgets, widget("b", spec={"ports": [{"name": "a"}, {"name": "a", "protocol": "UDP"}]}))).ok(
        201
    )
    missing = await api.post(api.widgets, widget("c", spec={"ports": [{"port": 1}]}))
    assert ("spec.ports[0].name", "FieldValueRequired") in missing.causes()
    (await api.merge(f"{api.widgets}/a", {"spec": {"tags": ["x", "x"]}})).refused(422, "Invalid", "spec.tags[1]")


@conformance()
async def test_value_validation(api: Api) -> None:
    """Tests each keyword of a schema, and all causes of an object that breaks several."""
    for spec, field in (
        ({"size": -1}, "spec.size"),
        ({"size": 101}, "spec.size"),
        ({"color": "mauve"}, "spec.color"),
        ({"code": "toolongbyfar"}, "spec.code"),
        ({"code": "ABC"}, "spec.code"),
        ({"list": ["a"] * 6}, "spec.list"),
        ({"labels": {"a": 1}}, "spec.labels.a"),
        ({"list": [1]}, "spec.list[0]"),
        ({"list": "a"}, "spec.list"),
        ({"inner": []}, "spec.inner"),
    ):
        (await api.post(api.widgets, widget(spec=spec))).refused(422, "Invalid", field)
    several = await api.post(api.widgets, widget(spec={"size": 101, "color": "mauve", "code": "ABCDEFGHIJ"}))
    assert {field for field, _ in several.causes()} == {"spec.size", "spec.color", "spec.code"}
    bare = widget()
    del bare["spec"]
    assert (await api.post(api.widgets, bare)).causes() == {("spec", "FieldValueRequired")}


FORMATS = spec_schema(
    when={"type": "string", "format": "date-time"},
    span={"type": "string", "format": "duration"},
    raw={"type": "string", "format": "byte"},
    at={"type": "string", "format": "ipv4"},
    id={"type": "string", "format": "uuid"},
    made={"type": "string", "format": "made-up"},
    few={"type": "array", "items": {"type": "integer"}, "minItems": 1},
    many={"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2, "minProperties": 1},
    step={"type": "integer", "multipleOf": 5},
    open={"type": "number", "minimum": 0, "exclusiveMinimum": True},
    short={"type": "string", "minLength": 2},
)
FORMATS["properties"]["spec"]["properties"]["either"] = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
}


@conformance(crds=[crd("Format", FORMATS)])
async def test_formats(api: Api) -> None:
    formats = api.collection("formats")

    async def post(**spec: object) -> int:
        name = f"f-{len(api.transcript)}"
        body = {"apiVersion": f"{api.group}/v1", "kind": "Format", "metadata": {"name": name}, "spec": spec}
        return (await api.post(formats, body)).status

    assert await post(when="2020-01-01T00:00:00Z", span="1h", raw="Yg==", at="10.0.0.1", made="anything") == 201
    assert await post(id="123e4567-e89b-12d3-a456-426614174000", few=[1], many={"a": 1}, step=10, open=0.1) == 201
    assert await post(either={"a": "x"}) == 201
    wrong: list[dict[str, object]] = [
        {"when": "yesterday"},
        {"span": "soon"},
        {"raw": "%"},
        {"at": "10.0.0"},
        {"id": "x"},
        {"few": []},
        {"many": {"a": 1, "b": 2, "c": 3}},
        {"many": {}},
        {"step": 7},
        {"open": 0},
        {"short": "a"},
        {"either": {}},
        {"either": {"a": "x", "b": "y"}},
    ]
    for spec in wrong:
        assert await post(**spec) == 422, spec
