"""Which tests go to one worker together, and which are started first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Sequence

TOGETHER = ("tests/conformance/",)
"""Folders whose files share something that takes long to start."""


class Distribution(LoadScopeScheduling):
    """A file goes to one worker, for the sake of its module's fixtures, and so does a folder of TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if path.startswith(folder)), path)


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Folders of TOGETHER and files with a test marked `slow` first, so that none of them is left alone at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    return sorted(items, key=lambda item: not item.nodeid.startswith(TOGETHER) and item.path not in slow)
