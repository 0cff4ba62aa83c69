"""What integration tests of several parts have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dockers import make_image, needs_docker, remove_image


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A small image on the engine that runs here."""
    needs_docker()
    tag = make_image()
    yield tag
    remove_image(tag)
