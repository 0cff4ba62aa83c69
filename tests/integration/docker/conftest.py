"""Fixtures: a separate engine for each module and an image on it. The fixtures of the machine's engine are one folder
above."""

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
