"""Runs the tutorial as its reader does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import transcript
import tutorial
from parts import require


@pytest.mark.usefixtures("sandbox")
@pytest.mark.timeout(300)
def test_the_tutorial_tells_what_happens(tmp_path: Path, kubectl: str) -> None:
    require("curl", shutil.which("curl"), "apt-get install curl")
    page = tutorial.PAGE.read_text()
    assert transcript.normal(tutorial.played(page, tmp_path, kubectl)) == transcript.normal(page), (
        "run `make transcript` and look at the change"
    )
