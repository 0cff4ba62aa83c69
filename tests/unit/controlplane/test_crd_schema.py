"""Tests the errors in schemas of CRDs and the fields that they are reported for. kube-apiserver reports the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from controlplanes import WIDGETS_CRD
from remit.controlplane.schema import validate_crd
from remit.controlplane.schema.crd import default_crd

Raw = dict[str, Any]

TEXT: Raw = {"type": "string"}
A = "spec.validation.openAPIV3Schema.properties[spec].properties[a]"


def widgets(a: Raw, **version: Any) -> Raw:
    """Returns a CRD with the field `spec.a`."""
    crd = copy.deepcopy(WIDGETS_CRD)
    crd["spec"]["versions"][0] |= version
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"] = a
    default_crd(crd)
    return crd


def fields(crd: Raw, old: Raw | None = None) -> set[str]:
    return {cause.field for cause in validate_crd(crd, old)}


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({**TEXT, "enum": [], "anyOf": [], "oneOf": [], "allOf": []}, set()),
        ({"type": "object", "additionalProperties": False}, set()),
        ({**TEXT, "$ref": "#"}, {f"{A}.$ref"}),
        ({**TEXT, "$schema": "a"}, {"spec.validation.openAPIV3Schema"}),
        ({"type": "array", "items": TEXT, "additionalItems": True}, {f"{A}.additionalItems"}),
        ({**TEXT, "x-kubernetes-map-type": "atomic"}, {f"{A}.type"}),
        ({"type": "object", "anyOf": [{"type": "object"}]}, {f"{A}.anyOf[0].type"}),
        ({"type": "object", "anyOf": [{"default": False}]}, {f"{A}.anyOf[0].default"}),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, TEXT]}, set()),
        ({"type": "object", "default": {"b": 1}}, {f"{A}.default"}),
        ({"type": "array", "items": TEXT, "default": [1]}, {f"{A}.default.[0]"}),
        (
            {**TEXT, "x-kubernetes-validations": [{"rule": "true", "reason": ""}]},
            {f"{A}.x-kubernetes-validations[0].reason"},
        ),
        ({**TEXT, "x-kubernetes-validations": [{"rule": "cidr(self) == cidr(self).masked()"}]}, set()),
        (
            {"type": "array", "items": {**TEXT, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}},
            {f"{A}.items.x-kubernetes-validations[0].rule"},
        ),
    ],
)  # fmt: skip
def test_schemas(schema: Raw, wrong: set[str]) -> None:
    assert fields(widgets(schema)) == wrong


def test_any_column_that_begins_with_a_dot_is_taken() -> None:
    columns = [{"name": "A", "type": "string", "jsonPath": path} for path in (".spec.rows[].a", ".spec[", "spec")]
    crd = widgets(TEXT, additionalPrinterColumns=columns)
    assert fields(crd) == {"spec.additionalPrinterColumns[2].JSONPath"}


def test_a_crd_that_was_accepted_can_still_be_changed() -> None:
    """An earlier version that checked less may have accepted it, so only the changed parts are checked."""
    old = widgets({**TEXT, "$ref": "#"})
    old["spec"]["group"] = "example.k8s.io"
    same = copy.deepcopy(old)
    same["spec"]["names"]["shortNames"] = ["w"]
    assert fields(same, old) == set()
    changed = copy.deepcopy(same)
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "Other."
    assert fields(changed, old) == {f"{A}.$ref"}


def test_groups_of_the_community_need_an_approval() -> None:
    crd = widgets(TEXT)
    crd["spec"]["group"], crd["metadata"]["name"] = "a.k8s.io", "widgets.a.k8s.io"
    where = "metadata.annotations[api-approved.kubernetes.io]"
    for given, wrong in (
        ("", {where}),
        ("yes", {where}),
        ("unapproved, a test", set()),
        ("https://a.example/1", set()),
    ):
        crd["metadata"]["annotations"] = {"api-approved.kubernetes.io": given}
        assert fields(crd) == wrong, given


def test_a_version_that_objects_are_stored_in_stays() -> None:
    old = widgets(TEXT)
    old["status"] = {"storedVersions": ["v0", "v1"]}
    assert fields(copy.deepcopy(old), old) == {"status.storedVersions[0]"}
