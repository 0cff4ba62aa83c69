"""Which object controls another one, by `metadata.ownerReferences`. Pure.

A user who may create an object may write any owner reference into it, so these functions return only what the object
claims. They do not raise, whatever the object contains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]


def controller_of(obj: Object, api_version: str, kind: str) -> str | None:
    """Returns the name of the controller of `obj`, or None if it has no controller of this kind. Compare
    `metav1.GetControllerOf`."""
    reference = _controller(obj)
    if reference is None or (reference.get("apiVersion"), reference.get("kind")) != (api_version, kind):
        return None
    name = reference.get("name")
    return name if isinstance(name, str) else None


def is_controlled_by(obj: Object, owner: Object) -> bool:
    """Returns whether `owner` is the controller of `obj`. Compare `metav1.IsControlledBy`."""
    reference, metadata = _controller(obj), owner["metadata"]
    if reference is None or obj["metadata"].get("namespace") != metadata.get("namespace"):
        return False
    claimed = [reference.get(name) for name in ("apiVersion", "kind", "name", "uid")]
    return claimed == [owner["apiVersion"], owner["kind"], metadata["name"], metadata["uid"]]


def _controller(obj: Object) -> Object | None:
    references = obj["metadata"].get("ownerReferences")
    if not isinstance(references, list):
        return None
    return next((each for each in references if isinstance(each, dict) and each.get("controller") is True), None)
