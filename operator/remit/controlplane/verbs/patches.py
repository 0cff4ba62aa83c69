"""The patch types: which of them a resource takes, and what becomes of the object."""

from __future__ import annotations

from typing import Any

from remit.controlplane.failures import bad_request, too_many_operations, unsupported_media_type
from remit.controlplane.http.bodies import load_json
from remit.controlplane.resources import ServedResource
from remit.controlplane.schema.patches import apply_json_patch, apply_merge_patch, apply_strategic, rejected
from remit.controlplane.storage import Object

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
MOST_OPERATIONS = 10_000


def patch_type(resource: ServedResource, content_type: str) -> str:
    """The media type of a patch. Raises 415: custom resources know no strategic merge."""
    media = content_type.split(";")[0].strip().lower()
    accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if not resource.custom:
        accepted.insert(2, STRATEGIC_MERGE_PATCH)
    if media not in accepted:
        raise unsupported_media_type(accepted)
    return media


def patched(resource: ServedResource, media: str, body: bytes, obj: Object) -> Any:
    """`obj` after the patch; `obj` itself may be changed."""
    try:
        patch = load_json(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from None
    if media == JSON_PATCH:
        if isinstance(patch, list) and len(patch) > MOST_OPERATIONS:
            raise too_many_operations(MOST_OPERATIONS, len(patch))
        result = apply_json_patch(obj, patch)
        if not isinstance(result, dict):
            raise rejected()
        return result
    if media == STRATEGIC_MERGE_PATCH:
        return apply_strategic(obj, patch, resource.kind)
    return apply_merge_patch(obj, patch)
