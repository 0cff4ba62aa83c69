"""Provides a folder as an attempt leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.backends.filetree import DescriptorTree, FileTree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@pytest.fixture
def tree(folder: Path) -> Iterator[FileTree]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    yield DescriptorTree({"/workspace": descriptor})
    os.close(descriptor)
