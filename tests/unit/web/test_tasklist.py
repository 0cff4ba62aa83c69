"""Tests which tasks a list shows."""

from __future__ import annotations

import pytest

from pagerows import NOW, row
from remit.web.tasklist import PAGE_SIZE, Asked, listing
from remit.web.timeline import Bar, ticks, timeline

ROWS = [
    row("a", "Running", created=NOW - 10, started=NOW - 9),
    row("b", "Queued", created=NOW - 20, reason="PolicyRate"),
    row("c", "Failed", created=NOW - 30, started=NOW - 29, ended=NOW - 1, message="Exited with 3"),
    row("d", "Denied", created=NOW - 40, namespace="ops", policy="data-team"),
    row("e", "Scheduled", created=NOW - 50),
]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, "abcd"),
        ({"phase": "Running"}, "a"),
        ({"phase": "waiting"}, "b"),
        ({"phase": "failed"}, "cd"),
        ({"phase": "Scheduled"}, "e"),
        ({"phase": "<script>"}, "abcd"),
        ({"namespace": "ops"}, "d"),
        ({"text": "EXITED"}, "c"),
        ({"text": "policyrate"}, "b"),
        ({"text": "ops/d"}, "d"),
        ({"sort": "changed"}, "cabd"),
        ({"sort": "longest"}, "acbd"),
        ({"sort": "name"}, "abcd"),
        ({"page": "99"}, "abcd"),
        ({"page": "-1"}, "abcd"),
        ({"page": "1e9"}, "abcd"),
        ({"page": "0"}, "abcd"),
    ],
)
def test_what_is_asked_for(query: dict[str, str], names: str) -> None:
    assert "".join(each.name for each in listing(ROWS, Asked.read(query)).rows) == names


def test_pages_follow_each_other() -> None:
    rows = [row(f"t{number:04}", "Succeeded", created=NOW - number) for number in range(2 * PAGE_SIZE + 5)]
    pages = [listing(rows, Asked(page=number)) for number in (1, 2, 3, 4)]
    assert [len(page.rows) for page in pages] == [PAGE_SIZE, PAGE_SIZE, 5, 5]
    assert [(page.first, page.page, page.pages, page.found) for page in pages[1:3]] == [
        (PAGE_SIZE + 1, 2, 3, 205),
        (2 * PAGE_SIZE + 1, 3, 3, 205),
    ]
    assert Asked(text="a&b", phase="failed").url(2) == "/tasks?phase=failed&text=a%26b&page=2"


def test_counts_are_of_the_namespace() -> None:
    found = listing(ROWS, Asked(namespace="ops", phase="Running"))
    assert (found.rows, dict(found.counts), list(found.namespaces)) == ([], {"Denied": 1}, ["default", "ops"])


def test_a_time_line_has_what_happened_in_its_order() -> None:
    drawn = str(timeline([[Bar(0, 5, "gap", "waited"), Bar(5, 6, "bad", "<b>")], [Bar(6, 60, "run", "runs")]]))
    assert drawn.count("<rect") == 3
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn
    assert str(timeline([])) == ""
    assert "<rect" in str(timeline([[Bar(7, 7, "ok", "in no time")]]))


@pytest.mark.parametrize("seconds", [0.001, 0.9, 7, 61, 3600, 86400, 30 * 86400, 1e9])
def test_a_time_line_has_a_few_round_marks(seconds: float) -> None:
    assert 1 <= len(ticks(seconds)) <= 8
