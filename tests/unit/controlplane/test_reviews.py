"""Tests reviews: who the user is, what the user may do, and whose token it is."""

from __future__ import annotations

from typing import Any

import pytest

from remit.controlplane.failures import Failure
from remit.controlplane.http.request import parse_path
from remit.controlplane.http.reviews import ADMIN, Reviews
from remit.controlplane.schema import decode_protobuf

TOKEN = "the-token"
ACCESS = {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "configmaps"}}
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
AUTHORIZATION = "/apis/authorization.k8s.io/v1"


def ask(path: str, body: Any) -> Any:
    parsed = parse_path(path)
    assert parsed is not None
    return Reviews(TOKEN).answer(parsed, lambda kind: body)


def review(kind: str, path: str = "", **spec: Any) -> Any:
    group = AUTHENTICATION if kind in ("TokenReview", "SelfSubjectReview") else AUTHORIZATION
    body = {"apiVersion": group.removeprefix("/apis/"), "kind": kind, "spec": spec}
    return ask(path or f"{group}/{kind.lower()}s", body)["status"]


def refused(kind: str, path: str = "", **spec: Any) -> tuple[int, str]:
    with pytest.raises(Failure) as refusal:
        review(kind, path, **spec)
    return refusal.value.status, refusal.value.message


def test_a_token_is_that_of_the_one_user() -> None:
    assert review("TokenReview", token=TOKEN)["user"]["username"] == ADMIN
    assert review("TokenReview", token="x\ud800") == {"user": {}, "error": "invalid bearer token"}
    assert refused("TokenReview") == (400, "token is required for TokenReview in authentication")
    assert refused("TokenReview", token=5)[0] == 400


def test_the_administrator_may_do_everything_and_nobody_else_anything() -> None:
    local = f"{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews"
    for path, kind in (("", "SubjectAccessReview"), (local, "LocalSubjectAccessReview")):
        assert review(kind, path, user=ADMIN, **ACCESS) == {"allowed": True}
        assert review(kind, path, groups=["system:masters"], **ACCESS) == {"allowed": True}
        assert review(kind, path, user="bob", **ACCESS)["allowed"] is False
    assert review("SelfSubjectAccessReview", **ACCESS) == {"allowed": True}
    assert review("SelfSubjectAccessReview", nonResourceAttributes={"path": "/", "verb": "get"}) == {"allowed": True}
    impersonation = {"resourceAttributes": {"verb": "impersonate", "resource": "users"}}
    assert review("SelfSubjectAccessReview", **impersonation)["allowed"] is False  # impersonation is not served
    assert review("SubjectAccessReview", user=ADMIN, **impersonation)["allowed"] is False
    elsewhere = local.replace("default", "other")
    assert refused("LocalSubjectAccessReview", elsewhere, user="bob", **ACCESS)[0] == 400


def test_malformed_reviews_are_refused() -> None:
    assert refused("SubjectAccessReview", user="bob")[0] == 422
    assert refused("SubjectAccessReview", **ACCESS)[0] == 422
    assert refused("SelfSubjectAccessReview", nonResourceAttributes={}, **ACCESS)[0] == 422
    assert refused("SelfSubjectAccessReview", resourceAttributes=5)[0] == 400
    for body in (5, None, [], {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1"}, {"spec": 5}):
        with pytest.raises(Failure, match=r"(unrecognized|is a TokenReview|cannot unmarshal)"):
            ask(f"{AUTHORIZATION}/subjectaccessreviews", body)


def test_what_is_no_review_is_left_to_others() -> None:
    for path in (
        f"{AUTHORIZATION}/localsubjectaccessreviews",
        f"{AUTHORIZATION}/namespaces/default/subjectaccessreviews",
        f"{AUTHORIZATION}/subjectaccessreviews/a",
        "/apis/authorization.k8s.io/v2/subjectaccessreviews",
        "/api/v1/tokenreviews",
    ):
        assert ask(path, {}) is None


def test_whoami_is_read_from_the_protobuf_that_kubectl_sends() -> None:
    body = b"k8s\x00\x0a" + bytes([2 + 24 + 2 + 17]) + b"\x0a\x18authentication.k8s.io/v1\x12\x11SelfSubjectReview"
    body += b"\x12\x04\x0a\x00\x12\x00\x1a\x00\x22\x00"
    read = decode_protobuf(body)
    assert ask(f"{AUTHENTICATION}/selfsubjectreviews", read)["status"]["userInfo"]["username"] == ADMIN
