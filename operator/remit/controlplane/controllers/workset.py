"""The work that a controller has still to do, item by item."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

import structlog

from remit.controlplane.storage import StoreFailed

Item = TypeVar("Item", bound=Hashable)

log = structlog.get_logger(__name__)


MOST_STEPS = 100
"""Between two of them, requests have their turn."""


class WorkSet(Generic[Item]):
    """A set in order of arrival. An item whose step fails is tried again, so that no failure loses work."""

    def __init__(self, controller: str) -> None:
        self._controller = controller
        self._items: dict[Item, None] = {}
        self._failed: dict[Item, str] = {}
        """Failed items with their errors, each of which is logged once."""

    def add(self, item: Item) -> None:
        self._items[item] = None

    def __len__(self) -> int:
        """Items to be worked on now; those that failed wait for `retry`."""
        return len(self._items)

    def retry(self) -> bool:
        """Work on the items that failed, too. Whether there are any."""
        self._items |= dict.fromkeys(self._failed)
        return bool(self._failed)

    def process(self, step: Callable[[Item], None]) -> bool:
        """Take one step for each item that is there now, within `MOST_STEPS`. Whether all succeeded."""
        succeeded = True
        for item in list(islice(self._items, MOST_STEPS)):
            del self._items[item]
            try:
                step(item)
            except StoreFailed:
                raise
            except Exception as error:
                succeeded = False
                if self._failed.get(item) != (why := repr(error)):
                    log.exception("controller_step_failed", controller=self._controller, item=item)
                self._failed[item] = why
            else:
                self._failed.pop(item, None)
        return succeeded
