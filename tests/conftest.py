"""What all tests share."""

from __future__ import annotations

import os

import pytest


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
