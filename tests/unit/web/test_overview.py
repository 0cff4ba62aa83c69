"""Tests the numbers and lists of the first view."""

from __future__ import annotations

from typing import Any

from pagerows import NOW, row
from remit.web.overview import MINUTES, policies_needing_attention, releases_needing_attention, summarize


def test_each_minute_has_what_ended_in_it() -> None:
    found = summarize(
        [
            row("a", "Succeeded", started=NOW - 100, ended=NOW - 90),
            row("b", "Failed", started=NOW - 100, ended=NOW - 5, reason="ExitCode"),
            row("c", "Denied", ended=NOW - 5, reason="NoRule"),
            row("d", "Cancelled", ended=NOW - 5),
            row("old", "Succeeded", started=NOW - 9000, ended=NOW - 8000, created=NOW - 9000),
        ],
        NOW,
    )
    assert (found.succeeded[-2], found.failed[-1], found.cancelled) == (1, 2, 1)
    assert (sum(found.succeeded), sum(found.failed), found.total) == (1, 2, 5)


def test_what_ran_and_waited_is_known_for_each_minute() -> None:
    found = summarize(
        [
            row("long", "Running", created=NOW - 300, started=NOW - 200),
            row("short", "Succeeded", created=NOW - 190, started=NOW - 190, ended=NOW - 185),
            row("waits", "Queued", created=NOW - 70, queued=NOW - 65, reason="PolicyRate"),
        ],
        NOW,
    )
    assert len(found.busy) == len(found.queued) == MINUTES
    assert found.busy[-5:] == [0, 2, 1, 1, 1]
    assert found.queued[-2:] == [1, 1]
    assert (found.running, found.waiting) == (1, 1)


def test_waiting_tasks_are_reported_by_their_reason() -> None:
    rows = [row(f"w{number}", "Queued", reason="PolicyRate", policy="p", created=NOW - number) for number in range(5)]
    rows.append(row("b", "Backoff", reason="ExitCode"))
    groups = summarize(rows, NOW).waits
    assert [(each.reason, each.count, each.oldest.name) for each in groups] == [
        ("PolicyRate", 5, "w4"),
        ("ExitCode", 1, "b"),
    ]


def test_failures_of_one_family_and_reason_are_one_line() -> None:
    rows = [row(f"build-{number}", "Failed", reason="ExitCode", ended=NOW - number) for number in range(4)]
    rows += [
        row("once-1", "Denied", reason="NoRule", ended=NOW - 50),
        row("last-week", "Failed", ended=NOW - 9e5, created=NOW - 9e5),
    ]
    failures = summarize(rows, NOW).failures
    assert [(each.what, each.count) for each in failures] == [("default/build", 4), ("default/once-1", 1)]
    assert failures[0].path == "/tasks/default/build-0"


def test_releases_and_policies_that_need_attention_are_reported() -> None:
    shop = {"metadata": {"name": "shop", "namespace": "web"}, "status": {"phase": "AwaitingPromotion"}}
    well = {"metadata": {"name": "well", "namespace": "web"}, "status": {"phase": "Healthy"}}
    bare: dict[str, Any] = {"metadata": {"name": "bare", "namespace": "web"}}
    (found,) = releases_needing_attention([shop, well, bare])
    assert (found.what, found.grave, found.path) == ("web/shop", False, "/releases/web/shop")
    ready = [{"type": "Ready", "status": "False", "message": "column 5: missing )"}]
    (told,) = policies_needing_attention([{**bare, "status": {"conditions": ready}}, bare])
    assert "column 5" in told.why
