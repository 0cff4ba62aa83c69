"""The transcript of docs/policy.md, from default deny to a policy, as a user without a policy goes through it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from remitup import REMIT, RemitUp

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"


@pytest.mark.usefixtures("sandbox")
def test_the_page_tells_what_happens(tmp_path: Path, kubectl: str) -> None:
    (block,) = re.findall(r"<!-- tested: suggest -->\n```console\n(.*?)```", PAGE.read_text(), re.S)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"remit": REMIT, "kubectl": (kubectl,)}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (programs / name).chmod(0o755)
    shown = []
    with RemitUp(tmp_path / "state", kubectl) as up:
        env = {**up.env, "PATH": f"{programs}:{os.environ['PATH']}"}
        for command in re.findall(r"^\$ (.*)$", block, re.M):
            done = subprocess.run(
                ["/bin/sh", "-c", f"{command} 2>&1"], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120
            )
            shown += [f"$ {command}\n", done.stdout]
    assert "".join(shown) == block
    assert (tmp_path / "report.txt").read_text().strip()
