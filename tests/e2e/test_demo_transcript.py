from __future__ import annotations

import pytest

import transcript

pytestmark = pytest.mark.cover_programs

EARLIER = """\
applied 12:00:01.25  executiontask.remit.dev/hello   uid 0b6f1c1e-3b0c-4b3e-9d64-0f7f2f5c7a11
NAME    PHASE       DURATION   AGE
hello   Succeeded   12ms       3s
next attempt in 0.5 s
kubeconfig: /tmp/remit-demo-x1y2/kubeconfig on https://127.0.0.1:40321
"""
LATER = """\
applied 07:59:59.00  executiontask.remit.dev/hello   uid ffffffff-3b0c-4b3e-9d64-0f7f2f5c7a11
NAME    PHASE       DURATION     AGE
hello   Succeeded   1m2.5s       14s
next attempt in 1.25 s
kubeconfig: /home/ada/.cache/remit/kubeconfig on https://127.0.0.1:5123
"""


def test_what_varies_from_run_to_run_is_no_difference() -> None:
    assert transcript.normal(EARLIER) == transcript.normal(LATER)


@pytest.mark.parametrize(
    ("word", "other"), [("Succeeded", "Failed"), ("hello", "world"), ("PHASE", "STATE"), ("https", "http")]
)
def test_anything_else_is_a_difference(word: str, other: str) -> None:
    assert transcript.normal(EARLIER) != transcript.normal(EARLIER.replace(word, other))


def test_a_transcript_can_be_put_into_a_page_and_read_back() -> None:
    page = transcript.PAGE.read_text()
    changed = transcript.with_transcript(page, r"a line with \1 and ``ticks``")
    assert transcript.shown_in(changed) == "a line with \\1 and ``ticks``\n"
    assert "$ make demo\na line" in changed
    assert transcript.with_transcript(changed, transcript.shown_in(page)).count("```console") == page.count(
        "```console"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_page_shows_what_the_demo_prints() -> None:
    shown = transcript.shown_in(transcript.PAGE.read_text())
    assert shown.strip(), "the page has no transcript yet: run `make transcript`"
    assert transcript.normal(shown) == transcript.normal(transcript.play()), (
        "run `make transcript` and look at the change"
    )
