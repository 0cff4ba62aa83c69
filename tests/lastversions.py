"""The previous version of Remit, from the repository's history (tests/lastversion)."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

from parts import require

_ROOT = Path(__file__).parents[1]


def last_version(folder: Path) -> Path:
    """Writes the files of the previous version to the folder. REMIT_TEST_LAST_VERSION overrides the commit that the
    file `commit` names."""
    written = (_ROOT / "tests/lastversion/commit").read_text().strip()
    commit = os.environ.get("REMIT_TEST_LAST_VERSION", written)
    archive = subprocess.run(["git", "archive", commit], cwd=_ROOT, capture_output=True, timeout=60)
    require("history", archive.returncode == 0, f"the commit {commit} is not in this repository; git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder
