"""Tests manual requests: how the annotation is parsed, and the errors for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remit.release.model import MalformedRequest, ReleaseRequest
from remit.release.requestannotation import ANNOTATION, pending, requester


def deployment(text: str | None, *managed: Any) -> dict[str, Any]:
    annotations = {} if text is None else {ANNOTATION: text}
    return {"metadata": {"name": "shop", "uid": "u1", "annotations": annotations, "managedFields": list(managed)}}


def asked(text: str) -> ReleaseRequest:
    request = pending(deployment(text))
    assert isinstance(request, ReleaseRequest)
    return request


def refused(text: str) -> MalformedRequest:
    request = pending(deployment(text))
    assert isinstance(request, MalformedRequest), request
    return request


def test_nothing_is_asked_for() -> None:
    assert pending(deployment(None)) is None
    assert pending({"metadata": {"name": "shop", "uid": "u1"}}) is None
    assert pending({"metadata": {"name": "shop", "uid": "u1", "annotations": None}}) is None


@pytest.mark.parametrize("verb", ["promote", "abort", "rollback", "retry", "pause", "resume"])
def test_a_word_and_an_object_are_the_same(verb: str) -> None:
    for text in (verb, f" {verb}\n", json.dumps({verb: {}})):
        request = asked(text)
        assert (request.kind, request.revision, request.full) == (verb, None, False)


def test_terms_and_an_id_are_taken_as_written() -> None:
    assert asked('{"promote": {"revision": 2, "full": true}, "id": "a-1"}') == ReleaseRequest("a-1", "promote", 2, True)
    assert asked('{"rollback": {"revision": 3}, "id": "b"}') == ReleaseRequest("b", "rollback", 3)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"promote": {"revison": 99}}', "promote.revison is not a known field; did you mean revision?"),
        ('{"promote": {"x": 1}}', "promote.x is not a known field; known are revision, full"),
        ('{"rollback": {"full": true}}', "rollback.full is not a known field"),
        ('{"retry": {"revision": 3}}', "retry.revision is not a known field; it takes none"),
        ('{"promot": {}}', "promot is not a known field; did you mean promote?"),
        ("Promote", "'Promote' is not a request; did you mean promote?"),
        ("frobnicate", "'frobnicate' is not a request; known are promote, abort, rollback, retry, pause, resume"),
        ("", "'' is not a request; known are"),
        ('["promote"]', "is not a request"),
        ('{"promote": {}, "abort": {}}', "promote and abort given"),
        ("{}", "none given"),
        ('{"promote": null}', "none given"),
        ('{"promote": true}', "promote: "),
        ('{"promote": {"revision": "2"}}', "promote.revision: "),
        ('{"promote": {"revision": true}}', "promote.revision: "),
        ('{"promote": {"revision": 2.0}}', "promote.revision: "),
        ('{"promote": {"revision": 1e400}}', "promote.revision: "),
        ('{"promote": {"revision": 0}}', "promote.revision: "),
        ('{"promote": {"revision": 2147483648}}', "promote.revision: "),
        ('{"promote": {"full": "yes"}}', "promote.full: "),
        ('{"promote": {"full": 1}}', "promote.full: "),
        ('{"promote": {"revision": 99}, "promote": {}}', "promote is given twice"),
        ('{"promote": {"revision": 99, "revision": 2}}', "revision is given twice"),
        ('{"promote": {"revision": NaN}}', "NaN is not JSON"),
        ('{"promote": {}', "is not JSON"),
        ('{"promote": ' + "[" * 1000, "nested too deeply"),
        ('{"promote": {"revision": ' + "9" * 990 + "}}", "promote.revision: "),
        ('{"promote": {}, "id": ""}', "id: "),
        ('{"promote": {}, "id": 7}', "id: "),
        ('{"promote": {}, "id": "two words"}', "id: "),
        ('{"promote": {}, "id": "' + "a" * 129 + '"}', "id: "),
        ('{"promote": {}, "id": "' + "a" * 200_000 + '"}', "has 200025 characters; a request has at most 1024"),
    ],
)
def test_a_mistake_is_reported_and_nothing_is_requested(text: str, answer: str) -> None:
    request = refused(text)
    assert answer in request.message
    assert request.message.startswith(ANNOTATION)
    assert len(request.message) < 2500
    assert len(request.id) <= 128


def test_a_mistake_is_answered_under_the_id_that_was_given() -> None:
    assert refused('{"promote": {"revison": 9}, "id": "mine"}').id == "mine"
    assert refused('{"promote": {}, "id": "not mine"}').id != "not mine"
    assert refused('{"promote": {}, "abort": {}, "id": "not mine"}').id != "not mine"


def test_messages_have_no_control_characters() -> None:
    assert "\x1b" not in refused('{"\x1b[2J": {}}').message
    assert "\x1b" not in refused("\x1b[2J").message


def test_the_same_text_written_again_is_another_request() -> None:
    def written(at: str) -> dict[str, Any]:
        fields = {"f:metadata": {"f:annotations": {f"f:{ANNOTATION}": {}}}}
        return deployment("promote", {"manager": "kubectl", "time": at, "fieldsV1": fields})

    first, again = pending(written("2026-01-01T00:00:00Z")), pending(written("2026-01-01T00:00:01Z"))
    assert first is not None
    assert again is not None
    assert first.id != again.id
    assert requester(written("2026-01-01T00:00:00Z")) == "manager:kubectl"


@pytest.mark.parametrize("managed", [{}, {"fieldsV1": None}, {"fieldsV1": {"f:metadata": None}}, {"fieldsV1": []}])
def test_unusual_managed_fields_name_no_requester(managed: dict[str, Any]) -> None:
    assert requester(deployment("promote", managed)) == ""
    assert isinstance(pending(deployment("promote", managed)), ReleaseRequest)


def test_a_client_without_a_name_has_no_requester() -> None:
    fields = {"f:metadata": {"f:annotations": {f"f:{ANNOTATION}": {}}}}
    assert requester(deployment("promote", {"fieldsV1": fields})) == ""
