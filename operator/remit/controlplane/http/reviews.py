"""Access reviews: there is one user, who holds the token and may do everything that is served."""

from __future__ import annotations

from typing import Any

ADMIN = "remit-admin"
USER = {"username": ADMIN, "groups": ["system:masters", "system:authenticated"]}


def review(plural: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The answered review, or None when there is no such review."""
    match plural:
        case "selfsubjectaccessreviews":
            return _answer("authorization.k8s.io/v1", "SelfSubjectAccessReview", body, {"allowed": True})
        case "selfsubjectrulesreviews":
            status: dict[str, Any] = {
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": False,
            }
            return _answer("authorization.k8s.io/v1", "SelfSubjectRulesReview", body, status)
        case "selfsubjectreviews":
            return _answer("authentication.k8s.io/v1", "SelfSubjectReview", body, {"userInfo": USER})
    return None


def _answer(api_version: str, kind: str, body: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"kind": kind, "apiVersion": api_version, "metadata": {}}
    if "spec" in body:
        answer["spec"] = body["spec"]
    return answer | {"status": status}
