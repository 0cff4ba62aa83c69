"""The work that a controller has still to do, item by item."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import structlog

from remit.controlplane.storage import StoreFailed

Item = TypeVar("Item", bound=Hashable)

log = structlog.get_logger(__name__)


class WorkSet(Generic[Item]):
    """A set in order of arrival. An item whose step fails stays in it, so that no failure loses work."""

    def __init__(self, controller: str) -> None:
        self._controller = controller
        self._items: dict[Item, None] = {}

    def add(self, item: Item) -> None:
        self._items[item] = None

    def __len__(self) -> int:
        return len(self._items)

    def process(self, step: Callable[[Item], None]) -> bool:
        """Take one step for each item that is there now. Whether all succeeded; failures are logged and kept."""
        items, self._items = self._items, {}
        failed: dict[Item, None] = {}
        for item in items:
            try:
                step(item)
            except StoreFailed:
                raise
            except Exception:
                log.exception("controller_step_failed", controller=self._controller, item=item)
                failed[item] = None
        self._items |= failed
        return not failed
