from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, Field

from remit.api import crd, definitions
from remit.controlplane.schema import Schema

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CRDS = definitions.crds()
BY_KIND = {definition["spec"]["names"]["kind"]: definition for definition in CRDS}
ALLOWED_KEYS = {
    "type", "format", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "required", "properties", "items", "additionalProperties",
    "exclusiveMinimum", "exclusiveMaximum",
    "x-kubernetes-validations", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
}  # fmt: skip


def schema_of(kind: str) -> dict[str, Any]:
    return BY_KIND[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


EVERYWHERE = [(kind, path, part) for kind in BY_KIND for path, part in walk(schema_of(kind))]


def at(kind: str, path: str) -> dict[str, Any]:
    return next(part for found, where, part in EVERYWHERE if (found, where) == (kind, path))


def test_every_part_is_structural() -> None:
    for kind, path, part in EVERYWHERE:
        assert part.keys() <= ALLOWED_KEYS, (kind, path)
        assert ("type" in part) != part.get("x-kubernetes-int-or-string", False), (kind, path)
        assert not ("properties" in part and "additionalProperties" in part), (kind, path)


def test_explain_has_a_text_for_every_field() -> None:
    silent = [
        f"{kind}{path}"
        for kind, path, part in EVERYWHERE
        if path.startswith((".spec", ".status")) and not path.endswith("[]") and not part.get("description")
    ]
    assert silent == []


def test_everything_that_users_write_has_a_bound() -> None:
    """The API server refuses rules over unbounded values, and etcd accepts objects up to a certain size only."""
    bounds = {"string": {"maxLength", "enum", "pattern"}, "array": {"maxItems"}}
    unbounded = [
        f"{kind}{path}"
        for kind, path, part in EVERYWHERE
        if path.startswith(".spec") and (wanted := bounds.get(part.get("type", ""))) and not wanted & part.keys()
    ]
    assert unbounded == []


def test_an_object_that_holds_defaults_is_itself_a_default() -> None:
    assert at("ExecutionTask", ".spec.retry")["default"] == {}
    assert at("ExecutionTask", ".spec.retry.backoff")["default"] == {}
    assert at("ExecutionTask", ".spec.retry.backoff.factor")["default"] == 2
    assert "default" not in at("ExecutionTask", ".spec.resources"), "nothing in it has a default"
    assert "default" not in at("ExecutionTask", ".spec.schedule"), "it means something that it is not there"


def test_status_says_nothing_until_the_operator_does() -> None:
    defaults = {kind: at(kind, ".status")["default"] for kind in BY_KIND}
    assert defaults.pop("ExecutionTask") == {"observedGeneration": -1, "phase": "Pending"}
    assert all(default == {"observedGeneration": -1} for default in defaults.values())
    filled = [f"{kind}{path}" for kind, path, part in EVERYWHERE if path.startswith(".status.") and "default" in part]
    assert filled == []


@pytest.mark.parametrize(("quantity", "right"), [("512Mi", True), (7, True), ("5Q", False), (-7, False), ("", False)])
def test_quantities_are_numbers_or_strings_and_a_wrong_one_is_told_in_words(quantity: object, right: bool) -> None:
    memory = at("ExecutionTask", ".spec.resources.memory")
    assert memory["x-kubernetes-int-or-string"] is True
    causes = Schema.compile({"type": "object", "properties": {"memory": memory}}).validate({"memory": quantity})
    shown = json.dumps(quantity)
    words = f"Invalid value: {shown}: must be a quantity, such as 500m, 0.5, 256Mi or 2G"
    assert [cause.message for cause in causes] == ([] if right else [words])


def test_rules_that_look_at_the_old_object_stay_out_of_lists() -> None:
    """An API server refuses such rules in lists, because it cannot match old and new items."""
    inside = [path for _, path, part in EVERYWHERE if "[]" in path and "oldSelf" in json.dumps(part)]
    assert inside == []


def test_conditions_are_told_apart_by_type() -> None:
    for kind in BY_KIND:
        conditions = at(kind, ".status.conditions")
        assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


@pytest.mark.parametrize("kind", BY_KIND)
def test_kubectl_knows_the_kind(kind: str) -> None:
    names = BY_KIND[kind]["spec"]["names"]
    assert names["categories"] == ["remit"]
    assert names["singular"] == kind.lower()
    version = BY_KIND[kind]["spec"]["versions"][0]
    assert version["subresources"]["status"] == {}
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"].split("[")[0]
        assert path.startswith(".metadata") or at(kind, path)


def test_selectable_fields_are_scalars() -> None:
    for kind, definition in BY_KIND.items():
        for field in definition["spec"]["versions"][0]["selectableFields"]:
            assert at(kind, field["jsonPath"])["type"] in {"string", "boolean", "integer"}


def test_a_crd_fits_into_the_annotation_of_kubectl_apply() -> None:
    for definition in CRDS:
        assert len(json.dumps(definition)) < 262_144


def test_what_was_written_is_what_the_models_say() -> None:
    assert crd.crds() == CRDS


@pytest.mark.no_cover
def test_rendering_loses_nothing() -> None:
    assert list(yaml.load_all(crd.render(), Loader=LOADER)) == CRDS
    assert [yaml.load(text, Loader=LOADER) for text in crd.files().values()] == CRDS


class Inner(BaseModel):
    number: Annotated[float, Field(gt=0, lt=5)] | None = None
    """Between 0 and 5."""


def convert(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return crd.structural(schema, schema.pop("$defs", {}))


def test_exclusive_bounds_take_the_boolean_form() -> None:
    number = convert(Inner)["properties"]["number"]
    assert number == {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": True}


def test_sets_and_constants_and_references() -> None:
    class Outer(BaseModel):
        members: set[str] = set()
        inner: Inner = Field(Inner(), description="Described\nhere.")
        fixed: Annotated[str, Field(json_schema_extra={"const": "x"})] = "x"

    properties = convert(Outer)["properties"]
    assert properties["members"] == {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
    assert properties["inner"]["description"] == "Described here."
    assert properties["inner"]["type"] == "object"
    assert properties["fixed"]["enum"] == ["x"]


def test_what_cannot_be_said_structurally_is_refused() -> None:
    class Union(BaseModel):
        either: int | list[str]

    class Anything(BaseModel):
        extra: dict[str, Any]

    for model in (Union, Anything):
        with pytest.raises(TypeError, match="no place in a structural schema"):
            convert(model)


def defaults(schema: dict[str, Any], path: str = "", *, listed: bool = False) -> Iterator[str]:
    """Yields the fields inside lists for which an API server would set defaults."""
    if listed and "default" in schema:
        yield path
    for name, part in schema.get("properties", {}).items():
        yield from defaults(part, f"{path}.{name}", listed=listed)
    for key in ("items", "additionalProperties"):
        if isinstance(part := schema.get(key), dict):
            yield from defaults(part, f"{path}[]", listed=listed or key == "items")


def test_nothing_is_filled_in_inside_of_lists() -> None:
    """kubectl and Argo CD compare lists as a whole, so such an object would always differ from its manifest."""
    for kind in BY_KIND:
        assert list(defaults(schema_of(kind))) == []


@pytest.mark.parametrize(
    ("toleration", "valid"),
    [
        ({"key": "a", "value": "b"}, True),
        ({"value": "b"}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "value": "b"}, False),
    ],
)
def test_rules_inside_of_lists_know_the_defaults(toleration: dict[str, str], valid: bool) -> None:
    pod = {"tolerations": [toleration]}
    spec = {"command": {"argv": ["true"]}, "backend": "kubernetes", "pod": pod}
    schema, task = Schema.compile(schema_of("ExecutionTask")), {"spec": spec}
    schema.default(task)
    assert (schema.validate(task) == []) is valid
