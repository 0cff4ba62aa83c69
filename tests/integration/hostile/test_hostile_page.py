"""Tests that docs/hostile-suite.md lists the cases as they are declared. With REMIT_WRITE_PAGES=1 the test writes the
page."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from . import books
from .case import Case
from .elsewhere import Elsewhere

PAGE = Path(__file__).parents[3] / "docs" / "hostile-suite.md"
START, END = "<!-- cases -->", "<!-- end of cases -->"
AT_LEAST = 40


def table(title: str, cases: Iterable[Case]) -> str:
    rows = "\n".join(f"| {case.name} | {case.wants} | {case.control} |" for case in cases)
    return f"## {title}\n\n| attack | wants | stopped by |\n| --- | --- | --- |\n{rows}\n"


def test_the_page_lists_every_case() -> None:
    text = PAGE.read_text()
    head, tail = text.split(START)[0], text.split(END)[1]
    listed = "\n".join(table(title, cases) for title, cases in books.BOOKS.items())
    page = f"{head}{START}\n\n{listed}\n{END}{tail}"
    if os.environ.get("REMIT_WRITE_PAGES"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "run this test once with REMIT_WRITE_PAGES=1"


def test_there_are_enough_and_no_two_are_called_alike() -> None:
    names = [case.name for cases in books.BOOKS.values() for case in cases]
    assert len(names) >= AT_LEAST
    assert len(names) == len(set(names))


def test_those_whose_tests_are_elsewhere_are_there() -> None:
    tests = Path(__file__).parents[2]
    for case in (case for cases in books.BOOKS.values() for case in cases if isinstance(case, Elsewhere)):
        tree = ast.parse((tests / case.where).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}
        assert case.test in functions, f"{case.where} has no {case.test}"


@pytest.mark.parametrize("cases", books.BOOKS.values(), ids=books.BOOKS)
def test_each_says_what_it_is(cases: list[Case]) -> None:
    for case in cases:
        assert case.wants, case.name
        assert case.control, case.name
        assert "|" not in f"{case.name}{case.wants}{case.control}"
