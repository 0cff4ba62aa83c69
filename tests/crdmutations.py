"""Mutates CRDs at random: types, depth, numbers, names, references, rules, columns, versions, and anything else."""

from __future__ import annotations

import marshal
import random
from collections.abc import Callable, Iterator
from typing import Any

from mutations import JUNK, mutate

Raw = dict[str, Any]

TYPES = ["object", "array", "string", "integer", "number", "boolean", "null", "int", "", "Object"]
NUMBERS = [0, -1, 1, 1.5, -0.0, 0.1, 1e308, -1e308, 5e-324, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**40]
TEXTS = ["", "a", "A", "é", "日本", "\u202e", "\x00", "a b", "a.b", "a/b", "-a", "a" * 64, "a" * 254, "🦀", "__proto__"]
PATTERNS = [
    "",
    "(",
    "^[a-z]+$",
    "(?=a)",
    "\\d{1,1001}",
    "(a*)*$",
    "[[:alpha:]]",
    "\\p{Greek}",
    "(?i)x",
    "\\1",
    "x{2,1}",
]
REFERENCES = ["#", "#/definitions/a", "#/properties/spec", "https://example.dev/schema.json", ""]
BOOLEANS = [True, False]
FORMATS = ["int32", "int64", "byte", "date-time", "duration", "uuid", "ipv4", "cidr", "no-such-format", "password"]
RULES = [
    "true", "self == self", "self == oldSelf", "has(self.spec)", "has(self.a)", "self.a == self.b", "size(self) > 0",
    "self.all(x, x == x)", "self.exists(x, self.all(y, x != y))", "self.size() < 9", "self >= 0", "self.spec.a == 1",
    "", " ", "self", "1", "'a'", "self >", "nothing(self)", "self.?a.hasValue()", "oldSelf.orValue(1) == 1",
    "((((true))))", "self.matches('^a+$')", "self.startsWith('a')", "quantity(self).isGreaterThan(quantity('1'))",
    "url(self).getHost() != ''", "self.metadata.name != 'a'", "self.é", "self.__a__", "dyn(self) == 1",
    "type(self) == string", "[1, 2].map(x, x) == [1, 2]", "cidr(self) == cidr(self).masked()",
]  # fmt: skip
PATHS = [
    ".spec", ".spec.a", ".spec.replicas", ".status.replicas", ".status", ".metadata.name", "spec", ".", "", ".spec[0]",
    ".metadata.creationTimestamp", ".spec[*].a", ".spec['a']", ".spec.a[?(@.type==\"Ready\")].status", ".spec[",
    "{.spec}", ".spec.a[].b", "...", ".spec.é", ".spec.a\\.b", "$.spec", ".spec.", "[0]", ".a b", ".spec[1:2]", "..a",
    ".spec[0,1]", ".spec[?(@.a)]", ".spec[?(@.a>1)]", ".spec[-1]", "{.spec}{.status}", "text {.spec}", ".spec.*",
    "@.spec", ".spec..",
]  # fmt: skip


def walk_schemas(schema: Any) -> Iterator[Raw]:
    """Yields `schema` and every schema inside it."""
    left = [schema]
    while left:
        part = left.pop()
        if not isinstance(part, dict):
            continue
        yield part
        for word in ("items", "additionalProperties", "not"):
            left.append(part.get(word))
        for word in ("allOf", "anyOf", "oneOf"):
            left += part[word] if isinstance(part.get(word), list) else []
        for word in ("properties", "definitions", "patternProperties"):
            left += part[word].values() if isinstance(part.get(word), dict) else []


def schemas_of(crd: Any) -> list[Raw]:
    """Returns every schema in a CRD, even if other parts of it are damaged."""
    return [
        schema for version in versions_of(crd) for schema in walk_schemas(_dig(version, "schema", "openAPIV3Schema"))
    ]


def versions_of(crd: Any) -> list[Raw]:
    versions = _dig(crd, "spec", "versions")
    return [version for version in versions if isinstance(version, dict)] if isinstance(versions, list) else []


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def copied(value: Any) -> Any:
    """Returns a deep copy of a JSON value, faster than `copy.deepcopy`."""
    return marshal.loads(marshal.dumps(value, 2))  # version 2 has no references, so equal parts become separate objects


