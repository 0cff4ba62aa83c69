"""Tests that the API server refuses exactly those schedules and command lines that would fail later."""

from __future__ import annotations

import datetime
import re
import shlex

import re2
from cronsim import CronSim, CronSimError
from hypothesis import example, given
from hypothesis import strategies as st

from remit.api.executiontask import Schedule
from remit.api.operations import CommandOperation

MATCHES = re.compile(r"(!?)self\.(?:cron|line)\.matches\('((?:[^'\\]|\\.)*)'\)", re.DOTALL)


def accepted(rules: tuple[object, ...], field: str, text: str) -> bool:
    """Returns whether all rules about a field hold. Each rule is a disjunction of matches."""
    about = [rule for rule in rules if rule.field_path == field]  # type: ignore[attr-defined]
    return all(
        any(
            bool(re2.search(pattern.replace("\\\\", "\\"), text)) != bool(negated)
            for negated, pattern in MATCHES.findall(rule.rule)  # type: ignore[attr-defined]
        )
        for rule in about
    )


def is_read(cron: str) -> bool:
    try:
        CronSim(cron, datetime.datetime(2026, 1, 1))
    except CronSimError:
        return False
    return len(cron.split()) == 5


def fields(top: int, *words: str) -> st.SearchStrategy[str]:
    number = st.integers(0, top).map(str) | st.sampled_from(["*", *words])
    ranged = st.tuples(number, number).map("-".join)
    term = number | ranged | st.tuples(number | ranged, st.integers(0, 9).map(str)).map("/".join)
    return st.lists(term, min_size=1, max_size=3).map(",".join)


@given(
    st.tuples(fields(61), fields(25), fields(33, "L", "LW"), fields(14, "FEB"), fields(9, "mon", "1L", "5#2")).map(
        " ".join
    )
)
@example("0 0 L * FRI#5")
@example("  007  */2 1,15 jan-MAR,12 0-7/2 ")
def test_every_schedule_that_can_be_read_is_accepted(cron: str) -> None:
    if is_read(cron):
        assert accepted(Schedule.rules, ".cron", cron)


@given(
    st.sampled_from(["60 * * * *", "* 24 * * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "a * * * *", "*/0 * * * *"])
)
def test_a_schedule_with_a_value_out_of_range_is_refused(cron: str) -> None:
    assert not is_read(cron)
    assert not accepted(Schedule.rules, ".cron", cron)


@given(st.text(alphabet="ab \\'\"\n", max_size=12))
def test_lines_whose_quotes_are_closed_are_accepted_and_no_others(line: str) -> None:
    try:
        shlex.split(line)
        closed = True
    except ValueError:
        closed = False
    assert accepted(CommandOperation.rules, ".line", line) == closed
