"""Fixtures that several folders of integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from dockers import make_image, needs_docker, remove_image

if TYPE_CHECKING:
    from objectstores import Swift


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Provides a small image on the machine's Docker engine."""
    needs_docker()
    tag = make_image()
    yield tag
    remove_image(tag)


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """Provides an object store. A test that stops it must start it again."""
    import objectstores  # imported here, because the import is slow

    with objectstores.swift(tmp_path_factory.mktemp("swift")) as running:
        yield running