def mutate_crd(rng: random.Random, crd: Raw, times: int) -> Any:
    crd = copied(crd)
    for _ in range(times):
        change = rng.choice(_CHANGES)
        if change is None or not change(rng, crd):
            crd = mutate(rng, crd, 1)
    return crd


def _in_schema(act: Callable[[random.Random, Raw, list[Raw]], None]) -> Callable[[random.Random, Raw], bool]:
    def change(rng: random.Random, crd: Raw) -> bool:
        schemas = schemas_of(crd)
        if schemas:
            act(rng, rng.choice(schemas), schemas)
        return bool(schemas)

    return change


def _in_version(act: Callable[[random.Random, Raw], None]) -> Callable[[random.Random, Raw], bool]:
    def change(rng: random.Random, crd: Raw) -> bool:
        versions = versions_of(crd)
        if versions:
            act(rng, rng.choice(versions))
        return bool(versions)

    return change


def _swap_type(rng: random.Random, schema: Raw, _: list[Raw]) -> None:
    schema["type"] = rng.choice(TYPES)


def _say(rng: random.Random, schema: Raw, schemas: list[Raw]) -> None:
    """Adds a keyword of JSON schema or Kubernetes to a schema, with a value that is valid or nearly valid."""
    word = rng.choice(list(_WORDS))
    value = _WORDS[word]
    schema[word] = copied(value(rng, schemas) if callable(value) else rng.choice(value))


def _unsay(rng: random.Random, schema: Raw, _: list[Raw]) -> None:
    if schema:
        del schema[rng.choice(list(schema))]


def _other(rng: random.Random, schemas: list[Raw]) -> Any:
    return rng.choice([*schemas, {}, {"type": "string"}, {"type": "object"}])


def _replace(rng: random.Random, schema: Raw, schemas: list[Raw]) -> None:
    other = copied(_other(rng, schemas))
    schema.clear()
    schema.update(other)


def _nest(rng: random.Random, schema: Raw, _: list[Raw]) -> None:
    inner = copied(schema)
    for _depth in range(rng.choice([1, 2, 20, 60, 100, 300])):
        match rng.randrange(3):
            case 0:
                inner = {"type": "object", "properties": {"a": inner}}
            case 1:
                inner = {"type": "array", "items": inner}
            case _:
                inner = {"type": "object", "additionalProperties": inner}
    schema.clear()
    schema.update(inner)


def _rename(rng: random.Random, schema: Raw, _: list[Raw]) -> None:
    properties = schema.get("properties")
    if isinstance(properties, dict) and properties:
        properties[rng.choice(TEXTS)] = properties.pop(rng.choice(list(properties)))


def _refer(rng: random.Random, schema: Raw, _: list[Raw]) -> None:
    schema["$ref"] = rng.choice(REFERENCES)
    if rng.random() < 0.5:
        schema["definitions"] = {"a": {"$ref": "#/definitions/a"}}


def _rule(rng: random.Random, schema: Raw, _: list[Raw]) -> None:
    rule: Raw = {"rule": rng.choice(RULES)}
    more: Raw = {
        "message": rng.choice(TEXTS), "messageExpression": rng.choice(RULES), "fieldPath": rng.choice(PATHS),
        "reason": rng.choice(["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden", "No", ""]),
        "optionalOldSelf": rng.choice([True, False]),
    }  # fmt: skip
    rule |= {word: more[word] for word in more if rng.random() < 0.25}
    rules = schema.get("x-kubernetes-validations")
    schema["x-kubernetes-validations"] = [*(rules if isinstance(rules, list) else []), rule]


def _column(rng: random.Random, version: Raw) -> None:
    column: Raw = {"name": rng.choice(TEXTS), "type": rng.choice([*TYPES, "date"]), "jsonPath": rng.choice(PATHS)}
    more: Raw = {"priority": rng.choice(NUMBERS), "format": rng.choice(FORMATS), "description": rng.choice(TEXTS)}
    column |= {word: more[word] for word in more if rng.random() < 0.2}
    version["additionalPrinterColumns"] = [column]


def _subresources(rng: random.Random, version: Raw) -> None:
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    other = rng.choice(["specReplicasPath", "statusReplicasPath", "labelSelectorPath"])
    scale = paths | {other: rng.choice(PATHS)}
    version["subresources"] = rng.choice([{"scale": scale}, {"scale": scale, "status": {}}, {"status": {}}, {}])


