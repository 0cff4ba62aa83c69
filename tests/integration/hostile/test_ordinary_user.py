"""The suite once more, as a user who is nobody."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portable import Portable, carry, ends, failures, passed

NOBODY = "65534"


@pytest.fixture
def portable() -> Iterator[Portable]:
    with tempfile.TemporaryDirectory(prefix="remit-hostile-", dir="/var/tmp") as folder:
        yield carry(Path(folder))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_suite_holds_for_an_ordinary_user(portable: Portable) -> None:
    with run_as_nobody(portable) as junit:
        assert set(ends(junit)) == {"confined"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_so_do_the_walls_of_mounted_folders(portable: Portable) -> None:
    with run_as_nobody(portable, of="sandbox", suite=["test_mounts.py", "test_stdin_file.py"]) as junit:
        assert "test_a_folder_that_is_swapped_meanwhile_is_never_another" in passed(junit)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_so_do_the_examples_with_files_of_a_user(portable: Portable) -> None:
    tests = [f"test_an_example_ends_as_it_promises[{name}]" for name in ("20-python-tests", "22-report")]
    with run_as_nobody(portable, of="operator", suite=[f"test_examples.py::{test}" for test in tests]) as junit:
        assert tests[1] in passed(junit)


@contextlib.contextmanager
def run_as_nobody(portable: Portable, **of: Any) -> Iterator[Path]:
    """Gives what JUnit would say of it."""
    if os.geteuid() != 0:
        pytest.skip("is run by an ordinary user already")
    setpriv = shutil.which("setpriv")
    assert setpriv, "setpriv is part of util-linux"
    with tempfile.TemporaryDirectory(prefix="remit-nobody-", dir="/var/tmp") as folder:
        os.chown(folder, int(NOBODY), int(NOBODY))
        junit = Path(folder) / "junit.xml"
        become = [setpriv, "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]
        done = subprocess.run(
            [*become, *portable.pytest(junit, f"--basetemp={folder}/tests", **of)],
            env={**portable.environment, "TMPDIR": folder},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (
            failures(junit) if junit.exists() else [],
            done.stdout[-3000:],
            done.stderr[-2000:],
        )
        yield junit
