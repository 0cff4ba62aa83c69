"""The served resources: built-in kinds and, live, those that CustomResourceDefinitions declare."""

from remit.controlplane.resources.resource import (
    ALL_VERBS,
    Conversion,
    Registry,
    ScalePaths,
    ServedResource,
    version_order,
)

__all__ = [
    "ALL_VERBS",
    "Conversion",
    "Registry",
    "ScalePaths",
    "ServedResource",
    "version_order",
]
