"""Tests what a control plane imports of the expression library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "operator"


def test_the_shell_of_the_library_is_imported_by_who_asks_for_it_only() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
import remit.controlplane
print("prompt_toolkit" in sys.modules)
from remit.controlplane.schema.cellibrary import cel
print(cel.evaluate("1 + 1"))
from cel.cli import app
print("prompt_toolkit" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "2", "True"]
