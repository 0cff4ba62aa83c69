"""Runs the transcripts of pages from default deny to a policy, as a user without a policy does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import transcript
from remitup import RemitUp

ROOT = Path(__file__).parents[2]


def shown_on(page: str, name: str) -> str:
    (block,) = re.findall(rf"<!-- tested: {name} -->\n```console\n(.*?)```", (ROOT / page).read_text(), re.S)
    return str(block)


def typed(shown: str, folder: Path, state: Path, kubectl: str) -> str:
    """Returns what a terminal in `folder` shows when the commands in `shown` are run."""
    with RemitUp(state, kubectl) as up:
        run = up.shell(folder)
        return "".join(f"$ {command}\n{run(command)}" for command in re.findall(r"^\$ (.*)$", shown, re.M))


@pytest.mark.usefixtures("sandbox")
def test_the_page_about_policy_tells_what_happens(tmp_path: Path, kubectl: str) -> None:
    shown = shown_on("docs/policy.md", "suggest")
    assert typed(shown, tmp_path, tmp_path / "state", kubectl) == shown
    assert (tmp_path / "report.txt").read_text().strip()


@pytest.mark.usefixtures("sandbox")
def test_the_readme_tells_what_happens_in_a_folder_of_ones_own(tmp_path: Path, kubectl: str) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "test_shop.py").write_text(
        "import unittest\n\n\nclass ShopTest(unittest.TestCase):\n    def test_total(self):\n"
        "        self.assertEqual(sum([19, 23]), 42)\n"
    )
    shown = shown_on("README.md", "first-run")
    assert transcript.normal(typed(shown, folder, tmp_path / "state", kubectl)) == transcript.normal(shown)
