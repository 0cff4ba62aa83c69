"""Tests CEL rules in a schema: on creation, on transition, with ratcheting, and rules that cannot be compiled."""

from __future__ import annotations

from typing import Any

from conformance.harness import points
from conformance.harness.client import CRDS, Api, Object
from conformance.harness.play import conformance
from conformance.harness.widget import crd, in_group, spec_schema

RULES = spec_schema(
    [
        {"rule": "self.low <= self.high", "message": "low must not be above high", "fieldPath": ".low"},
        {"rule": "has(self.a) != has(self.b)", "message": "exactly one of a and b", "reason": "FieldValueRequired"},
        {
            "rule": "!has(self.high) || self.high < 1000",
            "messageExpression": "self.high > 1500 ? 'far too high' : 'high'",
        },
    ],
    low={"type": "integer", "default": 0},
    high={"type": "integer", "default": 10},
    a={"type": "string", "maxLength": 20, "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]},
    b={"type": "string", "maxLength": 20},
    fixed={
        "type": "string",
        "maxLength": 20,
        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is immutable"}],
    },
    steps={
        "type": "array",
        "maxItems": 10,
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 10}, "after": {"type": "string", "maxLength": 10}},
            "x-kubernetes-validations": [{"rule": "!has(self.after) || self.after != self.name", "message": "a loop"}],
        },
        "x-kubernetes-validations": [
            {
                "rule": "self.all(s, !has(s.after) || self.exists(o, o.name == s.after))",
                "message": "after must name a step",
            }
        ],
    },
    map={
        "type": "object",
        "maxProperties": 5,
        "additionalProperties": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(k, self[k] > 0)", "message": "must be positive"}],
    },
)


def _rule(api: Api, name: str, kind: str = "Rule", /, **spec: Any) -> Object:
    return {"apiVersion": f"{api.group}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@conformance(points.CEL, crds=[crd("Rule", RULES)])
async def test_rules(api: Api) -> None:
    rules = api.collection("rules")
    (await api.post(rules, _rule(api, "a", a="ab", high=20))).ok(201)
    above = await api.post(rules, _rule(api, "x", a="ab", low=20))
    above.refused(422, "Invalid", "low must not be above high")
    assert above.causes() == {("spec.low", "FieldValueInvalid")}
    both = await api.post(rules, _rule(api, "x", a="ab", b="b"))
    both.refused(422, "Invalid", "exactly one of a and b")
    assert both.causes() == {("spec", "FieldValueRequired")}
    (await api.post(rules, _rule(api, "x"))).refused(422, "Invalid", "exactly one of a and b")
    (await api.post(rules, _rule(api, "x", a="ab", high=2000))).refused(422, "Invalid", "far too high")
    (await api.post(rules, _rule(api, "x", a="zz"))).refused(422, "Invalid", "self.startsWith('a')")
    (await api.post(rules, _rule(api, "x", b="b", map={"a": 0}))).refused(422, "Invalid", "must be positive")
    loop = await api.post(rules, _rule(api, "x", b="b", steps=[{"name": "a"}, {"name": "b", "after": "b"}]))
    assert loop.causes() == {("spec.steps[1]", "FieldValueInvalid")}
    (await api.post(rules, _rule(api, "x", b="b", steps=[{"name": "a", "after": "z"}]))).refused(
        422, "Invalid", "name a step"
    )
    several = await api.post(rules, _rule(api, "x", a="zz", b="b", low=50, map={"a": -1}))
    assert len(several.body["details"]["causes"]) == 4
    schema_too = await api.post(rules, _rule(api, "x", a="zz" * 50))
    assert ("spec.a", "FieldValueTooLong") in schema_too.causes()


@conformance(points.CEL, crds=[crd("Rule", RULES)])
async def test_transition_rules(api: Api) -> None:
    rules = api.collection("rules")
    (await api.post(rules, _rule(api, "a", b="b", fixed="x"))).ok(201)
    (await api.merge(f"{rules}/a", {"spec": {"fixed": "y"}})).refused(422, "Invalid", "fixed is immutable")
    (await api.merge(f"{rules}/a", {"spec": {"b": "c"}})).ok()
    (await api.merge(f"{rules}/a", {"spec": {"fixed": None}})).ok()
    (await api.merge(f"{rules}/a", {"spec": {"fixed": "y"}})).ok()


OPTIONAL_OLD = spec_schema(
    count={
        "type": "integer",
        "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() || self >= oldSelf.value()", "optionalOldSelf": True, "message": "only grows"}
        ],
    },
)


