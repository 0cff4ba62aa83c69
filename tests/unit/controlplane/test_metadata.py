"""Tests metadata: the errors and their texts are those of kube-apiserver 1.36."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema.causes import Cause, Invalid
from remit.controlplane.schema.metadata import validate_metadata

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
NAME_PART = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def causes(kind: str = "ConfigMap", old: Any = None, **metadata: Any) -> list[Cause]:
    obj = {"kind": kind, "metadata": {"name": "a", "namespace": "n", **metadata}}
    if kind == "Namespace":
        del obj["metadata"]["namespace"]
    return validate_metadata(obj, namespaced=kind != "Namespace", old=old)


def mistakes(kind: str = "ConfigMap", **metadata: Any) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in causes(kind, **metadata)]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"name": "a.b-c.1"},
        {"generateName": "a-"},
        {"labels": {"example.com/a": "", "A_b": "1.2"}, "annotations": {"Foo.Bar/x": "b", "a": "b" * 9999}},
        {"finalizers": ["kubernetes", "a.b/c"]},
        {"labels": None, "annotations": None, "finalizers": None, "ownerReferences": None},
        {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "K", "name": "x", "uid": "u", "controller": True}]},
    ],
)
def test_fine(metadata: Any) -> None:
    assert mistakes(**metadata) == []


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"name": "A_"}, [f'metadata.name: Invalid value: "A_": {SUBDOMAIN}']),
        ({"name": "a..b"}, [f'metadata.name: Invalid value: "a..b": {SUBDOMAIN}']),
        ({"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
        ({"generateName": "a."}, [f'metadata.generateName: Invalid value: "a.": {SUBDOMAIN}']),
        ({"namespace": ""}, ["metadata.namespace: Required value"]),
        ({"labels": {"-a": "b"}}, [f'metadata.labels: Invalid value: "-a": {NAME_PART}']),
        ({"labels": {"/c": "b"}}, ['metadata.labels: Invalid value: "/c": prefix part must be non-empty']),
        ({"labels": {"Ab/c": "b"}}, [f'metadata.labels: Invalid value: "Ab/c": prefix part {SUBDOMAIN}']),
        ({"annotations": {"-a": "b"}}, [f'metadata.annotations: Invalid value: "-a": {NAME_PART}']),
        (
            {"annotations": {"a": "é" * 131072}},
            ["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        (
            {"finalizers": ["x"]},
            [
                'metadata.finalizers[0]: Invalid value: "x": '
                "name is neither a standard finalizer name nor is it fully qualified"
            ],
        ),
        (
            {"finalizers": ["orphan", "foregroundDeletion"]},
            [
                'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: '
                "finalizer orphan and foregroundDeletion cannot be both set"
            ],
        ),
        (
            {"ownerReferences": [{}]},
            [
                'metadata.ownerReferences.apiVersion: Invalid value: "": version must not be empty',
                'metadata.ownerReferences.kind: Invalid value: "": must not be empty',
                'metadata.ownerReferences.name: Invalid value: "": must not be empty',
                'metadata.ownerReferences.uid: Invalid value: "": must not be empty',
            ],
        ),
    ],
)
def test_mistakes(metadata: Any, expected: list[str]) -> None:
    assert mistakes(**metadata) == expected


def test_one_controller() -> None:
    owner = {"apiVersion": "v1", "kind": "K", "name": "x", "uid": "u", "controller": True}
    (found,) = mistakes(ownerReferences=[owner, {**owner, "uid": "v", "name": "y"}])
    assert found.endswith(
        'Only one reference can have Controller set to true. Found "true" in references for K/x and K/y'
    )
    (found,) = mistakes(ownerReferences=[{**owner, "kind": "Event"}])
    assert found.endswith("/v1, Kind=Event is disallowed from being an owner")


def test_lengths() -> None:
    long = "x" * 64
    assert mistakes(labels={long: "y", "a": "y" * 64}) == [
        f'metadata.labels: Invalid value: "{long}": name part must be no more than 63 bytes',
        f'metadata.labels: Invalid value: "{"y" * 64}": must be no more than 63 bytes',
    ]
    assert mistakes(name="x" * 253) == []
    assert mistakes(name="x" * 254)[0].endswith("must be no more than 253 characters")
    assert mistakes("Namespace", name=long)[0].endswith("must be no more than 63 characters")
    assert mistakes(labels={"x" * 254 + "/a": ""})[0].endswith("prefix part must be no more than 253 bytes")


def test_a_namespace_is_a_label() -> None:
    assert mistakes("Namespace", name="a.b") == ['metadata.name: Invalid value: "a.b": must not contain dots']
    assert "RFC 1123 label" in mistakes("Namespace", name="A")[0]
    assert mistakes("Namespace", generateName="a-") == []


def test_no_finalizer_may_come_to_an_object_that_goes() -> None:
    going = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}}
    assert causes(old=going, finalizers=[]) == []
    assert causes(old={"metadata": {}}, finalizers=["a/b"]) == []
    assert causes(old=going, finalizers=["a/b", "a/c"]) == [
        (
            "FieldValueForbidden",
            "Forbidden: no new finalizers can be added if the object is being deleted, "
            'found new finalizers []string{"a/c"}',
            "metadata.finalizers",
        )
    ]


ANY = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.none() | st.text(max_size=5) | st.just({}))
FIELDS = ("name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences")


@given(st.dictionaries(st.sampled_from(FIELDS), ANY | st.dictionaries(st.text(max_size=5), ANY, max_size=2)))
def test_any_shape_is_answered(metadata: Any) -> None:
    for cause in validate_metadata({"kind": "K", "metadata": metadata}, namespaced=True):
        assert cause.field.startswith("metadata.")
        assert cause.message


def test_invalid_tells_every_cause() -> None:
    assert str(Invalid(causes(name="", namespace=""))) == (
        "metadata.name: Required value: name or generateName is required, metadata.namespace: Required value"
    )
