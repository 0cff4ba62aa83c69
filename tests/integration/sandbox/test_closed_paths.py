"""Tests read-only paths in folders that other users may not enter, for an operator that is root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.backends.process import ProcessBackend
from remit.sandbox import Host, reader_group, with_group

from .conftest import Runner

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the attempts of an ordinary operator are its own user")

READ = """
import os, sys
for path in sys.argv[1:]:
    try:
        print(open(path).read())
    except OSError as error:
        print(error.strerror)
print(sorted(os.listdir(os.path.dirname(os.path.dirname(sys.argv[1])))))
"""


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Provides a folder that only root may enter, with one path to be read and one that is not."""
    group = reader_group()
    assert group is not None
    folder = tmp_path / "closed"
    for name in ("shown", "hidden"):
        (folder / name).mkdir(parents=True)
        for mode in (0o640, 0o600):
            path = folder / name / f"{mode:o}"
            path.write_text("content")
            path.chmod(mode)
            os.chown(path, -1, group)
        (folder / name).chmod(0o755)
    folder.chmod(0o700)
    return folder


async def test_a_path_is_reached_through_a_closed_folder_and_nothing_else_in_it_is(host: Host, closed: Path) -> None:
    shown = closed / "shown"
    run = Runner(ProcessBackend(with_group(host, reader_group()), read_only_paths=[str(shown)]))
    paths = [str(shown / "640"), str(shown / "600"), str(closed / "hidden" / "640")]
    outcome, said = await run("/usr/bin/python3", "-I", "-c", READ, *paths)
    assert outcome.exit_code == 0, said.stderr
    assert said.stdout.decode().splitlines() == [
        "content",
        "Permission denied",
        "No such file or directory",
        "['shown']",
    ]
    assert sorted(path.name for path in closed.iterdir()) == ["hidden", "shown"], "on the host all is as it was"
    assert closed.stat().st_mode & 0o777 == 0o700


async def test_an_attempt_that_is_not_in_the_group_reads_nothing_that_is_the_groups(host: Host, closed: Path) -> None:
    run = Runner(ProcessBackend(host, read_only_paths=[str(closed / "shown")]))
    _, said = await run("/usr/bin/python3", "-I", "-c", READ, str(closed / "shown" / "640"))
    assert said.stdout.decode().splitlines()[0] == "Permission denied"
