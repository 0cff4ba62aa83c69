"""The examples of docs/python-api.md run as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
AGENT, SYNC, RELEASES, CLIENT = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python-api.md").read_text(), re.DOTALL)
SAID = ["0 test\n\ndenied: NotAllowed\nkilled: Timeout\nFalse\nstdout live\n\n", "hi\n\n"]


@pytest.mark.parametrize(("block", "said"), list(zip((AGENT, SYNC), SAID, strict=True)))
def test_an_example(block: str, said: str, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT / "operator"), "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.stdout, done.stderr) == (said, "")
