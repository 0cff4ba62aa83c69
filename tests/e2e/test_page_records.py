"""Schedules, policies and the audit trail on the page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pages import Looker, looking
from remitup import RemitUp, until

SECRET = "hunter2-is-not-for-histories"


@pytest.fixture(scope="module")
def looker(up: RemitUp) -> Iterator[Looker]:
    up.kubectl("apply", "-f", "-", stdin=_OBJECTS)
    until(lambda: up.phase("refused") == "Denied", "the denial")
    with looking(up) as one:
        yield one


def asked(looker: Looker, line: str, **more: str) -> str:
    answer = looker.post("/policies/try", line=line, namespace="default", **more)
    assert answer.status_code == 200, answer.text
    return answer.text


def verdict(page: str) -> str:
    found = re.search(r'<div class="verdict (\w+)"', page)
    return found[1] if found else ""


def test_schedules_are_shown_with_their_day(looker: Looker) -> None:
    page = looker.get("/schedules").text
    assert "/tasks/default/nightly" in page
    assert "default/nightly in the next 24 hours: 1 runs" in page
    assert "Suspended" in page


def test_policies_tell_what_they_did(up: RemitUp, looker: Looker) -> None:
    until(lambda: up.read("commandpolicies", "tests")["status"].get("denied"), "the count")
    page = looker.get("/policies").text
    assert "/policies/default/tests" in page
    assert "not ready" in page
    one = looker.get("/policies/default/tests").text
    assert "/tasks/default/refused" in one
    assert "executable: bash" in one
    assert looker.get("/policies/default/none").status_code == 404


def test_the_box_says_what_policies_say_and_runs_nothing(up: RemitUp, looker: Looker) -> None:
    before = len(up.read("executiontasks")["items"])
    allowed = asked(looker, "cat /etc/hostname")
    assert (verdict(allowed), "commands.allow[2]" in allowed) == ("ok", True)
    denied = asked(looker, f"git push {SECRET}")
    assert (verdict(denied), "NotAllowed" in denied) == ("no", True)
    assert verdict(asked(looker, "cat x", labels="unselected=yes")) == "no"
    assert "is no label" in asked(looker, "cat x", labels="nonsense")
    assert 'role="alert"' in asked(looker, "cat 'unbalanced")
    hostile = asked(looker, "<script>alert(1)</script>")
    assert "<script>alert" not in hostile
    assert len(up.read("executiontasks")["items"]) == before
    assert looker.get("/policies/try").status_code == 405
    assert SECRET not in up.log.read_text()


def test_a_form_that_is_too_large_is_refused(looker: Looker) -> None:
    assert looker.post("/policies/try", line="x" * (300 << 10)).status_code == 413


def test_the_trail_is_searched_and_checked(up: RemitUp, looker: Looker) -> None:
    page = looker.get("/audit?verdict=denied&task=refused").text
    assert "git push" in page
    assert re.search(r"\b1 records|the last", page)
    assert "No record is like that" in looker.get("/audit?task=nobody").text
    assert "is neither a time" in looker.get("/audit?since=yesterday").text
    assert looker.post("/audit/check").headers["Location"] == "/audit"
    assert "The trail is whole" in looker.get("/audit").text


def test_an_edited_trail_is_told(up: RemitUp, looker: Looker) -> None:
    trail = up.state_dir / "audit/audit.jsonl"
    kept = trail.read_bytes()
    try:
        trail.write_bytes(kept.replace(b'"refused"', b'"renamed"', 1))
        looker.post("/audit/check")
        page = looker.get("/audit").text
        assert "NOT whole" in page
        assert "edited" in page
    finally:
        trail.write_bytes(kept)


_OBJECTS = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: nightly}
spec: {command: {argv: [cat, x]}, schedule: {cron: "0 2 * * *", timeZone: Europe/Paris}}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: resting}
spec: {command: {argv: [cat, x]}, schedule: {cron: "0 2 * * *", suspend: true}}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: refused}
spec: {command: {argv: [git, push]}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: broken, namespace: other}
spec: {commands: {allow: [{pattern: 'git (clone'}]}}
"""