def _selectable(rng: random.Random, version: Raw) -> None:
    version["selectableFields"] = [{"jsonPath": rng.choice(PATHS)} for _ in range(rng.choice([1, 1, 2, 9]))]


def _version(rng: random.Random, version: Raw) -> None:
    word = rng.choice(["name", "served", "storage", "deprecated", "deprecationWarning", "schema"])
    texts = ["v1", "v2", "v1beta1", *TEXTS]
    values: Raw = {"name": texts, "deprecationWarning": TEXTS, "schema": [{}, {"openAPIV3Schema": {}}, None]}
    version[word] = rng.choice(values.get(word, [True, False]))


def _more_versions(rng: random.Random, crd: Raw) -> bool:
    versions = versions_of(crd)
    if not versions:
        return False
    added = copied(rng.choice(versions)) | {"name": rng.choice(["v2", "v3alpha1", "V2", ""])}
    if rng.random() < 0.8:
        added["storage"] = False
    crd["spec"]["versions"].append(added)
    return True


def _name(rng: random.Random, crd: Raw) -> bool:
    names = _dig(crd, "spec", "names")
    if not isinstance(names, dict):
        return False
    word = rng.choice(["plural", "singular", "kind", "listKind", "shortNames", "categories"])
    text = rng.choice(TEXTS)
    names[word] = [text, "a"] if word in ("shortNames", "categories") else text
    return True


def _metadata(rng: random.Random, crd: Raw) -> bool:
    if not isinstance(crd.get("metadata"), dict):
        return False
    word = rng.choice(["name", "labels", "annotations", "finalizers", "ownerReferences", "generateName", "namespace"])
    text = rng.choice(TEXTS)
    values: Raw = {
        "labels": {text: "a"}, "annotations": {text: text}, "finalizers": [text],
        "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": text, "uid": "u"}],
    }  # fmt: skip
    crd["metadata"][word] = values.get(word, text)
    return True


_WORDS: dict[str, Any] = {
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), NUMBERS),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), NUMBERS),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum", "uniqueItems", "nullable"), BOOLEANS),
    "x-kubernetes-preserve-unknown-fields": [True, True, False],
    "x-kubernetes-int-or-string": [True, True, False],
    "x-kubernetes-embedded-resource": [True, True, False],
    "x-kubernetes-list-type": ["atomic", "set", "map", "bag", ""],
    "x-kubernetes-map-type": ["atomic", "granular", "set", ""],
    "x-kubernetes-list-map-keys": [["a"], ["a", "a"], ["name"], ["a", "b"], [], [""]],
    "pattern": PATTERNS,
    "format": FORMATS,
    **dict.fromkeys(("title", "description", "id", "$schema"), TEXTS),
    "default": JUNK,
    "example": JUNK,
    "enum": [["a"], ["a", "a"], [1, 1.0, True], [], [None], [{"a": 1}]],
    "required": [["a"], ["a", "a"], [""], [], ["no-such-field"]],
    "items": lambda rng, schemas: rng.choice([_other(rng, schemas), [_other(rng, schemas)]]),
    "additionalProperties": lambda rng, schemas: rng.choice([_other(rng, schemas), True, False]),
    "additionalItems": [True, False],
    "not": _other,
    **dict.fromkeys(
        ("allOf", "anyOf", "oneOf"),
        lambda rng, schemas: rng.choice(
            [
                [_other(rng, schemas)],
                [{"required": ["a"]}, {"required": ["b"]}],
                [{"type": "integer"}, {"type": "string"}],
                [{"minimum": 5}],
                [{"properties": {"a": {"pattern": "^a"}}}],
                [],
            ]
        ),
    ),
    **dict.fromkeys(
        ("properties", "patternProperties"), lambda rng, schemas: {rng.choice(TEXTS): _other(rng, schemas)}
    ),
    "dependencies": [{"a": ["b"]}],
    "externalDocs": [{"url": "https://example.dev"}],
}

_CHANGES: list[Callable[[random.Random, Raw], bool] | None] = [
    *[_in_schema(_say)] * 5,
    *map(_in_schema, (_swap_type, _unsay, _unsay, _replace, _nest, _rename, _refer, _rule, _rule)),
    *map(_in_version, (_column, _column, _subresources, _selectable, _version)),
    _more_versions,
    _name,
    _metadata,
    *[None] * 3,
]
"""The ways to change a CRD. None: change it like any other object."""
