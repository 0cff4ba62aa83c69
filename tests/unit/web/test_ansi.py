"""Tests output of programs as HTML: colours, and no markup or cursor movements."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.web.ansi import LONGEST_SHOWN, Painter


def painted(data: bytes) -> str:
    return str(Painter().line(data))


@pytest.mark.parametrize(
    ("data", "html"),
    [
        (b"plain\n", "plain"),
        (b"\x1b[31mred\x1b[0m and not\n", '<span class="f1">red</span> and not'),
        (b"\x1b[1;92;44mbright\x1b[m", '<span class="f10 b4 bold">bright</span>'),
        (b"\x1b[4munder\x1b[24mnot", '<span class="underline">under</span>not'),
        (b"\x1b[7mturned", '<span class="f0 b7">turned</span>'),
        (b"\x1b[38;5;196mred\x1b[39mnot", '<span class="f9">red</span>not'),
        (b"\x1b[38;2;0;250;10mgreen", '<span class="f10">green</span>'),
        (b"\x1b[48;5;236mgrey", '<span class="b0">grey</span>'),
        (b"a\x1b[2Kb\x1b[10;20Hc\x1b]0;title\x07d\x1b]8;;http://evil\x1b\\e\x1b(Bf\x1bMg", "abcdefg"),
        (b" 10%\r 50%\r100%\n", "100%"),
        (b"windows\r\n", "windows"),
        (b"a\tb", "a\tb"),
        (b"<b>&\"'</b>", "&lt;b&gt;&amp;&#34;&#39;&lt;/b&gt;"),
        (b"\x1b[31m<script>", '<span class="f1">&lt;script&gt;</span>'),
        ("\u202etxt.exe\u2066".encode(), "\\u202etxt.exe\\u2066"),
        (b"nul\x00 bell\x07 del\x7f", "nul\\x00 bell\\x07 del\\x7f"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\x1b[38;5mx\x1b[38;2;1my", "xy"),
        (b"\x1b[999999999999999mx", "x"),
    ],
)
def test_lines(data: bytes, html: str) -> None:
    assert painted(data) == html


def test_a_colour_goes_on_in_the_next_line() -> None:
    painter = Painter()
    painter.line(b"\x1b[33mwarning\n")
    assert painter.line(b"still\n") == '<span class="f3">still</span>'


def test_a_line_that_is_too_long_is_cut_and_reports_it() -> None:
    html = painted(b"x" * (1 << 20))
    assert len(html) < LONGEST_SHOWN + 200
    assert f"{(1 << 20) - LONGEST_SHOWN} characters more" in html


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


_PIECES = st.sampled_from(
    [b"\x1b[", b"\x1b]", b"31", b";", b"m", b"<script>", b"\r", b"\x1b", b"\x07", b"38;5;", b'" onload="']
)


@given(st.lists(_PIECES | st.binary(max_size=6), max_size=12).map(b"".join))
def test_nothing_becomes_a_tag(data: bytes) -> None:
    tags = Tags()
    tags.feed(painted(data))
    assert set(tags.tags) <= {"span"}
    assert set(tags.attributes) <= {"class"}


def test_a_line_of_a_thousand_colours_is_not_a_thousand_elements() -> None:
    line = b"".join(b"\x1b[3%dmx" % (number % 8) for number in range(1000))
    html = Painter().line(line)
    assert html.count("<span") <= 200
    assert re.sub("<[^>]*>", "", html) == "x" * 1000


def test_a_sequence_of_many_codes_is_read_as_far_as_terminals_do() -> None:
    assert Painter().line(b"\x1b[" + b"1;" * 4000 + b"4mx") == '<span class="bold">x</span>'
