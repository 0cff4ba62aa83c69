"""What Kubernetes says about an object's shape, as pure functions on plain dicts: no I/O, no clock."""

from remit.controlplane.schema.causes import Cause, Invalid
from remit.controlplane.schema.columns import Columns
from remit.controlplane.schema.core import core_schema
from remit.controlplane.schema.crd import default_crd, validate_crd
from remit.controlplane.schema.duplicates import duplicate_keys
from remit.controlplane.schema.openapi import openapi_v3
from remit.controlplane.schema.schema import Schema
from remit.controlplane.schema.selectors import parse_field_selector, parse_label_selector

__all__ = [
    "Cause",
    "Columns",
    "Invalid",
    "Schema",
    "core_schema",
    "default_crd",
    "duplicate_keys",
    "openapi_v3",
    "parse_field_selector",
    "parse_label_selector",
    "validate_crd",
]
