"""Tests which CRDs are refused and which of their fields is reported, for written and random examples."""

from __future__ import annotations

import asyncio
import copy
import random
import re
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conformance.harness.client import CRDS, Api, Object
from conformance.harness.play import conformance
from conformance.harness.servers import Server
from conformance.harness.widget import crd, spec_schema
from crdcorpus import gadgets_crd, public_crds, remit_crds
from crdmutations import mutate_crd
from crdshapes import Seed, seeds
from fuzzing import as_json
from support import repetitions, soaking

TEXT: Object = {"type": "string"}
OBJECT: Object = {"type": "object"}
NAMED: Object = {"type": "object", "properties": {"name": TEXT}}
MAP: Object = {"type": "array", "x-kubernetes-list-type": "map"}


def gadget(group: str) -> Object:
    return copy.deepcopy(crd("Gadget", spec_schema(size={"type": "integer"}), group=group))


def changed(group: str, /, **spec: Any) -> Object:
    body = gadget(group)
    return {**body, "spec": {**body["spec"], **spec}}


def version(name: str = "v1", **more: Any) -> Object:
    schema = {"openAPIV3Schema": spec_schema(size={"type": "integer"})}
    return {"name": name, "served": True, "storage": name == "v1", "schema": schema, **more}


def rules(*declared: Object, **more: Any) -> Object:
    return {**TEXT, "maxLength": 9, "x-kubernetes-validations": [*declared], **more}


def column(path: str) -> Object:
    return {"name": "A", "type": "string", "jsonPath": path}


