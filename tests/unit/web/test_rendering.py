"""Tests that names, messages and reasons never become markup and never reorder a line."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from pagerows import NOW, row
from remit.web import rendering, sparkline
from remit.web.overview import Attention, Summary
from remit.web.pages import VIEWS
from remit.web.rendering import Renderer, View, age, size

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.\x1b[31m\x00</td>{{ 7 * 7 }}"

RENDERER = Renderer("/s-base")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@dataclasses.dataclass
class Looking:
    name: str = HOSTILE
    trouble: str = HOSTILE
    narrowed: str = HOSTILE


def overview() -> View:
    bad = row("x", "Running", reason=HOSTILE, message=HOSTILE, policy=HOSTILE, operation=HOSTILE, started=NOW)
    bad = dataclasses.replace(bad, name=HOSTILE)
    found = Summary(running=1, waiting=1, runs=[bad])
    context = {
        "found": found,
        "ended": 0,
        "failed": 0,
        "plots": {name: sparkline.line(HOSTILE, [0, 1, 3], "run") for name in ("running", "waiting", "ended")},
        "peaks": {"running": 0, "waiting": 0, "ended": 0},
        "attention": [Attention(HOSTILE, HOSTILE, "/tasks/a/b")],
        "releases": [],
    }
    return View(
        "overview.html", "Overview", "overview", context, ("numbers", "attention", "waiting", "running", "releases")
    )


def test_hostile_words_stay_words() -> None:
    text = RENDERER.page(overview(), viewer=Looking(), notices=[], now=NOW, live="/")
    tags = Tags()
    tags.feed(text)
    assert [attrs.get("src") for tag, attrs in tags.found if tag == "script"] == [
        rendering.asset("output.js"),
        rendering.asset("page.js"),
    ]
    assert not [tag for tag, _ in tags.found if tag == "img"]
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert r"\x1b[31m" in text
    assert "49" not in re.sub(r"\?[0-9a-f]{12}|49px", "", text)  # addresses of files contain digests


def test_no_page_needs_what_its_policy_forbids() -> None:
    """Browsers would refuse inline scripts and styles."""
    folder = Path(rendering.__file__).parent / "templates"
    templates = [*folder.glob("*.html")]
    assert templates
    for path in templates:
        text = path.read_text()
        assert not re.search(r"\son[a-z]+\s*=|javascript:|\sstyle\s*=|<style|(src|href|action)=.https?:", text), path
        assert not re.search(r"<script(?![^>]* src=)", text), path
        assert "|safe" not in text.replace(" ", ""), path


def test_every_link_of_a_template_is_made_by_the_one_function() -> None:
    """Other links stay within their own page. Only the login form is outside the base."""
    links = 0
    for path in (Path(rendering.__file__).parent / "templates").glob("*.html"):
        for name, value in re.findall(r"""[\s"'](\w+)=["']?((?:\{\{|[#?/.]|\w+:)[^>]*)""", path.read_text()):
            if name in {"href", "src", "action", "formaction", "srcset", "poster", "data", "cite", "ping"}:
                links += 1
                assert value.startswith(("{{ link(", "{{ asset(", "#", "?")) or (
                    (path.name, value.partition('"')[0]) == ("login.html", "/login")
                ), f"{path.name}: {value}"
    assert links > 40


def test_links_lead_beneath_the_base() -> None:
    tags = Tags()
    tags.feed(RENDERER.page(overview(), viewer=Looking(), notices=[], now=NOW, live="/"))
    found = [
        value or "" for _, attrs in tags.found for name, value in attrs.items() if name in {"href", "action", "src"}
    ]
    assert len(found) > 10
    assert [each for each in found if not each.startswith(("/s-base/", "/static/", "#"))] == []


def test_the_navigation_leads_to_views() -> None:
    tags = Tags()
    tags.feed(RENDERER.page(overview(), viewer=Looking(), notices=[], now=NOW, live="/"))
    entries = [attrs["href"] for tag, attrs in tags.found if tag == "a"]
    assert [f"/s-base{path}" for path in rendering.SECTIONS.values()] == entries[2 : 2 + len(rendering.SECTIONS)]
    assert set(rendering.SECTIONS.values()) <= {path for path, _, _ in VIEWS}


def test_regions_are_what_the_page_has_there() -> None:
    view = overview()
    text = RENDERER.page(view, viewer=Looking(), notices=[], now=NOW, live="/")
    made = RENDERER.regions(view)
    assert set(made) == set(view.regions)
    assert all(html in text for html in made.values())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (61, "1m1s"), (3599, "59m"), (3600, "1h0m"), (90000, "1d1h"), (-5, "0s")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(NOW - seconds, NOW) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (300 << 20, "300 MiB"), (5 << 40, "5120 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_plots_have_a_label_and_finite_numbers() -> None:
    drawn = sparkline.columns('a "label" <b>', ([0, 2, 1], [1, 0, 0]), ("ok", "bad"))
    assert isinstance(drawn, Markup)
    assert "&lt;b&gt;" in drawn
    assert drawn.count("<rect") == 3
    assert "nan" not in sparkline.line("", [], "run") + sparkline.line("", [5], "run")


def test_a_plot_of_a_minute_that_has_just_begun_is_at_its_end() -> None:
    drawn = str(sparkline.line("", [2, 2, 4], "blue", 61))
    assert 'points="232.0,' in drawn
    assert drawn.count("nan") == 0
