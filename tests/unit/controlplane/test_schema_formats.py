"""Tests the string formats."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema.formats import conforms, parse_duration

GOOD = {
    "date-time": ["2020-01-01T00:00:00Z", "2020-01-01t00:00:00.123456z", "2020-01-01T00:00:00+02:00"],
    "date": ["2020-02-29"],
    "duration": ["1h30m", "-1.5s", "0", "10ms", "1us", "1µs", ".5h", "1d", "2 Weeks", "1h 2m"],
    "byte": ["Yg=="],
    "ipv4": ["10.0.0.1"],
    "ipv6": ["::1", "fe80::1"],
    "cidr": ["10.0.0.0/8", "fe80::/64"],
    "email": ["a@example.com"],
    "uri": ["https://example.com/x?y=z", "mailto:a@example.com", "/path"],
    "hostname": ["example.com", "a"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    "nobody-checks-this": ["", "anything"],
}
BAD = {
    "date-time": ["", "yesterday", "2020-01-01", "2020-13-01T00:00:00Z", "2020-01-01T00:00:00"],
    "date": ["2020-02-30", "soon"],
    "duration": ["", "soon", "1", "h", "1 x", "+", "-"],
    "byte": ["", "%", "Yg="],
    "ipv4": ["10.0.0", "::1", "10.0.0.256"],
    "ipv6": ["10.0.0.1", "g::"],
    "cidr": ["x/8", "10.0.0.0/33"],
    "email": ["nobody", "a@b@c", "@"],
    "uri": ["nowhere", ""],
    "hostname": ["-a", "a..b", "a_b", "x" * 254],
    "uuid": ["x", "123e4567"],
}


@pytest.mark.parametrize(("format_", "text"), [(name, text) for name, texts in GOOD.items() for text in texts])
def test_conforms(format_: str, text: str) -> None:
    assert conforms(text, format_)


@pytest.mark.parametrize(("format_", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_does_not_conform(format_: str, text: str) -> None:
    assert not conforms(text, format_)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400), ("-1.5s", -1.5), ("1m1s", 61), ("0", 0), ("250ms", 0.25), ("+2s", 2), ("2 days", 172_800)],
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == datetime.timedelta(seconds=seconds)


@given(st.sampled_from(sorted(GOOD)), st.text())
def test_no_text_is_too_odd(format_: str, text: str) -> None:
    assert conforms(text, format_) in {True, False}
