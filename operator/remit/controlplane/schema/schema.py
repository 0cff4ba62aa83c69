"""The interface of schemas to the server, whether of a custom resource or of a type that is built in."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Self

import orjson

from remit.controlplane.schema.causes import Cause, joined
from remit.controlplane.schema.celcost import Budget
from remit.controlplane.schema.decoding import OBJECT_META, STRING, Place, decode
from remit.controlplane.schema.defaulting import default
from remit.controlplane.schema.pruning import prune
from remit.controlplane.schema.structural import Node, compile_node
from remit.controlplane.schema.validation import MISSING, validate

_MOST_RECENT: Final = 8
_RECENT: Final[dict[bytes, Node]] = {}
"""Compiled schemas: a CRD is compiled in a thread when it is validated, and on the event loop when it is served."""


class Schema:
    """A compiled schema. Objects are parsed JSON; they are changed in place where it says so."""

    def __init__(self, raw: dict[str, Any], node: Node) -> None:
        self.raw = raw
        self.node = node

    @classmethod
    def compile(cls, openapi_v3_schema: dict[str, Any], *, path: str = "spec.validation.openAPIV3Schema") -> Self:
        """Raises `Invalid` when it is not structural, or a CEL rule in it does not compile."""
        digest = hashlib.sha256(orjson.dumps(openapi_v3_schema)).digest()
        if (node := _RECENT.get(digest)) is None:
            node = _RECENT[digest] = compile_node(openapi_v3_schema, path, resource=True)
            while len(_RECENT) > _MOST_RECENT:
                _RECENT.pop(next(iter(_RECENT)), None)
        return cls(openapi_v3_schema, node)

    def decode(self, obj: dict[str, Any]) -> None:
        """Check the types without which a real API server could not read the object. Raises `Undecodable`."""
        if self.node.has_embedded:
            decode_embedded(self.node, obj, "")

    def prune(self, obj: dict[str, Any]) -> list[str]:
        """Remove what the schema does not know. Gives the paths of what was removed."""
        unknown: list[str] = []
        prune(self.node, obj, "", unknown)
        return unknown

    def default(self, obj: dict[str, Any]) -> None:
        """Fill in defaults, and drop nulls that may not be."""
        default(self.node, obj)

    def validate(
        self, obj: dict[str, Any], old: dict[str, Any] | None = None, budget: Budget | None = None
    ) -> list[Cause]:
        """Everything that is wrong, in a real API server's words; what `old` has just the same is let be.

        Raises `NotOnLoop`: see `Budget`.
        """
        return validate(self.node, obj, MISSING if old is None else old, budget or Budget())


def decode_embedded(node: Node, value: Any, path: str) -> None:
    """Decode what is known of every object in those that are embedded in `value`. Raises `Undecodable`."""
    if not node.has_embedded:
        return
    if isinstance(value, dict):
        if node.embedded:
            for name, schema in (("apiVersion", STRING), ("kind", STRING), ("metadata", OBJECT_META)):
                if value.get(name) is not None:
                    decode(schema, value[name], Place(joined(path, name)))
        for key, part in value.items():
            child = node.child(key)
            if child is not None:
                decode_embedded(child, part, joined(path, key))
    elif isinstance(value, list) and node.items is not None:
        for index, item in enumerate(value):
            decode_embedded(node.items, item, f"{path}[{index}]")
