"""Runs the examples of docs/python-api.md as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from parts import require

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/python-api.md").read_text()
AGENT, SYNC, WORKSPACE, RELEASES, CLIENT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SAID = ["0 test\n\ndenied: NotAllowed\nkilled: Timeout\nFalse\nstdout live\n\n", "hi\n\n"]


def run(block: str, state: Path) -> tuple[str, str]:
    """Returns the output and the error output of an example."""
    environment = {"PYTHONPATH": str(ROOT / "operator"), "XDG_STATE_HOME": str(state)}
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, env=environment, timeout=120)
    return done.stdout, done.stderr


@pytest.mark.parametrize(("block", "said"), list(zip((AGENT, SYNC), SAID, strict=True)))
def test_an_example(block: str, said: str, tmp_path: Path) -> None:
    assert run(block, tmp_path) == (said, "")


def test_ten_commands_share_a_workspace_which_the_next_program_finds(tmp_path: Path) -> None:
    require("git", Path("/usr/bin/git").exists(), "apt install git")
    said, complaint = run(WORKSPACE, tmp_path)
    assert complaint == ""
    *codes, listing = said.split("\n", 10)
    assert [line.split()[0] for line in codes] == ["0", "0", "0", "1", "0", "0", "0", "0", "0", "0"], said
    assert listing.split() == ["shop.py", "test_shop.py"]
    again = WORKSPACE.replace('("ls", ""),', '("git log --format=%s", ""),')
    assert run(again, tmp_path)[0].splitlines()[-2:] == ["Add up prices", ""]
