"""Access and token reviews: there is one user, who holds the token and may do everything that is served."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from remit.controlplane.failures import bad_request, invalid
from remit.controlplane.http.request import ResourcePath
from remit.controlplane.schema.decoding import ANYTHING, STRING, Undecodable, array, decode, mapping, strings, struct

ADMIN = "remit-admin"
_MASTERS = "system:masters"
USER = {"username": ADMIN, "groups": [_MASTERS, "system:authenticated"]}

Object = dict[str, Any]

_RESOURCE: Final = struct(
    "v1.ResourceAttributes",
    **strings("namespace", "verb", "group", "version", "resource", "subresource", "name"),
    fieldSelector=ANYTHING,
    labelSelector=ANYTHING,
)
_ACCESS: Final = {
    "resourceAttributes": _RESOURCE,
    "nonResourceAttributes": struct("v1.NonResourceAttributes", **strings("path", "verb")),
}
_SUBJECT: Final = struct(
    "v1.SubjectAccessReviewSpec",
    **_ACCESS,
    **strings("user", "uid"),
    groups=array(STRING),
    extra=mapping(array(STRING)),
)


class _Review(NamedTuple):
    kind: str
    spec: Object | None
    answer: Callable[[Reviews, Object, str], Object]
    """Given the spec and the namespace of the path, the status. Raises `Failure`."""
    namespaced: bool = False


class Reviews:
    """Answers reviews; `token` is that of the one user."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def answer(self, path: ResourcePath, read: Callable[[str], Any]) -> Object | None:
        """The answered review, or None when there is none at `path`. `read` gives the body, which is of that kind.

        Raises `Failure`.
        """
        review = REVIEWS.get((path.group, path.version), {}).get(path.resource)
        if review is None or path.name or bool(path.namespace) != review.namespaced:
            return None
        body = read(review.kind)
        if not isinstance(body, dict):
            raise bad_request(f"the object provided is unrecognized (must be of type {review.kind})")
        kind, api_version = body.get("kind") or review.kind, f"{path.group}/{path.version}"
        if kind != review.kind or (body.get("apiVersion") or api_version) != api_version:
            raise bad_request(f"the object provided is a {kind} of {body.get('apiVersion')}, not a {review.kind}")
        spec = body.get("spec") or {}
        try:
            decode(review.spec or ANYTHING, spec)
        except Undecodable as error:
            version = path.version
            raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}') from None
        answered: Object = {"kind": review.kind, "apiVersion": api_version, "metadata": {}}
        if review.spec is not None:
            answered["spec"] = spec
        return answered | {"status": review.answer(self, spec, path.namespace)}

    def _token_review(self, spec: Object, namespace: str) -> Object:
        token = spec.get("token") or ""
        if not token:
            raise bad_request("token is required for TokenReview in authentication")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return {"user": {}, "error": "invalid bearer token"}
        return {"authenticated": True, "user": USER}

    def _subject(self, spec: Object, namespace: str) -> Object:
        causes = _attribute_causes(spec)
        groups = spec.get("groups") or ()
        if not spec.get("user") and not groups:
            causes.append(("FieldValueInvalid", _NO_SUBJECT, "spec.user"))
        if causes:
            raise invalid("authorization.k8s.io", "SubjectAccessReview", "", causes)
        about = (spec.get("resourceAttributes") or {}).get("namespace") or ""
        if namespace and about != namespace:
            raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
        if spec.get("user") == ADMIN or _MASTERS in groups:
            return _answer_for_admin(spec)
        return {"allowed": False, "reason": f"this server has one user, {ADMIN}"}

    def _own_access(self, spec: Object, namespace: str) -> Object:
        if causes := _attribute_causes(spec):
            raise invalid("authorization.k8s.io", "SelfSubjectAccessReview", "", causes)
        return _answer_for_admin(spec)

    def _own_rules(self, spec: Object, namespace: str) -> Object:
        return {
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": False,
        }

    def _own_identity(self, spec: Object, namespace: str) -> Object:
        return {"userInfo": USER}


_NO_SUBJECT: Final = 'Invalid value: "": at least one of user or group must be specified'


def _answer_for_admin(spec: Object) -> Object:
    if (spec.get("resourceAttributes") or {}).get("verb") == "impersonate":
        return {"allowed": False, "reason": "this server has one user and no impersonation"}
    return {"allowed": True}


def _attribute_causes(spec: Object) -> list[tuple[str, str, str]]:
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and other is not None:
        why = "Invalid value: cannot be specified in combination with resourceAttributes"
        return [("FieldValueInvalid", why, "spec.nonResourceAttributes")]
    if resource is None and other is None:
        why = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [("FieldValueInvalid", why, "spec.resourceAttributes")]
    return []


REVIEWS: Final[dict[tuple[str, str], dict[str, _Review]]] = {
    ("authentication.k8s.io", "v1"): {
        "selfsubjectreviews": _Review("SelfSubjectReview", None, Reviews._own_identity),
        "tokenreviews": _Review(
            "TokenReview",
            struct("v1.TokenReviewSpec", token=STRING, audiences=array(STRING)),
            Reviews._token_review,
        ),
    },
    ("authorization.k8s.io", "v1"): {
        "localsubjectaccessreviews": _Review("LocalSubjectAccessReview", _SUBJECT, Reviews._subject, namespaced=True),
        "selfsubjectaccessreviews": _Review(
            "SelfSubjectAccessReview", struct("v1.SelfSubjectAccessReviewSpec", **_ACCESS), Reviews._own_access
        ),
        "selfsubjectrulesreviews": _Review(
            "SelfSubjectRulesReview",
            struct("v1.SelfSubjectRulesReviewSpec", namespace=STRING),
            Reviews._own_rules,
        ),
        "subjectaccessreviews": _Review("SubjectAccessReview", _SUBJECT, Reviews._subject),
    },
}
"""Resources by group and version and by name, in the order of discovery."""