@conformance(points.CEL, crds=[crd("Counter", OPTIONAL_OLD)])
async def test_optional_old_self(api: Api) -> None:
    counters = api.collection("counters")
    (await api.post(counters, _rule(api, "a", "Counter", count=2))).ok(201)
    (await api.merge(f"{counters}/a", {"spec": {"count": 3}})).ok()
    (await api.merge(f"{counters}/a", {"spec": {"count": 1}})).refused(422, "Invalid", "only grows")


LOOSE = spec_schema(
    size={"type": "integer"},
    name={"type": "string", "maxLength": 50},
    list={"type": "array", "maxItems": 9, "items": {"type": "string", "maxLength": 50}},
)
TIGHT = spec_schema(
    size={"type": "integer", "maximum": 10},
    name={
        "type": "string",
        "maxLength": 50,
        "x-kubernetes-validations": [{"rule": "self.size() < 3", "message": "too long a name"}],
    },
    list={
        "type": "array",
        "maxItems": 9,
        "x-kubernetes-list-type": "set",
        "items": {"type": "string", "maxLength": 50, "pattern": "^a"},
    },
)


@conformance(points.CEL, crds=[crd("Loose", LOOSE)])
async def test_ratcheting(api: Api) -> None:
    """An invalid value that was stored before the schema was tightened may stay as long as it is not changed."""
    looses = api.collection("looses")
    (await api.post(looses, _rule(api, "a", "Loose", size=50, name="long", list=["b"]))).ok(201)
    tight = in_group(crd("Loose", TIGHT), api.group)["spec"]["versions"]
    (await api.merge(f"{CRDS}/looses.{api.group}", {"spec": {"versions": tight}}, view=None)).ok()

    refused = _rule(api, "probe", "Loose", size=50)

    async def tightened() -> bool:
        return (await api.post(looses, refused, dryRun="All", record=False)).status == 422

    await api.until(tightened)
    (await api.merge(f"{looses}/a", {"metadata": {"labels": {"a": "b"}}})).ok()
    (await api.merge(f"{looses}/a", {"spec": {"name": "longer"}})).refused(422, "Invalid", "too long a name")
    (await api.merge(f"{looses}/a", {"spec": {"size": 51}})).refused(422, "Invalid", "spec.size")
    (await api.merge(f"{looses}/a", {"spec": {"size": 5}})).ok()
    assert (await api.merge(f"{looses}/a", {"spec": {"list": ["b", "a"]}})).status in {200, 422}
    (await api.merge(f"{looses}/a", {"spec": {"name": "ok"}})).ok()


