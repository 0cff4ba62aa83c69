"""An event loop whose clock jumps to the next timer when there is nothing else to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class _Selector(selectors.SelectSelector):
    skip: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen again"
        self.skip(timeout)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Runs work for threads immediately in the loop, because its clock does not advance while a thread works."""

    def __init__(self) -> None:
        self._now = 0.0
        selector = _Selector()
        selector.skip = self._skip
        super().__init__(selector)

    def _skip(self, seconds: float) -> None:
        self._now += seconds

    def time(self) -> float:
        return self._now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        done = self.create_future()
        done.set_result(func(*args))
        return done


def simulate(scenario: Coroutine[Any, Any, Any]) -> Any:
    """Returns the result of `scenario`, whose sleeps take no real time."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(scenario)
