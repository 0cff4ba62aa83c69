"""Injects faults at each await of a coroutine and at each line that it runs: one fault per run, at successive points,
until a run completes without a fault."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, coroutine
from typing import Any, Literal

from remit.backends.outcome import Outcome

Moment = Literal["instead", "after", "meanwhile"]
Overdue = Callable[[], None]


@dataclass
class Fault:
    """A fault at the `point`-th await, counted from 1. With `error`, it is raised there after the awaited operation has
    completed. Without an error, `overdue` is called, and the resulting cancellation arrives before (`instead`) or after
    the awaited operation; `meanwhile` does not wait for a cancellation."""

    point: int
    error: BaseException | None
    moment: Moment = "after"
    met: bool = False


@dataclass
class Tally:
    """Counts the outcomes of the tasks whose first attempt had a fault."""

    injected: int = 0
    retried: int = 0
    refused: int = 0
    """Number of tasks that were not retried because the effect may have taken place."""
    took_place: int = 0
    """Number of the refused tasks whose effect did take place."""
    undisturbed: list[str] = field(default_factory=list)

    def was_refused(self, outcomes: list[Outcome], count: int, where: str) -> bool:
        """Returns whether the task was not retried. `outcomes` are those of its attempts; `count` is how often the
        effect took place."""
        last = outcomes[-1]
        assert count <= 1, f"{where}: it took place {count} times: {outcomes}"
        if last.reason == "Completed":
            assert count == 1, f"{where}: it says that it took place: {outcomes}"
            self.retried += len(outcomes) > 1
            return False
        assert len(outcomes) == 1, f"{where}: a retry was to succeed: {outcomes}"
        self.refused += 1
        self.took_place += count
        return True


@coroutine
def disturbed(running: Coroutine[Any, Any, Any], fault: Fault, overdue: Overdue) -> Generator[Any, Any, Any]:
    """Returns the result of `running`, unless the fault prevents it."""
    waits, error = 0, None
    while True:
        try:
            awaited = running.send(None) if error is None else running.throw(error)
        except StopIteration as done:
            return done.value
        error, waits = None, waits + 1
        here = waits == fault.point
        if here and fault.error is None and fault.moment == "instead":
            fault.met = True
            error = yield from _cancelled(overdue)
            if isinstance(awaited, asyncio.Future):
                awaited.cancel()
            continue
        if here and fault.moment == "meanwhile":
            fault.met, here = True, False
            overdue()
        try:
            yield awaited
        except BaseException as raised:
            error = raised
        if here and error is None:
            fault.met = True
            error = fault.error or (yield from _cancelled(overdue))


def _cancelled(overdue: Overdue) -> Generator[Any, Any, BaseException]:
    """Waits for the cancellation that follows when the attempt is overdue."""
    never = asyncio.get_running_loop().create_future()
    overdue()
    try:
        yield from never
    except asyncio.CancelledError as cancelled:
        return cancelled
    raise AssertionError("it was not cancelled")


class Lines:
    """Raises `RuntimeError` at the `point`-th executed line of the modules below `folder`, in any thread."""

    def __init__(self, folder: Path, point: int) -> None:
        self._start, self._left = f"{folder}/", point
        self._counting = threading.Lock()
        self.met = ""

    @contextmanager
    def armed(self) -> Iterator[None]:
        before = sys.gettrace()
        threading.settrace_all_threads(self._enter) if sys.version_info >= (3, 12) else threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(before)  # type: ignore[arg-type]

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(self._start) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event != "line":
            return self._line
        with self._counting:
            self._left -= 1
            if self._left:
                return self._line
            self.met = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        raise RuntimeError(f"a fault at {self.met}")