FUNCTIONS = {
    "quantity": "quantity(self.text).isGreaterThan(quantity('100Mi'))",
    "isquantity": "isQuantity(self.text)",
    "compare": "quantity(self.text).compareTo(quantity('1Gi')) == 0",
    "find": "self.text.find('[0-9]+') == '42'",
    "findall": "self.text.findAll('[0-9]+').size() == 2",
    "matches": "self.text.matches('^[a-z]+$')",
    "split": "self.text.split(',').size() == 3",
    "lower": "self.text.lowerAscii() == 'abc'",
    "replace": "self.text.replace('a', 'b') == 'bbb'",
    "substring": "self.text.substring(1, 2) == 'b'",
    "duration": "duration(self.text) <= duration('1h')",
    "timestamp": "timestamp(self.text) < timestamp('2030-01-01T00:00:00Z')",
    "sorted": "self.list.isSorted()",
    "sum": "self.numbers.sum() == 6",
    "max": "self.numbers.max() == 3 && self.numbers.min() == 1 && self.numbers.indexOf(2) == 1",
    "macro": "self.list.map(x, x + '!').exists_one(x, x == 'a!') && self.list.filter(x, x > 'a').size() == 1",
    "url": "isURL(self.text) && url(self.text).getHostname() == 'example.com'",
    "ip": "isIP(self.text) && ip(self.text).family() == 4",
    "cidr": "isCIDR(self.text) && cidr(self.text).containsIP('10.0.0.7')",
    "ternary": "(has(self.text) ? self.text : 'none') in ['a', 'b']",
    "trim": "self.text.trim() == 'a' && self.text.contains(' ')",
}
SAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "quantity": ({"text": "1Gi"}, {"text": "1Mi"}),
    "isquantity": ({"text": "1.5"}, {"text": "much"}),
    "compare": ({"text": "1024Mi"}, {"text": "1G"}),
    "find": ({"text": "abc 42 7"}, {"text": "7 42"}),
    "findall": ({"text": "1 a 2"}, {"text": "1"}),
    "matches": ({"text": "abc"}, {"text": "aBc"}),
    "split": ({"text": "a,b,c"}, {"text": "a"}),
    "lower": ({"text": "ABC"}, {"text": "ABD"}),
    "replace": ({"text": "aba"}, {"text": "c"}),
    "substring": ({"text": "abc"}, {"text": "aac"}),
    "duration": ({"text": "59m30s"}, {"text": "61m"}),
    "timestamp": ({"text": "2020-02-02T00:00:00Z"}, {"text": "2040-02-02T00:00:00Z"}),
    "sorted": ({"list": ["a", "b"]}, {"list": ["b", "a"]}),
    "sum": ({"numbers": [1, 2, 3]}, {"numbers": [1]}),
    "max": ({"numbers": [1, 2, 3]}, {"numbers": [3, 2]}),
    "macro": ({"list": ["a", "b"]}, {"list": ["a", "a"]}),
    "url": ({"text": "https://example.com:8080/x"}, {"text": "https://other.com"}),
    "ip": ({"text": "10.0.0.1"}, {"text": "::1"}),
    "cidr": ({"text": "10.0.0.0/8"}, {"text": "11.0.0.0/8"}),
    "ternary": ({"text": "a"}, {"text": "c"}),
    "trim": ({"text": " a "}, {"text": "a"}),
}
_FIELDS = {
    "text": {"type": "string", "maxLength": 50},
    "list": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
    "numbers": {"type": "array", "maxItems": 5, "items": {"type": "integer"}},
}
LIBRARY = spec_schema(
    **{
        name: {"type": "object", "properties": _FIELDS, "x-kubernetes-validations": [{"rule": rule}]}
        for name, rule in FUNCTIONS.items()
    }
)


@conformance(points.CEL, crds=[crd("Library", LIBRARY)])
async def test_function_library(api: Api) -> None:
    """Tests the functions that Kubernetes adds to CEL, each with a value that passes and one that does not."""
    path = api.collection("librarys")
    for name, (good, bad) in SAMPLES.items():
        (await api.post(path, _rule(api, name, "Library", **{name: good}))).ok(201)
        refused = await api.post(path, _rule(api, name + "-bad", "Library", **{name: bad}))
        assert refused.causes() == {(f"spec.{name}", "FieldValueInvalid")}, name


@conformance(points.CEL)
async def test_rules_that_cannot_be(api: Api) -> None:
    for rule in ("self.missing == 1", "self.size ==", "nonsense()", ""):
        broken = in_group(crd("Broken", spec_schema([{"rule": rule}], size={"type": "integer"})), api.group)
        answer = await api.post(CRDS, broken)
        assert answer.status == 422 and "x-kubernetes-validations[0]" in answer.body["message"], rule


@conformance(points.CEL, needs="cel-checker")
async def test_rules_that_only_a_type_checker_refuses(api: Api) -> None:
    """The embedded control plane finds such mistakes of administrators later, when the rules are evaluated."""
    for rule in ("self.size == 'text'", "size(self.size) > 0"):
        broken = in_group(crd("Broken", spec_schema([{"rule": rule}], size={"type": "integer"})), api.group)
        (await api.post(CRDS, broken)).refused(422, "Invalid", "no matching overload")
    costly = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
    rule = {"rule": "self.deep.all(x, x.all(y, self.deep.exists(z, y in z)))"}
    broken = in_group(crd("Broken", spec_schema([rule], deep=costly)), api.group)
    (await api.post(CRDS, broken)).refused(422, "Invalid", "cost")
    field = {"rule": "true", "fieldPath": ".nothing"}
    broken = in_group(crd("Broken", spec_schema([field], size={"type": "integer"})), api.group)
    (await api.post(CRDS, broken)).refused(422, "Invalid", "fieldPath")
