"""Tests that plots are well-formed and harmless SVG, whatever the data."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from remit.release.report import plots

ODD = st.floats(allow_nan=True, allow_infinity=True)
POINTS = st.lists(st.tuples(ODD, ODD), max_size=20)
TEXT = st.text(st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="\ufffe\uffff"), max_size=30)


def plain(value: float) -> str:
    return f"{value:g}"


def drawn(text: str) -> ElementTree.Element:
    """Returns the plot after asserting that it is well-formed and stays inside its view box."""
    root = ElementTree.fromstring(text)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for element in root.iter():
        for name, limit in (("x", width), ("x1", width), ("x2", width), ("y1", height), ("y2", height), ("cy", height)):
            if element.tag != "text" and name in element.attrib:
                assert 0 <= float(element.attrib[name]) <= limit
        for x, y in re.findall(r"([^ ,]+),([^ ]+)", element.attrib.get("points", "")):
            assert 0 <= float(x) <= width and 0 <= float(y) <= height
    return root


@given(POINTS, POINTS, ODD, st.lists(st.builds(plots.Mark, ODD, TEXT), max_size=4))
def test_lines_are_drawn_of_anything(
    blue: list[plots.Point], green: list[plots.Point], span: float, marks: list[plots.Mark]
) -> None:
    series = [plots.Series("blue", blue), plots.Series("green", green)]
    drawn(plots.lines("any", series, span, x=plain, y=plain, marks=marks))


@given(st.lists(st.tuples(ODD, st.dictionaries(st.sampled_from(["blue", "green", "bad"]), ODD)), max_size=20), ODD)
def test_columns_are_drawn_of_anything(stacks: list[tuple[float, dict[str, float]]], span: float) -> None:
    drawn(plots.columns("any", stacks, span, x=plain, y=plain))


@given(st.lists(st.builds(plots.Bar, TEXT, ODD, ODD, TEXT, st.sampled_from(["", "bad"])), max_size=9), ODD, TEXT)
def test_time_lines_are_drawn_of_anything(bars: list[plots.Bar], span: float, label: str) -> None:
    root = drawn(plots.timeline(label, bars, span, x=plain))
    assert root.attrib["aria-label"] == label
    shown = [bar for bar in bars if math.isfinite(bar.start) and math.isfinite(bar.length)]
    assert len(root.findall("rect")) <= len(shown)


@given(ODD, st.integers(1, 12))
def test_ticks_are_few_and_reach_the_top(top: float, count: int) -> None:
    found = plots.ticks(top, count)
    assert found[0] == 0 and 2 <= len(found) <= 2 * count + 2
    assert found == sorted(set(found))
    if 1e-15 <= top <= 1e15:
        assert found[-1] >= top * (1 - 1e-6)


def test_ticks_are_round() -> None:
    assert plots.ticks(20) == [0, 5, 10, 15, 20]
    assert plots.ticks(0.9) == [0, 0.25, 0.5, 0.75, 1.0]
    assert plots.ticks(0) == plots.ticks(-3) == plots.ticks(math.nan) == [0, 1]


def test_points_are_where_they_belong() -> None:
    root = drawn(plots.lines("l", [plots.Series("blue", [(10, 20), (0, 0)])], 10, x=plain, y=plain))
    points = root.find("polyline").attrib["points"].split()  # type: ignore[union-attr]
    (left, bottom), (right, top) = (map(float, each.split(",")) for each in points)
    assert left < right and bottom > top, "time goes to the right, and more is further up"
    assert {each.text for each in root.findall("text")} >= {"0", "5", "10", "15", "20"}


def test_one_point_is_drawn_and_empty_data_is_reported() -> None:
    alone = plots.lines("l", [plots.Series("blue", [(1, 1)]), plots.Series("green", [])], 2, x=plain, y=plain)
    assert drawn(alone).find("circle") is not None
    nothing = plots.lines("l", [plots.Series("blue", [(math.nan, 1)])], 2, x=plain, y=plain)
    for empty in (
        nothing,
        plots.columns("l", [(1, {"blue": 0})], 2, x=plain, y=plain),
        plots.timeline("l", [], 2, x=plain),
    ):
        assert [text.text for text in drawn(empty).findall("text")] == ["nothing was measured"]


def test_stacks_stand_on_each_other() -> None:
    root = drawn(plots.columns("l", [(0, {"blue": 10, "bad": 10})], 10, x=plain, y=plain))
    low, high = root.findall("rect")
    assert (low.attrib["class"], high.attrib["class"]) == ("blue", "bad")
    assert float(high.attrib["y"]) + float(high.attrib["height"]) == float(low.attrib["y"])


def test_labels_of_marks_never_overlap() -> None:
    marks = [plots.Mark(5, "to green"), plots.Mark(5.1, "to blue"), plots.Mark(90, "to green")]
    root = drawn(plots.lines("l", [plots.Series("blue", [(0, 1), (99, 1)])], 100, x=plain, y=plain, marks=marks))
    notes = [text.text for text in root.findall("text") if text.attrib.get("class") == "note"]
    assert notes == ["to green", "to green"]
    assert len([line for line in root.findall("line") if line.attrib["class"] == "mark"]) == 3
