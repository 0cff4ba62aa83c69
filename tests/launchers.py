"""The program that Jobs start with, built by this machine's compiler."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from conftest import require

SOURCE = Path(__file__).parents[1] / "operator" / "launcher" / "launch.c"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@functools.cache
def launchers() -> Path:
    """The folder that has it, as `Settings.launchers` wants it."""
    compiler = shutil.which("cc")
    require("cc", compiler, "apt-get install gcc libc6-dev")
    folder = Path(tempfile.mkdtemp(prefix="remit-launchers-"))
    argv = [compiler or "", "-O2", "-Wall", "-Wextra", "-static", "-o", folder / f"launch-{ARCHITECTURE}", SOURCE]
    subprocess.run(argv, check=True, capture_output=True)
    return folder
