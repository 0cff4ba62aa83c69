"""Runs the suite as an unprivileged user."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from portable import carry, ends, failures, passed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NOBODY = "65534"
OF_A_USER = ("20-python-tests", "22-report", "24-clean-up", "27-toolchain")
BOXED = "test_an_example_with_files_in_a_container"
EXAMPLES = [*(f"test_an_example_ends_as_it_promises[{name}]" for name in OF_A_USER), BOXED]
ALSO = (
    "sandbox/test_mounts.py",
    "sandbox/test_stdin_file.py",
    *(f"operator/test_examples.py::{test}" for test in EXAMPLES),
)


@pytest.fixture(scope="module")
def junit() -> Iterator[Path]:
    """Provides the JUnit report of the suite, which is run once for all tests below."""
    if os.geteuid() != 0:
        pytest.skip("is run by an ordinary user already")
    setpriv = shutil.which("setpriv")
    assert setpriv, "setpriv is part of util-linux"
    with (
        tempfile.TemporaryDirectory(prefix="remit-hostile-", dir="/var/tmp") as suite,
        tempfile.TemporaryDirectory(prefix="remit-nobody-", dir="/var/tmp") as folder,
    ):
        portable = carry(Path(suite))
        os.chown(folder, int(NOBODY), int(NOBODY))
        junit = Path(folder) / "junit.xml"
        engine = Path("/var/run/docker.sock")
        groups = ["--groups", str(engine.stat().st_gid)] if engine.exists() else ["--clear-groups"]
        become = [setpriv, "--reuid", NOBODY, "--regid", NOBODY, *groups, "--"]
        done = subprocess.run(
            [*become, *portable.pytest(junit, f"--basetemp={folder}/tests", also=ALSO)],
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


def test_the_suite_passes_for_an_unprivileged_user(junit: Path) -> None:
    assert set(ends(junit)) == {"confined"}


def test_the_tests_of_mounted_folders_pass(junit: Path) -> None:
    assert {
        "test_a_folder_that_is_swapped_meanwhile_is_never_another",
        "test_no_mischief_reaches_the_file",
    } <= set(passed(junit))


def test_the_examples_with_files_of_a_user_pass(junit: Path) -> None:
    assert {*EXAMPLES[1:4]} <= passed(junit)


def test_an_unprivileged_operator_mounts_nothing_for_the_engine(junit: Path) -> None:
    if not Path("/var/run/docker.sock").exists():
        pytest.skip("no Docker engine runs here")
    assert BOXED in passed(junit)
