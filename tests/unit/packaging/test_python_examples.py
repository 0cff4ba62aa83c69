"""Tests that the Python code of the pages passes `mypy --strict` with the types of the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_examples_have_the_types_of_the_package(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install -e '.[dev]'")
    examples = tmp_path / "examples"
    examples.mkdir()
    for page in PAGES:
        for found in re.finditer(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
            line = page.read_text()[: found.start(1)].count("\n")
            # Lines are padded, so that an error is reported with the line of the page.
            (examples / f"{page.stem.replace('-', '_').lower()}_{line}.py").write_text("\n" * line + found[1])
    assert list(examples.iterdir())
    # The cache keeps what mypy knows of the package and its imports for the next run.
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(examples)]
    command += ["--cache-dir", str(ROOT / ".mypy_cache/examples")]
    env = {"MYPYPATH": str(ROOT / "operator"), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout
