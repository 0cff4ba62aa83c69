"""Kubernetes' rules about an object's shape, as pure functions on plain dicts: no I/O, no clock.

The one exception is the worker process that evaluates costly CEL rules.
"""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.controlplane.schema.apply import ApplyConflict, server_side_apply
    from remit.controlplane.schema.causes import Cause, Invalid
    from remit.controlplane.schema.columns import Columns
    from remit.controlplane.schema.core import core_schema
    from remit.controlplane.schema.crd import default_crd, validate_crd
    from remit.controlplane.schema.decoding import (
        DELETE_OPTIONS,
        OBJECT_META,
        SCALE,
        STRING,
        Place,
        Undecodable,
        decode,
    )
    from remit.controlplane.schema.duplicates import duplicate_keys, duplicate_yaml_keys
    from remit.controlplane.schema.managedfields import track_update
    from remit.controlplane.schema.metadata import validate_metadata
    from remit.controlplane.schema.openapi import openapi_v3
    from remit.controlplane.schema.patches import apply_json_patch, apply_merge_patch, apply_strategic
    from remit.controlplane.schema.protobuf import decode_protobuf, openapi_v2_protobuf
    from remit.controlplane.schema.schema import Schema
    from remit.controlplane.schema.selectors import Selector, parse_field_selector, parse_label_selector
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "DELETE_OPTIONS",
    "OBJECT_META",
    "SCALE",
    "STRING",
    "ApplyConflict",
    "Cause",
    "Columns",
    "Invalid",
    "Place",
    "Schema",
    "Selector",
    "Undecodable",
    "apply_json_patch",
    "apply_merge_patch",
    "apply_strategic",
    "core_schema",
    "decode",
    "decode_protobuf",
    "default_crd",
    "duplicate_keys",
    "duplicate_yaml_keys",
    "openapi_v2_protobuf",
    "openapi_v3",
    "parse_field_selector",
    "parse_label_selector",
    "server_side_apply",
    "track_update",
    "validate_crd",
    "validate_metadata",
]
