"""Which tests go to one worker together, and in which order they are started."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

from progress import weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdist.workermanage import WorkerController

TOGETHER = ("tests/conformance/",)
"""Folders whose files share something that takes long to start."""
COMPUTING = "tests/unit/"
"""The folder whose tests wait for nothing."""
SLOW_SECONDS = 20.0
"""About, of a test marked `slow`."""


class Distribution(LoadScopeScheduling):
    """A file goes to one worker, for the sake of its module's fixtures, and so does a folder of TOGETHER.

    The first worker begins with what computes, which fills the time in which the tests of the others wait.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is self.nodes[0] and (computing := next(filter(computes, self.workqueue), None)):
            self.workqueue.move_to_end(computing, last=False)
        super()._assign_work_unit(node)


def scope(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if path.startswith(folder)), path)


def computes(nodeid: str) -> bool:
    return nodeid.startswith(COMPUTING)


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """By what files and folders of TOGETHER take, so that none of them is left alone at the end."""
    seconds = Counter[str]()
    for item in items:
        seconds[scope(item.nodeid)] += SLOW_SECONDS if item.get_closest_marker("slow") else weight(item.nodeid)
    return sorted(items, key=lambda item: -seconds[scope(item.nodeid)])