PARTS: dict[str, Object] = {
    "empty words": {"type": "string", "enum": [], "anyOf": [], "oneOf": [], "allOf": []},
    "free map": {"type": "object", "additionalProperties": True},
    "closed map": {"type": "object", "additionalProperties": False},
    "free map with properties": {**NAMED, "additionalProperties": True},
    "typed map with properties": {**NAMED, "additionalProperties": TEXT},
    "reference": {"type": "object", "$ref": "#/definitions/a"},
    "empty reference": {**TEXT, "$ref": ""},
    "additionalItems": {"type": "array", "items": TEXT, "additionalItems": True},
    "schema of a schema": {**TEXT, "$schema": "https://example.com"},
    "null": {"type": "null"},
    "map type of a text": {**TEXT, "x-kubernetes-map-type": "atomic"},
    "list type without items": {"type": "array", "x-kubernetes-list-type": "set"},
    "keys without a list": {**OBJECT, "x-kubernetes-list-map-keys": ["name"]},
    "keys of a set": {
        "type": "array", "items": TEXT, "x-kubernetes-list-type": "set", "x-kubernetes-list-map-keys": ["a"],
    },
    "key that may be null": {
        **MAP,
        "x-kubernetes-list-map-keys": ["name"],
        "items": {**OBJECT, "properties": {"name": {**TEXT, "nullable": True}}, "required": ["name"]},
    },
    "key that is an object": {
        **MAP,
        "x-kubernetes-list-map-keys": ["name", "name"],
        "items": {**OBJECT, "properties": {"name": NAMED}, "required": ["name"]},
    },
    "items that may be null": {"type": "array", "items": {**TEXT, "nullable": True}, "x-kubernetes-list-type": "set"},
    "set of lists": {
        "type": "array",
        "x-kubernetes-list-type": "set",
        "items": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
    },
    "integer or string and free": {"x-kubernetes-int-or-string": True, "x-kubernetes-preserve-unknown-fields": True},
    "type inside anyOf": {**OBJECT, "anyOf": [{"type": "object"}]},
    "integer or string by hand": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, TEXT]},
    "empty type inside anyOf": {**OBJECT, "anyOf": [{"type": "", "nullable": False, "required": ["a"]}]},
    "metadata inside anyOf": {**OBJECT, "anyOf": [{"properties": {"metadata": {}}}]},
    "rule inside anyOf": {**TEXT, "anyOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]},
    "unknown property inside anyOf": {**NAMED, "anyOf": [{"properties": {"other": {"minLength": 1}}}]},
    "default with unknown fields": {**NAMED, "default": {"name": "a", "other": 1}},
    "default of the wrong type": {**NAMED, "default": {"name": 1}},
    "default that its own default would mend": {
        **OBJECT, "required": ["name"], "properties": {"name": {**TEXT, "default": "a"}}, "default": {},
    },
    "rule without text": rules({"rule": " "}),
    "unknown reason": rules({"rule": "true", "reason": "No"}),
    "empty reason": rules({"rule": "true", "reason": ""}),
    "message in two lines": rules({"rule": "true", "message": "a\nb"}),
    "rule in two lines": rules({"rule": "true\n|| false"}),
    "blank expression": rules({"rule": "true", "messageExpression": " "}),
    "field of a text": rules({"rule": "true", "fieldPath": ".name"}),
    "field": {**NAMED, "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".name"}]},
    "field in brackets": {**NAMED, "x-kubernetes-validations": [{"rule": "true", "fieldPath": "['name']"}]},
    "no such field": {**NAMED, "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".other"}]},
    "optional oldSelf without oldSelf": rules({"rule": "true", "optionalOldSelf": False}),
    "oldSelf in a list": {"type": "array", "maxItems": 9, "items": rules({"rule": "self == oldSelf"})},
    "oldSelf in an atomic map": {
        **OBJECT, "x-kubernetes-map-type": "atomic", "properties": {"a": rules({"rule": "self == oldSelf"})},
    },
    "masked address": rules({"rule": "cidr(self) == cidr(self).masked()"}, maxLength=20),
    "smallest integer": {"type": "string", "maxLength": -(2**63)},
    "embedded without properties": {**OBJECT, "x-kubernetes-embedded-resource": True},
    "embedded with a map": {
        "x-kubernetes-embedded-resource": True, "type": "object", "additionalProperties": TEXT,
    },
}  # fmt: skip
ROOTS: dict[str, Object] = {
    "nullable": {"nullable": True},
    "map": {"additionalProperties": TEXT},
    "enum": {"enum": [{}]},
    "more metadata": {"metadata": {**OBJECT, "properties": {"labels": OBJECT}}},
    "default of apiVersion": {"apiVersion": {**TEXT, "default": "a"}},
    "metadata of a text": {"metadata": TEXT},
    "name": {"metadata": {**OBJECT, "properties": {"name": rules({"rule": "true"})}}},
}
SPECS: dict[str, Object] = {
    "column from the root": {"versions": [version(additionalPrinterColumns=[column("spec.size")])]},
    "column that cannot be read": {"versions": [version(additionalPrinterColumns=[column(".spec["), column("...")])]},
    "column of all items": {"versions": [version(additionalPrinterColumns=[column(".spec.rows[].name")])]},
    "column without a name": {
        "versions": [version(additionalPrinterColumns=[column("") | {"name": "", "format": "x"}])],
    },
    "priority of a column": {"versions": [version(additionalPrinterColumns=[column(".a") | {"priority": 2**31}])]},
    "two versions alike": {"versions": [version(), version("v2")]},
    "bad column of two versions": {
        "versions": [version(name, additionalPrinterColumns=[column("")]) for name in ("v1", "v2")],
    },
    "one name twice": {"versions": [version(), version(storage=False)]},
    "no storage": {"versions": [version("v2")]},
    "two storages": {"versions": [version(), version("v2", storage=True)]},
    "bad name of a version": {"versions": [version("V1", storage=True)]},
    "selectable items": {
        "versions": [version(selectableFields=[{"jsonPath": ".spec[0]"}, {"jsonPath": ".spec.size"}])],
    },
    "selectable twice": {"versions": [version(selectableFields=[{"jsonPath": ".spec.size"}] * 2)]},
    "selectable in one of two alike": {
        "versions": [version(selectableFields=[{"jsonPath": ".spec.size"}]), version("v2")],
    },
    "no names": {"names": {}},
    "only a kind": {"names": {"kind": "Gadget"}},
    "empty singular": {"names": {"kind": "Gadget", "plural": "gadgets", "singular": "", "listKind": ""}},
    "singular in capitals": {"names": {"kind": "Gadget", "plural": "gadgets", "singular": "Gadget"}},
    "no scope": {"scope": ""},
    "no versions": {"versions": []},
    "bad group": {"group": "-"},
    "all fields are kept": {"preserveUnknownFields": True},
}  # fmt: skip


def fields(body: Any) -> list[str]:
    return sorted({cause["field"] for cause in body.get("details", {}).get("causes", ())})


async def refused_alike(api: Api, body: Object) -> None:
    await api.post(f"{CRDS}?dryRun=All", body, view=fields)


@conformance()
async def test_what_a_schema_may_say(api: Api) -> None:
    for part in PARTS.values():
        schema = {"openAPIV3Schema": spec_schema(a=part)}
        await refused_alike(api, changed(api.group, versions=[version(schema=schema)]))


@conformance()
async def test_what_the_root_of_a_schema_may_say(api: Api) -> None:
    for said in ROOTS.values():
        for more in ({}, {"subresources": {"status": {}}}):
            root = spec_schema(size={"type": "integer"})
            for word, value in said.items():
                (root["properties"] if word in ("metadata", "apiVersion") else root)[word] = value
            await refused_alike(api, changed(api.group, versions=[version(schema={"openAPIV3Schema": root}, **more)]))


@conformance()
async def test_what_a_crd_may_say(api: Api) -> None:
    for spec in SPECS.values():
        await refused_alike(api, changed(api.group, **spec))


@conformance()
async def test_groups_of_the_community(api: Api) -> None:
    for approval in ("", "https://github.com/kubernetes/kubernetes/pull/1", "unapproved, for tests", "yes"):
        body = gadget("conformance.k8s.io")
        body["metadata"]["annotations"] = {"api-approved.kubernetes.io": approval}
        await refused_alike(api, body)


@conformance()
async def test_a_stored_version_stays(api: Api) -> None:
    await api.install(changed(api.group, versions=[version(), version("v2")]))
    path = f"{CRDS}/gadgets.{api.group}"
    later = [version("v1", storage=False), version("v2", storage=True)]
    (await api.merge(path, {"spec": {"versions": later}}, view=None)).ok()
    await api.merge(path, {"spec": {"versions": later[1:]}}, view=fields)


@conformance()
async def test_versions_with_other_fields(api: Api) -> None:
    """The response shows what can be read again: the fields of the storage version, with its defaults."""

    def other(name: str, **parts: Object) -> Object:
        return version(name, schema={"openAPIV3Schema": spec_schema(**parts)})

    first = other("v1", a=TEXT, c={**TEXT, "default": "c"})
    second = other("v2", a=TEXT, b=TEXT, d={**TEXT, "default": "d"})
    await api.install(changed(api.group, versions=[first, second]))
    body = {"apiVersion": f"{api.group}/v2", "kind": "Gadget", "metadata": {"name": "a"}, "spec": {"a": "1", "b": "2"}}
    path = api.collection("gadgets").replace("/v1/", "/v2/")
    await api.post(f"{path}?dryRun=All", body)
    (await api.post(path, body)).ok(201)
    (await api.get(f"{path}/a")).ok()
    (await api.merge(f"{path}/a", {"spec": {"a": "3", "b": "4"}})).ok()
    (await api.apply(f"{path}/a", {**body, "spec": {"b": "5"}}, force=True)).ok()
    (await api.get(f"{api.collection('gadgets')}/a")).ok()


@conformance()
async def test_maps_of_anything(api: Api) -> None:
    free, closed = ({"type": "object", "additionalProperties": each} for each in (True, False))
    schema = {"openAPIV3Schema": spec_schema(free=free, closed=closed, choice={**TEXT, "enum": [], "oneOf": []})}
    await api.install(changed(api.group, versions=[version(schema=schema)]))
    specs: list[Object] = [
        {"free": {"a": {"b": 1}, "c": [1, {"d": 2}], "e": "f"}},
        {"closed": {}},
        {"closed": {"a": {"b": 1}}},
        {"choice": "a"},
    ]
    for index, spec in enumerate(specs):
        body = {"apiVersion": f"{api.group}/v1", "kind": "Gadget", "metadata": {"name": f"a{index}"}, "spec": spec}
        await api.post(api.collection("gadgets"), body, view=lambda body: body.get("spec") or fields(body))


@conformance()
async def test_columns_of_all_kinds(api: Api) -> None:
    """Columns after one that cannot be read are not shown."""
    paths = [
        ".spec.rows[].a",
        ".spec.rows[?(@.a>1)].a",
        ".spec.rows[0,1]",
        ".spec..a",
        ".spec.none",
        ".spec.rows[",
        ".spec",
    ]
    rows = {"type": "array", "items": {**OBJECT, "properties": {"b": TEXT, "a": {"type": "integer"}}}}
    none = {**TEXT, "nullable": True}
    schema = {"openAPIV3Schema": spec_schema(rows=rows, none=none)}
    columns = [{"name": path, "type": type_, "jsonPath": path} for path in paths for type_ in ("string", "integer")]
    await api.install(changed(api.group, versions=[version(schema=schema, additionalPrinterColumns=columns)]))
    spec = {"rows": [{"b": "<", "a": 1}, {"a": 2}], "none": None}
    body = {"apiVersion": f"{api.group}/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": spec}
    (await api.post(api.collection("gadgets"), body, view=None)).ok(201)
    table = await api.get(api.collection("gadgets"), accept="application/json;as=Table;v=v1;g=meta.k8s.io", view=cells)
    table.ok()


def cells(body: Any) -> Any:
    return [definition["name"] for definition in body["columnDefinitions"]], [row["cells"] for row in body["rows"]]


# ---- at random -----------------------------------------------------------------------------------------------------

EXAMPLES = repetitions(60, 20_000)
MANY_BYTES = 100_000
_OF_CEL = re.compile(r"x-kubernetes-validations(\[\d+\]\.(rule|messageExpression|optionalOldSelf))?$")
_SAID_OF_CEL = re.compile(
    r"<input>|cel expression|failed rule:|evaluating rule|rule cost|messageExpression (cost|must)"
)
_DIFFERS = (
    "it is nested deeper than 250 levels",
    "JSONSchemaPropsOr",  # Go's decoder skips what is neither a schema nor a list
    "cannot unmarshal number -0.0",  # an integer here
)
"""Differences in one of the two messages, which docs/control-plane.md documents."""


class Contestants:
    """Sends a CRD to both servers, on one event loop."""

    def __init__(self, servers: list[Server]) -> None:
        self._servers = servers
        self._runner = asyncio.Runner()
        self._sessions = [self._runner.run(self._open(server)) for server in servers]

    async def _open(self, server: Server) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=server.tls)
        return aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {server.token}"})

    def answers(self, crd: Any) -> list[tuple[int, Any]]:
        return self._runner.run(self._answers(as_json(crd)))

    async def _answers(self, data: bytes) -> list[tuple[int, Any]]:
        return await asyncio.gather(
            *(self._ask(*pair, data) for pair in zip(self._sessions, self._servers, strict=True))
        )

    async def _ask(self, session: aiohttp.ClientSession, server: Server, data: bytes) -> tuple[int, Any]:
        url, headers = f"{server.url}{CRDS}?dryRun=All&fieldManager=fuzz", {"Content-Type": "application/json"}
        try:
            async with session.post(url, data=data, headers=headers) as answer:
                return answer.status, await answer.json()
        # Kube-apiserver disconnects for a path that continues below a map of any values.
        except aiohttp.ServerDisconnectedError:
            assert server.name == "kube-apiserver"
            return 0, {}

    def close(self) -> None:
        for session in self._sessions:
            self._runner.run(session.close())
        self._runner.close()


def causes(body: Any, *, of_cel: bool) -> set[str]:
    """Returns the fields that are reported. With `of_cel`, those that depend on types and costs of CEL expressions."""
    found = body.get("details", {}).get("causes") or ()
    return {cause["field"] for cause in found if "field" in cause and is_of_cel(cause) == of_cel}


def is_of_cel(cause: Any) -> bool:
    shown = cause["message"].startswith("Invalid value: [{")  # the whole CRD, with its rules
    return bool(_OF_CEL.search(cause.get("field", "")) or (not shown and _SAID_OF_CEL.search(cause["message"])))


def test_crds_changed_at_random_are_refused_alike(contestants: list[Server]) -> None:
    """Only kube-apiserver checks costs and types of rules: docs/control-plane.md."""
    if len(contestants) < 2:
        pytest.skip("there is nobody to compare with")
    both = Contestants(contestants)
    small = [crd for crd in public_crds() if len(as_json(crd)) < MANY_BYTES]
    known = [*remit_crds(), gadgets_crd(), *small]

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        derandomize=not soaking(),  # `make soak` is for finding rare cases
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(min_value=0, max_value=2**64), seeds(known))
    def compare(chance: int, seed: Seed) -> None:
        rng = random.Random(chance)
        body = mutate_crd(rng, seed.crd, rng.choice([1, 1, 2, 3]))
        (real, theirs), (ours, our) = both.answers(body)
        assert ours < 500 or "resourceVersion should not be set" in our["message"], (body, our)
        told = f"{theirs.get('message')} {our.get('message')}"
        if real in (0, 500) or any(words in told for words in _DIFFERS):
            return
        about = (chance, body.get("metadata"), theirs.get("message", "")[:2000], our.get("message", "")[:2000])
        assert causes(theirs, of_cel=False) == causes(our, of_cel=False), about
        assert real == ours or causes(theirs, of_cel=True) or causes(our, of_cel=True), about

    try:
        compare()
    finally:
        both.close()
