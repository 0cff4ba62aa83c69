"""An engine of a module's own, and an image there; the engine that runs here has its own fixtures a folder above."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockers import OwnEngine, make_image, needs_docker


@pytest.fixture(scope="module")
def own() -> Iterator[OwnEngine]:
    needs_docker()
    with tempfile.TemporaryDirectory(prefix="rd", ignore_cleanup_errors=True) as folder:
        engine = OwnEngine(Path(folder))
        engine.start()
        try:
            yield engine
        finally:
            engine.stop()


@pytest.fixture(scope="module")
def own_image(own: OwnEngine) -> str:
    return make_image(own.host)
