"""What the server asks of a schema, whether of a custom resource or of a type that is built in."""

from __future__ import annotations

from typing import Any, Self

from remit.controlplane.schema.causes import Cause
from remit.controlplane.schema.defaulting import default
from remit.controlplane.schema.pruning import prune
from remit.controlplane.schema.structural import Node, compile_node
from remit.controlplane.schema.validation import MISSING, validate


class Schema:
    """A compiled schema. Objects are parsed JSON; they are changed in place where it says so."""

    def __init__(self, raw: dict[str, Any], node: Node) -> None:
        self.raw = raw
        self.node = node

    @classmethod
    def compile(cls, openapi_v3_schema: dict[str, Any], *, path: str = "spec.validation.openAPIV3Schema") -> Self:
        """Raises `Invalid` when it is not structural, or a CEL rule in it does not compile."""
        return cls(openapi_v3_schema, compile_node(openapi_v3_schema, path, resource=True))

    def prune(self, obj: dict[str, Any]) -> list[str]:
        """Remove what the schema does not know. Gives the paths of what was removed."""
        unknown: list[str] = []
        prune(self.node, obj, "", unknown)
        return unknown

    def default(self, obj: dict[str, Any]) -> None:
        """Fill in defaults, and drop nulls that may not be."""
        default(self.node, obj)

    def validate(self, obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[Cause]:
        """Everything that is wrong, in a real API server's words; what `old` has just the same is let be."""
        return validate(self.node, obj, MISSING if old is None else old)
