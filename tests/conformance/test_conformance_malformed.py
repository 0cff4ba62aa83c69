"""Tests objects with parts of wrong types or without meaning: both servers refuse the same and continue."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

from conformance.harness.client import CRDS, JSON_PATCH, YAML, Api, Object
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, crd, spec_schema, widget


def outcome(body: Any) -> Any:
    """Returns the part of a refusal for programs: its reason, and the invalid fields."""
    if body.get("kind") != "Status" or body["status"] == "Success":
        return "taken"
    causes = (body.get("details") or {}).get("causes") or []
    fields = sorted({(cause.get("field", ""), cause["reason"]) for cause in causes})
    return [body["code"], body["reason"], fields]


def gadget(api: Api) -> Object:
    return copy.deepcopy(crd("Gadget", spec_schema(a={"type": "string"}), group=api.group))


def with_version(api: Api, **version: Any) -> Object:
    body = gadget(api)
    body["spec"]["versions"][0] |= version
    return body


def with_field(api: Api, schema: Any) -> Object:
    body = gadget(api)
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"] = schema
    return body


FIELDS: dict[str, Any] = {
    "a number": 5,
    "a list": [],
    "type": {"type": 5},
    "types": {"type": ["string", "null"]},
    "enum": {"type": "string", "enum": 5},
    "enum of null": {"type": "string", "enum": [None]},
    "rules": {"type": "string", "x-kubernetes-validations": {}},
    "rule": {"type": "string", "x-kubernetes-validations": [5]},
    "rule of null": {"type": "string", "x-kubernetes-validations": [None]},
    "rule text": {"type": "string", "x-kubernetes-validations": [{"rule": 5}]},
    "maxLength": {"type": "string", "maxLength": "5"},
    "fraction": {"type": "string", "maxLength": 5.5},
    "maximum": {"type": "integer", "maximum": "5"},
    "multipleOf": {"type": "integer", "multipleOf": 0},
    "pattern": {"type": "string", "pattern": 5},
    "pattern in anyOf": {"type": "string", "anyOf": [{"pattern": "("}]},
    "anyOf": {"type": "string", "anyOf": 5},
    "anyOf item": {"type": "string", "anyOf": [5]},
    "not": {"type": "string", "not": 5},
    "items list": {"type": "array", "items": [{"type": "string"}]},
    "additionalProperties": {"type": "object", "additionalProperties": 5},
    "required": {"type": "object", "required": "a"},
    "required item": {"type": "object", "required": [5]},
    "nullable": {"type": "object", "nullable": "yes"},
    "preserve": {"type": "object", "x-kubernetes-preserve-unknown-fields": "yes"},
    "preserve false": {"type": "object", "x-kubernetes-preserve-unknown-fields": False},
    "list type": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": 5},
    "unknown list type": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"},
    "list type of a string": {"type": "string", "x-kubernetes-list-type": "map"},
    "map type": {"type": "object", "x-kubernetes-map-type": "bag"},
    "undeclared map key": {
        "type": "array",
        "items": {"type": "object", "properties": {"b": {"type": "string"}}},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["a"],
    },
    "optional map key": {
        "type": "array",
        "items": {"type": "object", "properties": {"a": {"type": "string"}}},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["a"],
    },
    "map of strings": {
        "type": "array",
        "items": {"type": "string"},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["a"],
    },
    "map keys": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-map-keys": "a"},
    "format": {"type": "string", "format": 5},
    "properties": {"type": "object", "properties": []},
    "unknown word": {"type": "string", "colour": 5},
    "embedded": {"type": "object", "x-kubernetes-embedded-resource": True},
    "embedded string": {"type": "string", "x-kubernetes-embedded-resource": True},
}


@conformance()
async def test_malformed_schemas(api: Api) -> None:
    for what, schema in FIELDS.items():
        answer = await api.post(CRDS, with_field(api, schema), dryRun="All", view=outcome)
        assert answer.status < 500, what


VERSIONS: dict[str, Any] = {
    "scale without paths": {"subresources": {"scale": {"specReplicasPath": ".spec.replicas"}}},
    "scale elsewhere": {"subresources": {"scale": {"specReplicasPath": ".a.b", "statusReplicasPath": ".c"}}},
    "scale without a dot": {
        "subresources": {"scale": {"specReplicasPath": "spec.a", "statusReplicasPath": ".status.a"}}
    },
    "scale path": {"subresources": {"scale": {"specReplicasPath": 5, "statusReplicasPath": ".status.a"}}},
    "subresources": {"subresources": []},
    "status": {"subresources": {"status": 5}},
    "nothing selectable": {"selectableFields": [{}]},
    "null selectable": {"selectableFields": [None]},
    "selectable nowhere": {"selectableFields": [{"jsonPath": ".spec.nope"}]},
    "selectable metadata": {"selectableFields": [{"jsonPath": ".metadata.name"}]},
    "selectable object": {"selectableFields": [{"jsonPath": ".spec"}]},
    "selectable item": {"selectableFields": [{"jsonPath": ".spec.a[0]"}]},
    "selectable twice": {"selectableFields": [{"jsonPath": ".spec.a"}, {"jsonPath": ".spec.a"}]},
    "columns": {"additionalPrinterColumns": 5},
    "column": {"additionalPrinterColumns": [5]},
    "column name": {"additionalPrinterColumns": [{"name": 5, "type": "string", "jsonPath": ".spec.a"}]},
    "column priority": {
        "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a", "priority": "1"}]
    },
    "column format": {
        "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a", "format": "blue"}]
    },
    "served": {"served": "yes"},
    "storage": {"storage": 1},
    "deprecated": {"deprecated": "yes"},
    "warning alone": {"deprecationWarning": "old"},
    "warning of lines": {"deprecated": True, "deprecationWarning": "a\nb"},
    "schema": {"schema": "text"},
    "root schema": {"schema": {"openAPIV3Schema": 5}},
    "root metadata": {
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"metadata": {"type": "string"}}}}
    },
    "root labels": {
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}},
            }
        }
    },
    "root apiVersion": {
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"apiVersion": {"type": "integer"}}}}
    },
}
SPECS: dict[str, Any] = {
    "names": {"names": "gadgets"},
    "no names": {"names": {}},
    "versions": {"versions": {}},
    "version": {"versions": [5]},
    "group": {"group": 5},
    "scope": {"scope": []},
    "conversion": {"conversion": "None"},
    "no strategy": {"conversion": {}},
    "webhook": {"conversion": {"strategy": "Webhook", "webhook": 5}},
}
NAMES: dict[str, Any] = {
    "short names": {"shortNames": 5},
    "short name": {"shortNames": [5]},
    "no short name": {"shortNames": ["A B"]},
    "no category": {"categories": ["A B"]},
}


@conformance()
async def test_malformed_crds(api: Api) -> None:
    bodies: list[Object] = [with_version(api, **version) for version in VERSIONS.values()]
    bodies += [{**gadget(api), "spec": {**gadget(api)["spec"], **spec}} for spec in SPECS.values()]
    for names in NAMES.values():
        body = gadget(api)
        body["spec"]["names"] |= names
        bodies.append(body)
    bodies += [{**gadget(api), "spec": 5}, {**gadget(api), "status": 5}]
    bodies += [{**gadget(api), "status": {"conditions": 5}}, {**gadget(api), "status": {"conditions": [{}]}}]
    for body in bodies:
        answer = await api.post(CRDS, body, dryRun="All", view=outcome)
        assert answer.status < 500, body


@conformance()
async def test_malformed_crd_status(api: Api) -> None:
    await api.install(gadget(api))
    path = f"{CRDS}/gadgets.{api.group}"
    for status in (
        {"conditions": [{}]},
        {"conditions": [{"type": "A"}]},
        {"conditions": 5},
        {"conditions": [5]},
        {"conditions": [{"type": "A", "status": "True", "lastTransitionTime": "noon"}]},
        {"acceptedNames": 5},
        {"storedVersions": [5]},
    ):
        answer = await api.merge(f"{path}/status", {"status": status}, view=outcome)
        assert answer.status < 500, status
        (await api.get(path, view=None)).ok()
    (await api.delete(path, view=None)).ok()


OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}
METADATA: dict[str, Any] = {
    "owner uid": {"ownerReferences": [{**OWNER, "uid": ["u"]}]},
    "owner without uid": {"ownerReferences": [OWNER]},
    "owner controller": {"ownerReferences": [{**OWNER, "uid": "u", "controller": "yes"}]},
    "null owner": {"ownerReferences": [None]},
    "owner": {"ownerReferences": [5]},
    "owners": {"ownerReferences": {}},
    "finalizers": {"finalizers": "a.b/c"},
    "finalizer": {"finalizers": [5]},
    "null finalizer": {"finalizers": [None]},
    "labels": {"labels": []},
    "label": {"labels": {"a": 5}},
    "annotations": {"annotations": 5},
    "annotation": {"annotations": {"a": 5}},
    "managedFields": {"managedFields": 5},
    "managed by a number": {"managedFields": [{"manager": 5}]},
    "managed at noon": {"managedFields": [{"manager": "a", "operation": "Update", "time": "noon"}]},
    "generation": {"generation": "1"},
    "creationTimestamp": {"creationTimestamp": 5},
    "created at noon": {"creationTimestamp": "noon"},
    "grace period": {"deletionGracePeriodSeconds": "x"},
    "selfLink": {"selfLink": 5},
    "uid": {"uid": 5},
    "namespace": {"namespace": 5},
    "generateName": {"generateName": 5},
    "resourceVersion": {"resourceVersion": 5},
    "name": {"name": {}},
}


@conformance()
async def test_malformed_metadata(api: Api) -> None:
    (await api.post(api.configmaps, configmap("a"), view=None)).ok(201)
    (await api.post(api.widgets, widget("a"), view=None)).ok(201)
    for what, metadata in METADATA.items():
        for body, path in ((configmap("b"), api.configmaps), (widget("b"), api.widgets)):
            created = {**body, "metadata": {**body["metadata"], **metadata}}
            answer = await api.post(path, created, dryRun="All", view=outcome)
            assert answer.status < 500, what
            answer = await api.merge(f"{path}/a", {"metadata": metadata}, dryRun="All", view=outcome)
            assert answer.status < 500, what
    for body, path in ((configmap("b"), api.configmaps), (widget("b"), api.widgets)):
        (await api.post(path, {**body, "metadata": 5}, view=outcome)).ok(400)


LEVELS = "abcdefghi"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(LEVELS)
)
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"


@conformance()
async def test_yaml_that_costs_too_much(api: Api) -> None:
    for text in (BOMB, "[" * 100_000, "- " * 20_000 + "x", "a: &a [*a]", CONFIG_MAP + "data: {[a]: b}"):
        (await api.post(api.configmaps, text, content_type=YAML, view=outcome)).refused(400, "BadRequest")
    (await api.post(api.configmaps, "[" * 100_000, view=outcome)).refused(400, "BadRequest")
    for text in ("data: {1: a}", "data: {yes: a}", "data: {<<: {a: b}, c: d}", "data: {a: '2020-01-01'}"):
        made = await api.post(
            api.configmaps, CONFIG_MAP + text, content_type=YAML, dryRun="All", view=lambda b: b["data"]
        )
        made.ok(201)


@conformance()
async def test_json_patches_that_cost_too_much(api: Api) -> None:
    (await api.post(api.configmaps, configmap("a", {"a": "x" * 1000}), view=None)).ok(201)
    patches: list[list[Object]] = [
        [{"op": "copy", "from": "/data", "path": f"/data/b{number}"} for number in range(25)],
        [{"op": "add", "path": "/x", "value": ["x" * 1000]}, *[{"op": "copy", "from": "/x", "path": "/x/-"}] * 40],
        [{"op": 5, "path": "/a"}],
        [{"op": "add", "path": 5, "value": 1}],
        [{"op": "copy", "from": 5, "path": "/a"}],
        [{"op": [], "path": "/a"}],
        [{"op": "remove", "path": ""}],
        [{"op": "replace", "path": "", "value": 5}],
        [{"op": "move", "from": "/metadata", "path": "/metadata/x"}],
        [{"op": "add", "path": "/metadata/finalizers/x", "value": "a"}],
        [{"op": "add", "path": "/kind/x", "value": "a"}],
    ]
    for operations in patches:
        answer = await api.send(
            "PATCH", f"{api.configmaps}/a", operations, content_type=JSON_PATCH, dryRun="All", view=outcome
        )
        assert answer.status in (400, 422), operations


@conformance()
async def test_malformed_delete_options(api: Api) -> None:
    (await api.post(api.configmaps, configmap("a"), view=None)).ok(201)
    for options in (
        {"dryRun": 5},
        {"preconditions": 5},
        {"preconditions": {"uid": 5}},
        {"propagationPolicy": []},
        {"orphanDependents": "yes"},
        {"gracePeriodSeconds": "soon"},
    ):
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        (await api.delete(f"{api.configmaps}/a", body, view=outcome)).refused(400, "BadRequest")
    (await api.delete(f"{api.configmaps}/a", "[]", view=outcome)).refused(400, "BadRequest")


ATTRIBUTES = {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "configmaps"}}
MASTERS = {"groups": ["system:masters"], **ATTRIBUTES}


@conformance()
async def test_reviews(api: Api) -> None:
    """Webhooks and dashboards ask whose token it is, and what a user may do."""
    authentication, authorization = "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1"
    local = f"{authorization}/namespaces/default/localsubjectaccessreviews"
    for path, kind in (
        (f"{authorization}/subjectaccessreviews", "SubjectAccessReview"),
        (local, "LocalSubjectAccessReview"),
    ):
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind}
        allowed = await api.post(path, {**body, "spec": MASTERS}, view=lambda body: body["status"]["allowed"])
        assert allowed.ok(201)["status"]["allowed"] is True
        for spec in ({}, ATTRIBUTES, {"user": "bob"}, {"user": 5}, {"user": "bob", "groups": "x", **ATTRIBUTES}):
            answer = await api.post(path, {**body, "spec": spec}, view=lambda body: body.get("code", "taken"))
            assert answer.status < 500, spec
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    tokens = f"{authentication}/tokenreviews"
    refused = await api.post(tokens, {**review, "spec": {"token": "nobody's"}}, view=None)
    assert not refused.ok(201)["status"].get("authenticated") and refused.ok(201)["status"]["error"]
    for spec in ({}, {"token": 5}, {"token": ""}):
        (await api.post(tokens, {**review, "spec": spec}, view=outcome)).refused(400, "BadRequest")


NUMBERS = (
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1e19",
    "1e18",
    "9223372036854775808.0",
    "100000000000000000000000",
)


@conformance()
async def test_integers_beyond_64_bits(api: Api) -> None:
    """They do not fit an integer, and are returned as floating point numbers where a schema accepts these."""
    words = {"i": {"type": "integer"}, "n": {"type": "number"}, "f": {"type": "integer", "format": "int64"}}
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await api.install(crd("Gadget", spec_schema(**words, x=anything), group=api.group))
    path = f"/apis/{api.group}/v1/namespaces/{api.namespace}/gadgets"
    head = f'{{"apiVersion": "{api.group}/v1", "kind": "Gadget", "metadata": {{"name": "a"}}, "spec": '

    def spec_or_refusal(body: Any) -> Any:
        if "spec" not in body:
            code, reason, fields = outcome(body)
            return code, reason, [field for field in fields if field[0] != "<nil>"]
        ((field, value),) = body["spec"].items()
        return field, float(value["a"] if field == "x" else value)

    for number in NUMBERS:
        for field in ('{"i": %s}', '{"n": %s}', '{"f": %s}', '{"x": {"a": %s}}'):
            body = head + field % number + "}"
            answer = await api.post(path, body, dryRun="All", view=spec_or_refusal)
            assert answer.status < 500, body
            answer = await api.post(path, f"# YAML\n{body}", content_type=YAML, dryRun="All", view=spec_or_refusal)
            assert answer.status < 500, body
