"""Tracks contents that are being collected, so that `prune` removes none of them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator


class Holding:
    """Contents by their names, which no record speaks of yet."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = Counter[str]()
        self._meanwhile: set[str] | None = None
        """The contents that were held since `pruning` began; None if it does not run."""
        self._pruning = threading.Lock()

    def hold(self, name: str) -> None:
        with self._guard:
            self._held[name] += 1

    def let_go(self, names: Collection[str]) -> None:
        """Releases contents that a record refers to by now, or that are not needed any more."""
        with self._guard:
            for name in names:
                self._held[name] -= 1
                if not self._held[name]:
                    del self._held[name]
            if self._meanwhile is not None:
                self._meanwhile.update(names)

    @contextlib.contextmanager
    def pruning(self) -> Iterator[None]:
        """One at a time: what is let go of meanwhile counts as held, as it read the records before."""
        with self._pruning:
            with self._guard:
                self._meanwhile = set(self._held)
            try:
                yield
            finally:
                with self._guard:
                    self._meanwhile = None

    def remove(self, names: Collection[str], remove: Callable[[list[str]], None]) -> None:
        """Calls `remove` with those of `names` that are not held, and prevents that they are held until it has
        returned."""
        with self._guard:
            unused = [name for name in names if name not in self._held and name not in (self._meanwhile or ())]
            if unused:
                remove(unused)
