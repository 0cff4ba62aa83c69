"""Deliberate differences between the embedded control plane and kube-apiserver, and their reasons.

docs/control-plane.md tells users the same. A difference that is declared here and no longer seen fails its scenario:
delete it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A difference. `where` is a regular expression that is searched in lines such as `GET /version
    body.gitVersion`."""

    scenario: str
    where: str
    reason: str

    def covers(self, line: str) -> bool:
        return re.search(self.where, line) is not None


_PROTOBUF = "protobuf is read where kubectl insists on it, written never, and not claimed for custom resources"
_UNSIGNED = "a version that is no number is the client's mistake, not the server's: 400"
_GO_TEXT = "the words of Go's decoder for text that is no JSON or YAML"
_BARE_DETAILS = "a refusal has no empty details"
_STATUS_PATH = "a mistake in status is named from the root of the object, as everywhere else"
_DESCRIPTIONS = "the columns of built-in kinds are the same, their descriptions are shorter"
_TYPED = "built-in kinds are tracked by what was sent, not by the Go struct it is decoded into"
_RFC_6902 = "RFC 6902: the source of a copy must exist"

DECLARED: tuple[Difference, ...] = (
    Difference("test_accept", r"body\.message|headers\.content-type", _PROTOBUF),
    Difference("test_protobuf_bodies", r"headers\.content-type", _PROTOBUF),
    Difference("test_protobuf_answers_for_core_kinds", r"headers\.content-type", _PROTOBUF),
    Difference("test_watch_of_versions_that_are_not", r"=<…> (status|body\.(code|reason))", _UNSIGNED),
    Difference("test_list_resource_versions", r"(status|body\.(code|reason|message))$", _UNSIGNED),
    Difference("test_pages_refused", r"continue=<…> body\.message", _GO_TEXT),
    Difference(
        "test_merge_patch_of_no_object",
        r"PATCH .* body\.(message|details\.causes)",
        f"{_GO_TEXT}; a spec of the wrong type is one mistake, not one for each path that leads through it",
    ),
    Difference(
        "test_apply_refusals",
        r"PATCH .* (status|headers\.warning|body)",
        "an applied configuration that does not fit its schema is a 422 that names the field, not a 500; unknown "
        "fields are pruned or refused as fieldValidation says",
    ),
    Difference("test_stale_writes", r"body\.details", _BARE_DETAILS),
    Difference(
        "test_json_patch_that_fails",
        r"(status|body)",
        f"{_BARE_DETAILS}; {_GO_TEXT}; null is no list of operations",
    ),
    Difference("test_json_patch_with_a_missing_source", r"PATCH", _RFC_6902),
    Difference("test_status_is_apart", r"body\.(message|details\.causes\[0\]\.message)", _STATUS_PATH),
    Difference("test_tables_of_core_kinds", r"columnDefinitions|managedFields|POST .*events", _DESCRIPTIONS),
    Difference(
        "test_event_field_selectors",
        r"events.* body",
        "an Event is given back as it was sent: what is absent is not null, and the source is one field",
    ),
    Difference(
        "test_ratcheting",
        r"headers\.warning",
        "a stored value that no longer fits is let pass without a word",
    ),
    Difference("test_crd_life", r"managedFields\[0\]\.fieldsV1\.f:spec", _TYPED),
    Difference(
        "test_field_validation",
        r"(PATCH|POST) .*=Strict (status|body)",
        "a patch that makes an unknown field is refused in the words of a PUT, without the whole object in the message",
    ),
    Difference(
        "test_immutable_and_special_core_objects",
        r"POST .*/configmaps body\.message",
        "the types of built-in kinds are checked by a schema, which names the field and the value",
    ),
    Difference(
        "test_wrong_or_missing_kind",
        r"headers\.warning",
        "no warning about the fields of a kind or version that is refused anyway",
    ),
    Difference("test_uid_mismatch", r"PUT .* body\.message", "there is no etcd key to speak of"),
    Difference(
        "test_openapi_v3",
        r"headers\.(content-type|cache-control)",
        "the index of OpenAPI is JSON, and called so; documents are small and not cached by intermediaries",
    ),
    Difference(
        "test_numbers",
        r"body\.(message|details)",
        "a number that does not fit its type or format is one mistake at its own field, without a second at <nil>",
    ),
    Difference("test_watch_of_one_object", r"/v1/watch/", "the /watch/ paths were deprecated in Kubernetes 1.11"),
    Difference("test_map_items", r"body\.message", "the namespace of the request is known when the text is written"),
    Difference(
        "test_scale",
        r"managedFields\[1\]\.time|body\.(message|details)|replicas",
        "a refused number of replicas is named in the Scale that was sent; every owner has a time",
    ),
    Difference(
        "test_rules_that_cannot_be",
        r"body\.(message|details)",
        "the rule is shown as it was written, and the compiler is another",
    ),
    Difference(
        "test_crds_refused",
        r"body",
        "a refused definition is told in fewer words; that it is refused, and as what, is the same",
    ),
)
