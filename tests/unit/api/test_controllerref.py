"""Tests which object controls another one, according to its owner references."""

from __future__ import annotations

from typing import Any

import pytest

from remit.api.controllerref import controller_of, is_controlled_by
from remit.api.group import API_VERSION

SHOP = {
    "apiVersion": API_VERSION,
    "kind": "Deployment",
    "metadata": {"name": "shop", "namespace": "web", "uid": "u1"},
}
REFERENCE = {"apiVersion": API_VERSION, "kind": "Deployment", "name": "shop", "uid": "u1", "controller": True}


def owned(*references: Any, namespace: str = "web") -> dict[str, Any]:
    return {"metadata": {"name": "task", "namespace": namespace, "ownerReferences": list(references)}}


def test_the_controller_is_known_by_all_of_its_reference() -> None:
    assert is_controlled_by(owned(REFERENCE), SHOP)
    assert is_controlled_by(owned({"kind": "ConfigMap"}, REFERENCE), SHOP)
    assert controller_of(owned(REFERENCE), API_VERSION, "Deployment") == "shop"


@pytest.mark.parametrize(
    "changes",
    [
        {"apiVersion": "apps/v1"},
        {"kind": "ExecutionTask"},
        {"name": "shop-2"},
        {"uid": "u2"},
        {"uid": ["u1"]},
        {"controller": False},
        {"controller": None},
        {"controller": "true"},
    ],
)
def test_a_reference_that_differs_in_anything_is_not_to_it(changes: dict[str, Any]) -> None:
    assert not is_controlled_by(owned({**REFERENCE, **changes}), SHOP)


def test_an_owner_is_in_the_same_namespace() -> None:
    assert not is_controlled_by(owned(REFERENCE, namespace="other"), SHOP)


@pytest.mark.parametrize("references", [None, [], {}, "shop", [None], ["shop"], [{}], [{"controller": True}]])
def test_nonsense_is_controlled_by_nobody(references: Any) -> None:
    obj = {"metadata": {"name": "task", "namespace": "web", "ownerReferences": references}}
    assert not is_controlled_by(obj, SHOP)
    assert controller_of(obj, API_VERSION, "Deployment") is None
    assert controller_of({"metadata": {"name": "task"}}, API_VERSION, "Deployment") is None


def test_the_controller_of_another_kind_is_none() -> None:
    foreign = owned({**REFERENCE, "apiVersion": "apps/v1"})
    assert controller_of(foreign, API_VERSION, "Deployment") is None
    assert controller_of(owned({**REFERENCE, "name": 5}), API_VERSION, "Deployment") is None
