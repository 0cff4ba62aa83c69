"""What integration tests of several parts have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from dockers import make_image, needs_docker, remove_image

if TYPE_CHECKING:
    from objectstores import Swift


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A small image on the engine that runs here."""
    needs_docker()
    tag = make_image()
    yield tag
    remove_image(tag)


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """An object store. A test that stops it starts it again."""
    import objectstores  # what it imports takes time

    with objectstores.swift(tmp_path_factory.mktemp("swift")) as running:
        yield running
