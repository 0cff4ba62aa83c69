"""An engine of a module's own, and an image there; the engine that runs here has its own fixtures a folder above."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dockers import OwnEngine, make_image, needs_docker, own_engine


@pytest.fixture(scope="module")
def own() -> Iterator[OwnEngine]:
    needs_docker()
    with own_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def own_image(own: OwnEngine) -> str:
    return make_image(own.host)
