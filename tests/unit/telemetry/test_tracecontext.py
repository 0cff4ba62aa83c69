"""Tests trace ids, and which traceparents are accepted."""

from __future__ import annotations

import pytest

from remit.telemetry.tracecontext import TraceContext, derived_id, parse_traceparent, trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-what-a-later-version-adds", True),
    ],
)
def test_a_valid_traceparent(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01-{'x' * 100_000}",
    ],
)
def test_an_invalid_traceparent_is_ignored(text: str | None) -> None:
    assert parse_traceparent(text) is None


def test_a_context_is_written_as_it_is_read() -> None:
    for sampled in (True, False):
        context = TraceContext(int(TRACE, 16), int(SPAN, 16), sampled)
        assert parse_traceparent(str(context)) == context


def test_the_trace_of_a_uid_is_the_uid_and_of_any_other_text_always_the_same() -> None:
    assert f"{trace_id_of('4bf92f35-77b3-4da6-a3ce-929d0e0e4736'):032x}" == TRACE
    assert trace_id_of("00000000-0000-0000-0000-000000000000") != 0
    assert 0 < trace_id_of("no uuid") == trace_id_of("no uuid") < 1 << 128
    assert trace_id_of("") != 0


def test_ids_differ_by_every_part_of_what_they_are_derived_from() -> None:
    ids = [derived_id(8, *of) for of in (("a", "b"), ("ab",), ("a", "b", 1), ("a", "b", 2), ("b", "a"))]
    assert len(set(ids)) == len(ids)
    assert all(0 < each < 1 << 64 for each in ids)
