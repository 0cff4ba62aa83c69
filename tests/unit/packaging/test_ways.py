"""Tests that the pages about the code name existing files, and count them correctly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "operator/remit"
PAGES = [ROOT / "docs" / name for name in ("architecture.md", "glossary.md", "where-to-change.md")]
ARCHITECTURE, GLOSSARY, CHANGES = (page.read_text() for page in PAGES)
FOLDERS = (ROOT, PACKAGE, PACKAGE / "controlplane")
"""Where a path may begin; the last one is for the description of a request."""
ENDINGS = (".py", ".md", ".yaml", ".json", ".toml", ".tpl", ".txt", ".html")
STEP = re.compile(r"^\d+\. (.+(?:\n   +.+)*)", re.MULTILINE)
COUNT = re.compile(r"That is (\d+) files: (\d+) hand the \w+ on, and (\d+) are asked")


def named_paths(page: str) -> Iterator[str]:
    """Yields code spans that name a file or a folder of the repository, recognized by their beginning or end."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`\s]+)`", text):
        first, slash, _ = span.partition("/")
        begins = bool(slash) and any((folder / first).is_dir() for folder in FOLDERS if first)
        if begins or span.endswith(ENDINGS) or (slash and span.endswith("/")):
            yield span


def missing(page: str) -> list[str]:
    return [path for path in named_paths(page) if not any((folder / path).exists() for folder in FOLDERS)]


def section(heading: str) -> str:
    (found,) = re.findall(rf"^###? {heading}\n(.*?)(?=^##|\Z)", ARCHITECTURE, re.DOTALL | re.MULTILINE)
    return str(found)


def files(text: str) -> tuple[set[str], set[str]]:
    """Returns the files in the steps of a description: those in bold, which pass the work on, and those that are only
    called."""
    steps = "\n".join(STEP.findall(text))
    every = {path for path in re.findall(r"`([^`\s]+)`", steps) if path.endswith(".py")}
    bold = set(re.findall(r"\*\*`([^`\s]+)`\*\*", steps))
    return bold, every - bold


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    assert missing(text) == []
    assert len([*named_paths(text)]) + text.count("](../operator/remit/") > 25


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("`execution/store.py` and `docs/tasks.md`", []),
        ("`execution/told.py`", ["execution/told.py"]),
        ("`execution/told`", ["execution/told"]),
        ("`gone/`, `gone/file.py`", ["gone/", "gone/file.py"]),
        ("`namespace/name`, `/healthz`, `remit.dev/request`, `state.db`", []),
        ("```\n`execution/told.py`\n```", []),
    ],
)
def test_a_path_that_is_gone_is_found(text: str, lacking: list[str]) -> None:
    assert missing(text) == lacking


@pytest.mark.parametrize("heading", ["How a task runs", "How a release goes on", "How a request is answered"])
def test_a_way_has_as_many_files_as_it_says(heading: str) -> None:
    text = section(heading)
    way, count, _ = re.split(r"^(That is .*)$", text, maxsplit=1, flags=re.MULTILINE)
    said = COUNT.match(count)
    assert said, f"{heading}: say how many files it has"
    handed, asked = files(way)
    assert tuple(map(int, said.groups())) == (len(handed | asked), len(handed), len(asked))


def test_the_whole_of_a_release_has_as_many_files_as_it_says() -> None:
    text = section("How a release goes on")
    said = re.search(r"^With these (\d+) the whole of a release is (\d+) files\.$", text, re.MULTILINE)
    assert said
    look, whole = text.split("That is ", 1)
    known, more = (set().union(*files(part)) for part in (look, whole))
    assert tuple(map(int, said.groups())) == (len(more - known), len(more | known))


def test_pictures_can_be_read_in_a_terminal() -> None:
    pictures = re.findall(r"^```mermaid\n(.*?)^```", ARCHITECTURE, flags=re.DOTALL | re.MULTILINE)
    assert len(pictures) == 3
    assert [line for picture in pictures for line in picture.splitlines() if len(line) > 80] == []


def test_words_are_few_in_order_and_lead_to_a_page_and_to_the_code() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", GLOSSARY, re.MULTILINE)[1:]
    words = [word for word, _, _ in rows]
    assert words == sorted(set(words))
    assert 20 <= len(words) <= 30
    assert len(words) == GLOSSARY.count("\n| ") - 2, "a row has another form"
    assert all(".md" in told and "](../operator/remit/" in lives for _, told, lives in rows)


def test_each_usual_change_names_a_test_and_only_targets_that_make_has() -> None:
    rows = [line.strip("| ").split(" | ") for line in CHANGES.splitlines() if re.match(r"\| an? ", line)]
    assert len(rows) >= 20
    assert [row[0] for row in rows if "`tests/" not in row[-1] and row[-1] != "the same"] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = set(re.findall(r"`make ([a-z-]+)`", CHANGES))
    assert asked
    assert asked <= targets
