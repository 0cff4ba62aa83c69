"""Tests tasks on the page with live output, schedules, policies and the audit trail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from pages import Looker, looking, region
from remitup import RemitUp, until
from trees import submit

SECRET = "hunter2-is-not-for-histories"


@pytest.fixture(scope="module")
def looker(up: RemitUp) -> Iterator[Looker]:
    up.kubectl("apply", "-f", "-", stdin=_OBJECTS)
    until(lambda: up.phase("refused") == "Denied", "the denial")
    with looking(up) as one:
        yield one


def ended(up: RemitUp, name: str) -> None:
    until(lambda: up.phase(name) in {"Succeeded", "Failed", "Cancelled", "Denied"}, f"the end of {name}")


def lines(events: Iterator[tuple[str, Any]], last: str) -> str:
    """Returns the output that a page shows, up to a line with `last`."""
    seen = ""
    while last not in seen:
        name, data = next(events)
        if name == "output":
            assert len(data.get("lines", [])) <= 200
            seen += "\n".join(each["html"] for each in data.get("lines", ())) + str(data.get("note", "")) + "\n"
            seen += "(end)" if data.get("end") else ""
    return seen


def test_output_is_shown_while_it_is_written(up: RemitUp, looker: Looker) -> None:
    submit(up, "talker", r"printf '\033[31mred\033[0m <b>\n'; sleep 300", timeoutSeconds=300)
    until(lambda: up.phase("talker") == "Running", "the start")
    with looker.live("/tasks/default/talker") as events:
        seen = lines(events, "&lt;b&gt;")
        assert '<span class="f1">red</span>' in seen
        assert looker.post("/tasks/default/talker/cancel").headers["Location"] == looker.to("/tasks/default/talker")
        lines(events, "(end)")
    ended(up, "talker")
    page = looker.get("/tasks/default/talker").text
    assert "Cancelled" in page
    assert "talker is being cancelled" in page
    assert "talker is being cancelled" not in looker.get("/tasks/default/talker").text


def test_a_mebibyte_in_one_line_and_a_flood_are_no_burden(up: RemitUp, looker: Looker) -> None:
    submit(up, "flood", r"head -c 1048576 /dev/zero | tr '\0' x; echo; seq 100000; echo over >&2")
    ended(up, "flood")
    assert up.phase("flood") == "Succeeded"
    with looker.live("/tasks/default/flood") as events:
        seen = lines(events, "(end)")
    assert "characters more" in seen or "x" * 1000 not in seen
    assert "\n100000\n" in seen
    assert "over" in seen
    assert len(seen) < 1 << 20
    answer = looker.get("/tasks/default/flood/output/1/stdout")
    assert answer.content == b"x" * 1048576 + b"\n" + b"".join(b"%d\n" % number for number in range(1, 100001))
    assert answer.headers["Content-Disposition"] == 'attachment; filename="flood-1-stdout.log"'
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert looker.get("/tasks/default/flood/output/2/stdout").status_code == 400
    assert looker.get("/tasks/default/flood/output/1/other").status_code == 404


def test_attempts_are_on_a_time_line_with_their_usage(up: RemitUp, looker: Looker) -> None:
    retry = {"maxRetries": 2, "backoff": {"initialSeconds": 1, "jitter": 0}}
    submit(up, "thrice", "echo try; exit 3", retry=retry)
    ended(up, "thrice")
    page = looker.get("/tasks/default/thrice").text
    assert len(re.findall(r"<title>attempt \d for [^;<]*: ExitCode</title>", page)) == 3
    assert page.count(">exit 3<") == 3
    assert "waited to be tried again" in page
    with looker.live("/tasks/default/thrice?attempt=1") as events:
        assert lines(events, "(end)").count("try") == 1


def test_a_denial_is_explained_with_what_would_allow_it(up: RemitUp, looker: Looker) -> None:
    up.kubectl("apply", "-f", "-", stdin=_DENIED)
    ended(up, "push")
    page = looker.get("/tasks/default/push/why").text
    assert "NotAllowed" in page
    assert "executable: git" in page
    assert "<script>" not in page.replace("<script src=", "")
    assert "Denied" in looker.get("/tasks?phase=Denied&text=push").text


def test_a_task_is_run_again(up: RemitUp, looker: Looker) -> None:
    submit(up, "once", "echo again")
    ended(up, "once")
    there = looker.post("/tasks/default/once/rerun").headers["Location"].removeprefix(looker.base)
    assert re.fullmatch(r"/tasks/default/once-[a-z0-9]+", there)
    ended(up, there.rpartition("/")[2])
    managers = up.task(there.rpartition("/")[2])["metadata"]["managedFields"]
    assert "remit-page" in [each["manager"] for each in managers]


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/default/none",
        "/tasks/default/UPPER",
        "/tasks/default/%3Cscript%3E",
        "/tasks/default/..%2f..%2fapi",
        "/tasks/%2e%2e/x",
        "/tasks/kube-system/none/why",
        "/tasks/default/none/output/1/stdout",
    ],
)
def test_what_is_not_there_is_not_there(looker: Looker, path: str) -> None:
    answer = looker.get(path)
    assert answer.status_code == 404, answer.text
    assert "<script>" not in answer.text.replace("<script src=", "")


def test_the_list_is_filtered_and_live(up: RemitUp, looker: Looker) -> None:
    with looker.live("/tasks?text=appears") as events:
        region(events, "rows", "No task is like that")
        submit(up, "appears", "echo")
        region(events, "rows", "/tasks/default/appears")
    ended(up, "appears")
    assert "/tasks/default/appears" not in looker.get("/tasks?phase=Running&text=appears").text


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
    week = looker.get("/schedules?week=this").text
    assert "/tasks/default/nightly" in week
    assert looker.to("/schedules?week=") in week
    later = looker.get("/schedules?week=2040-01-04").text
    assert "from Mon 2 Jan to Sun 8 Jan, 2040" in later
    assert later.count("at 01:00") == 7  # 02:00 in Paris
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
    assert looker.post("/audit/check").headers["Location"] == looker.to("/audit")
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


_DENIED = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: push}
spec: {command: {argv: [git, push, "<script>alert(1)</script>"]}}
"""
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
