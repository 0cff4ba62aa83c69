"""Assigns tests to workers and determines the order in which they start."""

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
"""Folders whose files share a fixture that is slow to start."""
COMPUTING = "tests/unit/"
"""The folder whose tests are CPU-bound."""
SLOW_SECONDS = 20.0
"""Approximate duration of a test marked `slow`, in seconds."""


class Distribution(LoadScopeScheduling):
    """Assigns each file to one worker, so that its module fixtures are shared, and likewise each folder of TOGETHER.

    The first worker begins with CPU-bound tests, which run while the tests of the other workers wait.
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
    """Sorts tests by the duration of their file or folder of TOGETHER, longest first, so that none of these runs alone
    at the end."""
    seconds = Counter[str]()
    for item in items:
        seconds[scope(item.nodeid)] += SLOW_SECONDS if item.get_closest_marker("slow") else weight(item.nodeid)
    return sorted(items, key=lambda item: -seconds[scope(item.nodeid)])
